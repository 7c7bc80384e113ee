"""Tensors as text, as `print` in a program shows them; native code (`runtime/print.ll`) writes the
same.

Floats have a dot or an exponent and as many digits as their type holds; elements of a tensor have
one width.  Rows are broken at a line's end, and of large tensors the first and last three along
each axis are shown, as in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from mapsto.ir.core import Array
from mapsto.ir.types import DType

__all__ = ["PLACEHOLDER", "message_text"]

PLACEHOLDER = "{}"
"""Where the text of a message shows a tensor."""

LARGEST = 1000
"""Tensors of more elements are summarized."""

EDGE = 3
"""So many at each end of an axis are shown then."""

LINE_WIDTH = 75

_DIGITS = {DType.BF16: 3, DType.F16: 4, DType.F32: 6, DType.F64: 8}


def message_text(text: str, arrays: Sequence[Array], dtypes: Sequence[DType]) -> str:
    """The text with the arrays at its placeholders, and a line end."""
    first, *rest = text.split(PLACEHOLDER)
    message = first
    for array, dtype, following in zip(arrays, dtypes, rest, strict=True):
        column = len(message) - (message.rfind("\n") + 1)
        message += _ArrayText(array, dtype, column).text() + following
    return message + "\n"


class _ArrayText:
    """Writes one array that begins at a column of the line."""

    def __init__(self, array: Array, dtype: DType, column: int) -> None:
        self.array = array
        self.dtype = dtype
        self.indent = self.column = column
        self.is_summary = array.size > LARGEST
        self.width = 0
        self.parts: list[str] = []

    def text(self) -> str:
        """The array's text."""
        shown = [self._element(array) for array in self._shown(self.array)]
        self.width = max(map(len, shown), default=0)
        self._write(self.array)
        return "".join(self.parts)

    def _shown(self, array: Array) -> Iterator[Any]:
        if array.ndim == 0:
            yield array[()]
            return
        for position in self._positions(array):
            if position is not None:
                yield from self._shown(array[position, ...])

    def _positions(self, array: Array) -> Iterator[int | None]:
        """The positions shown along the first axis; None stands for those left out."""
        count = len(array)
        if not self.is_summary or count <= 2 * EDGE:
            yield from range(count)
            return
        yield from range(EDGE)
        yield None
        yield from range(count - EDGE, count)

    def _write(self, array: Array) -> None:
        if array.ndim == 0:
            self._put(self._element(array[()]).rjust(self.width))
            return
        self._put("[")
        for number, position in enumerate(self._positions(array)):
            if number:
                self._separate(array.ndim)
            if position is None:
                self._put("...")
            else:
                self._write(array[position, ...])
        self._put("]")

    def _separate(self, rank: int) -> None:
        """Between two of a tensor's parts, which have rank - 1 axes."""
        if rank == 1 and self.column + 1 + self.width <= LINE_WIDTH:
            self._put(" ")
            return
        self._put("\n" * max(1, rank - 1))
        self.column = 0
        self._put(" " * (self.indent + self.array.ndim - rank + 1))

    def _put(self, text: str) -> None:
        self.parts.append(text)
        self.column += len(text)

    def _element(self, value: Any) -> str:
        digits = _DIGITS.get(self.dtype)
        if digits is None:
            return str(bool(value)) if self.dtype is DType.BOOL else str(int(value))
        number = float(value)
        if not math.isfinite(number):
            return "nan" if math.isnan(number) else f"{number}"
        text = f"{number:.{digits}g}"
        return text if "." in text or "e" in text else f"{text}."
