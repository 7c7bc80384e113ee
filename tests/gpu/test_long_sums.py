"""Long sums of few rows or columns are divided into parts, which a second launch adds up."""

from __future__ import annotations

import mapped_harness
import pytest
from harness import build

from mapsto import ir
from mapsto.ir.ops.contraction import Contract

F32 = ir.DType.F32


def sums(shape: tuple[int, int], axis: int) -> ir.Function:
    """The sums of a matrix along an axis."""
    extents = (shape[1 - axis], shape[axis])
    maps = (ir.projection([1, 0] if axis == 0 else [0, 1], 2),)
    attributes = {"rank": 1, "extents": extents, "maps": maps}
    return build("f", [(F32, shape)], lambda b, x: b.append(Contract([x], attributes)).result)


@pytest.mark.parametrize("shape", [(500, 5), (20, 130)])
def test_columns(shape: tuple[int, int]) -> None:
    mapped = mapped_harness.check(sums(shape, 0), interpreted=True)
    (launches,) = mapped.kernels.values()
    partial, whole = (kernel.grid_for({})[0] for kernel in launches)
    assert partial >= 4 * whole


def test_rows() -> None:
    mapped = mapped_harness.check(sums((2, 1200), 1), interpreted=True)
    (launches,) = mapped.kernels.values()
    partial, whole = (kernel.grid_for({})[0] for kernel in launches)
    assert partial > whole
