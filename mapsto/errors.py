"""The errors that a user can cause, and how they are put on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from rich.console import Console

from mapsto.dsl.library import DiagnosticsError
from mapsto.dsl.render import render_all, render_rich
from mapsto.ir.errors import IRError
from mapsto.runtime.dataset import DataError
from mapsto.runtime.errors import (
    ArgumentError,
    ArtifactError,
    CheckpointError,
    ExecutionError,
)
from mapsto.runtime.training import TrainingError, TrainingInterrupted

__all__ = ["MapstoError", "describe", "user_errors"]


class MapstoError(Exception):
    """An error of the command line, with its exit code; `cause` is what it stands for."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


_USER_ERRORS = (
    DiagnosticsError,
    IRError,
    DataError,
    ArgumentError,
    ArtifactError,
    CheckpointError,
    ExecutionError,
    TrainingError,
    OSError,
    UnicodeDecodeError,
)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns errors that a user can cause into MapstoError, with the original as its cause."""
    try:
        yield
    except _USER_ERRORS as error:
        code = 130 if isinstance(error, TrainingInterrupted) else 1
        raise MapstoError(_message(error), code) from error


def describe(error: MapstoError, stream: IO[str]) -> str:
    """The message for a stream: diagnostics in colour on a terminal, plain text elsewhere."""
    cause = error.__cause__
    if not isinstance(cause, DiagnosticsError):
        return f"error: {error}"
    if not stream.isatty():
        return render_all(cause.diagnostics)
    console = Console(file=stream, force_terminal=True)
    with console.capture() as captured:
        for diagnostic in cause.diagnostics:
            console.print(render_rich(diagnostic), soft_wrap=True)
    return captured.get().rstrip("\n")


def _message(error: BaseException) -> str:
    if isinstance(error, DiagnosticsError):
        return render_all(error.diagnostics)
    if isinstance(error, UnicodeDecodeError):
        return f"the file is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return str(error)
