"""The transpose of a slice, as pads and reshapes."""

from __future__ import annotations

from mapsto.ir.affine import axis
from mapsto.ir.builder import Builder
from mapsto.ir.core import Value
from mapsto.ir.dims import Dim
from mapsto.ir.ops.contraction import access
from mapsto.ir.ops.shaping import Pad, Reshape, Slice

__all__ = ["scatter_slice"]


def scatter_slice(build: Builder, slice_: Slice, cotangent: Value) -> Value:
    """The transpose of a slice: the cotangent's elements where they were read, zero elsewhere.

    Element j of axis i is cotangent element k with `j = start + k * step`: a strided axis is spread
    by interleaving it with zeros, which are a pad of an axis of size 1 behind it.
    """
    value = cotangent
    shape = slice_.operands[0].shape
    for i, (start, step, extent) in enumerate(zip(slice_.starts, slice_.steps, shape, strict=True)):
        value = _spread(build, value, i, start, step, extent)
    return value


def _spread(build: Builder, x: Value, i: int, start: Dim, step: int, extent: Dim) -> Value:
    rank, size = x.type.rank, x.shape[i]
    if size == 0:
        return build.constant(0, x.dtype, (*x.shape[:i], extent, *x.shape[i + 1 :]))
    if step < 0:
        reverse = [axis(d, rank) for d in range(rank)]
        reverse[i] = axis(i, rank).scaled(-1).shifted(size - 1)
        x, start, step = access(build, x, reverse, x.shape), start + (size - 1) * step, -step
    if step > 1:
        before, after = x.shape[:i], x.shape[i + 1 :]
        split = build.emit(Reshape, x, shape=(*before, size, 1, *after))
        spacing = tuple((step - 1) * (d == i + 1) for d in range(rank + 1))
        spaced = build.emit(Pad, split, low=(0,) * (rank + 1), high=spacing)
        x = build.emit(Reshape, spaced, shape=(*before, size * step, *after))
        sizes = (*before, size * step - (step - 1), *after)
        x = build.emit(Slice, x, starts=(0,) * rank, sizes=sizes, steps=(1,) * rank)
    low = tuple(start if d == i else 0 for d in range(rank))
    rest = extent - start - x.shape[i]
    high = tuple(rest if d == i else 0 for d in range(rank))
    return build.emit(Pad, x, low=low, high=high)
