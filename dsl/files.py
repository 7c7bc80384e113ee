"""Reading of source files."""

from __future__ import annotations

from pathlib import Path

from mapsto.dsl.diagnostics import DiagnosticError, Kind, report
from mapsto.dsl.lexer import MAXIMUM_CHARACTERS
from mapsto.dsl.source import Source

__all__ = ["read_source"]

_LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8."""


def read_source(path: Path, name: str | None = None) -> Source:
    """The text of a UTF-8 file, called `name`, or as its path, in messages.

    Of a file that is too long only as much is read as shows that it is.

    Raises:
        DiagnosticError: the file cannot be read or is not UTF-8.
    """
    name = str(path) if name is None else name
    try:
        with path.open("rb") as file:
            data = file.read((MAXIMUM_CHARACTERS + 2) * _LONGEST_CHARACTER)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _unreadable(name, "", reason) from None
    try:
        return Source(name, data.decode())
    except UnicodeDecodeError as error:
        if len(data) > MAXIMUM_CHARACTERS * _LONGEST_CHARACTER:
            return Source(name, data.decode(errors="replace"))
        before = data[: error.start].decode()
        raise _unreadable(name, before, f"byte 0x{data[error.start]:02x} is not UTF-8") from None


def _unreadable(name: str, before: str, reason: str) -> DiagnosticError:
    """The error for a file of which only the text `before` the mistake is known."""
    source = Source(name, before)
    span = source.span(len(source.text), len(source.text))
    return DiagnosticError(report(Kind.UNREADABLE_FILE, span, path=name, reason=reason))
