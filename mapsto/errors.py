"""The errors that a user can cause, and how they are put on a terminal.

Everything here is imported when the first error comes up: a command that succeeds does not wait for
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from mapsto.dsl.diagnostics import Diagnostic

__all__ = ["MapstoError", "describe", "diagnostics_text", "user_errors"]


class MapstoError(Exception):
    """An error of the command line, with its exit code; `cause` is what it stands for."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns errors that a user can cause into MapstoError, with the original as its cause.

    BrokenPipeError passes: it is about the reader of our output.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, MapstoError) or not isinstance(error, _user_error_classes()):
            raise
        raise MapstoError(_message(error), _exit_code(error)) from error


def describe(error: MapstoError, stream: IO[str]) -> str:
    """The message for a stream: diagnostics in colour on a terminal, plain text elsewhere."""
    diagnostics = _diagnostics(error.__cause__)
    return diagnostics_text(diagnostics, stream) if diagnostics else f"error: {error}"


def diagnostics_text(diagnostics: Sequence[Diagnostic], stream: IO[str]) -> str:
    """Diagnostics for a stream, without a final line end."""
    from mapsto.dsl.render import render_all, render_rich

    if not stream.isatty():
        return render_all(diagnostics)
    from rich.console import Console

    console = Console(file=stream, force_terminal=True)
    with console.capture() as captured:
        for number, diagnostic in enumerate(diagnostics):
            console.print(*[""] * (number > 0), render_rich(diagnostic), sep="\n", soft_wrap=True)
    return captured.get().rstrip("\n")


def _user_error_classes() -> tuple[type[Exception], ...]:
    from mapsto.dsl.diagnostics import DiagnosticError
    from mapsto.dsl.formatter import SyntaxErrors
    from mapsto.dsl.library import DiagnosticsError
    from mapsto.ir.errors import AssertionFailed, IRError
    from mapsto.runtime.errors import (
        ArgumentError,
        CheckpointError,
        DataError,
        DeviceError,
        ExecutionError,
        TrainingError,
    )

    return (
        DiagnosticError,
        DiagnosticsError,
        SyntaxErrors,
        IRError,
        AssertionFailed,
        DataError,
        ArgumentError,
        CheckpointError,
        DeviceError,
        ExecutionError,
        TrainingError,
        NotImplementedError,  # an op, perhaps of a plugin, that the target has no code for
        OSError,  # ArtifactError is one
        MemoryError,
    )


def _exit_code(error: Exception) -> int:
    from mapsto.runtime.errors import TrainingInterrupted

    return 130 if isinstance(error, TrainingInterrupted) else 1


def _diagnostics(error: BaseException | None) -> Sequence[Diagnostic]:
    if error is None:
        return []
    single = getattr(error, "diagnostic", None)
    return getattr(error, "diagnostics", []) if single is None else [single]


def _message(error: Exception) -> str:
    diagnostics = _diagnostics(error)
    if diagnostics:
        from mapsto.dsl.render import render_all

        return render_all(diagnostics)
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror.lower()
        return reason if error.filename is None else f"{error.filename}: {reason}"
    return str(error)
