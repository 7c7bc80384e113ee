"""Tables and figures for people."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.table import Table

__all__ = ["bytes_text", "console_of", "table", "time_text"]

_WIDTH = 120


def console_of(file: TextIO) -> Console:
    """Writes to a terminal as wide as it is, else lines of a fixed width."""
    return Console(file=file, width=None if file.isatty() else _WIDTH)


def table(*columns: str) -> Table:
    """An empty table; all columns but the first are aligned to the right."""
    made = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left", overflow="fold")
    return made


def time_text(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def bytes_text(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count:.0f} B"
