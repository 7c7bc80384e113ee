"""What the threads of a warp do as one, in the interpreter of the loop IR.

Each thread `offer`s something, the warp `exchange`s it, and each `take`s what it gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mapsto.ir.types import DType
from mapsto.lowering.indices import Index, flat_offset
from mapsto.lowering.loop_values import (
    Array,
    LoopError,
    State,
    evaluate,
    place_of,
    read_element,
    write_element,
)
from mapsto.lowering.loops import (
    Barrier,
    Buffer,
    Let,
    LoadMatrix,
    MatrixMultiply,
    Shuffle,
    Statement,
)

__all__ = ["WARP", "exchange", "offer", "take"]

WARP = 32
SIDE = 8
"""Rows and columns of the matrices that others are made of."""


def offer(state: State, statement: Statement) -> Any:
    """What a thread brings to where the threads of its warp, or block, meet."""
    match statement:
        case Let(value=Shuffle(value)):
            return evaluate(state, value)
        case LoadMatrix(source=source, source_indices=indices):
            place = place_of(state, source, indices)
            if flat_offset(place, state.arrays[source.name].shape) % SIDE:
                raise LoopError(f"a matrix is read at {list(place)}, which is not aligned")
            return _read(state, source, indices, SIDE)
        case MatrixMultiply(_, _, left, left_at, right, right_at, (m, n, k)):
            first = _factors(state, left, left_at, m * k // WARP)
            return first, _factors(state, right, right_at, k * n // WARP)
    return None


def exchange(statement: Statement, offers: Sequence[Any]) -> Sequence[Any]:
    """What each thread of a warp gets for what all of them have offered."""
    match statement:
        case Let(value=Shuffle(_, lane, across)):
            sources = [number ^ lane if across else lane for number in range(len(offers))]
            if any(source >= len(offers) for source in sources):
                raise LoopError("a thread asks for a value of one that is not there")
            return [offers[source] for source in sources]
        case LoadMatrix(transposed=transposed):
            rows = np.array(offers).reshape(-1, SIDE, SIDE)
            matrices = rows.transpose(0, 2, 1) if transposed else rows
            return [_elements(matrices, lane) for lane in range(_whole_warp(offers))]
        case MatrixMultiply(shape=(m, n, k)):
            _whole_warp(offers)
            left = _assemble([left for left, _ in offers], m, k)
            right = _assemble([right for _, right in offers], n, k, along_rows=True).T
            return _scatter(left @ right)
    raise TypeError(f"threads of a warp do not meet in {statement!r}")


def take(state: State, statement: Statement, gift: Any) -> None:
    """What a thread does with what it gets."""
    match statement:
        case Let(name):
            state.lets[name] = gift
        case LoadMatrix(buffer, indices):
            for place, value in zip(_neighbours(indices, len(gift)), gift, strict=True):
                write_element(state, buffer, place, value)
        case MatrixMultiply(sums, indices):
            for place, value in zip(_neighbours(indices, len(gift)), gift, strict=True):
                old = np.float64(read_element(state, sums, place))
                write_element(state, sums, place, np.float32(old + value))
        case Barrier():
            return


def _whole_warp(offers: Sequence[Any]) -> int:
    if len(offers) != WARP:
        raise LoopError(f"a warp of {len(offers)} threads has no matrices")
    return WARP


def _read(state: State, buffer: Buffer, indices: tuple[Index, ...], count: int) -> list[Any]:
    return [read_element(state, buffer, place) for place in _neighbours(indices, count)]


def _factors(state: State, buffer: Buffer, indices: tuple[Index, ...], count: int) -> list[Any]:
    """A thread's part of a factor; of f32 as it is rounded to tf32."""
    found = _read(state, buffer, indices, count)
    if buffer.dtype is not DType.F32:
        return found
    bits = np.array(found, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)
    return list(np.where(np.isfinite(found), rounded.view(np.float32), found))


def _neighbours(indices: tuple[Index, ...], count: int) -> Iterator[tuple[Index, ...]]:
    for number in range(count):
        yield (*indices[:-1], indices[-1] + number)


# ---- matrices in the registers of a warp


def _elements(matrices: Array, lane: int) -> list[Any]:
    """The elements of a thread: of each matrix of 8 x 8 two of a row."""
    return [m[lane // 4, 2 * (lane % 4) + e] for m in matrices for e in range(2)]


def _assemble(parts: Sequence[Any], rows: int, columns: int, along_rows: bool = False) -> Array:
    """The matrix of which each thread has a part: matrices of 8 x 8, one column of them after the
    other, or (`along_rows`) one row after the other."""
    result = np.zeros((rows, columns))
    for number, (i, j) in enumerate(_blocks(rows, columns, along_rows)):
        for lane, part in enumerate(parts):
            row, column = i + lane // 4, j + 2 * (lane % 4)
            result[row, column : column + 2] = np.float64(part[2 * number : 2 * number + 2])
    return result


def _scatter(matrix: Array) -> list[list[Any]]:
    """The part of each thread."""
    rows, columns = matrix.shape
    places = _blocks(rows, columns, along_rows=False)
    blocks = [matrix[i : i + SIDE, j : j + SIDE] for i, j in places]
    return [_elements(np.array(blocks), lane) for lane in range(WARP)]


def _blocks(rows: int, columns: int, along_rows: bool) -> list[tuple[int, int]]:
    if along_rows:
        return [(i, j) for i in range(0, rows, SIDE) for j in range(0, columns, SIDE)]
    return [(i, j) for j in range(0, columns, SIDE) for i in range(0, rows, SIDE)]
