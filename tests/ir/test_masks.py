"""The pass `masks`: which comparisons it replaces, and that it keeps every value, nan included."""

from __future__ import annotations

import numpy as np
import pytest

from mapsto import ir
from mapsto.ir.core import Function, Module
from mapsto.ir.passes.dce import EliminateDeadCode
from mapsto.ir.passes.masks import DeriveMasks
from mapsto.ir.types import DType, TensorType

TYPE = TensorType(DType.F32, (9,))
SPECIAL = np.array([-2, -0.0, 0.0, 1, 3, np.nan, np.inf, -np.inf, 0.5], np.float32)
COMPARISONS = (ir.Lt, ir.Le, ir.Gt, ir.Ge, ir.Eq, ir.Ne)


def clamp_by_select(record, swapped: bool, limit: float) -> Function:
    """A clamp and a gradient-like select by the same mask."""
    b = ir.Builder(ir.Block([TYPE, TYPE], ["z", "g"]))
    z, g = b.block.arguments
    k = b.like(limit, z)
    mask = b.emit(record, z, k)
    h = b.emit(ir.Select, mask, *((k, z) if swapped else (z, k)))
    return ir.finish_function("f", b, [h, b.emit(ir.Select, mask, g, b.like(0, g))])


def clamp_by_extremum(record, extremum) -> Function:
    b = ir.Builder(ir.Block([TYPE, TYPE], ["z", "g"]))
    z, g = b.block.arguments
    k = b.like(0, z)
    mask = b.emit(record, z, k)
    h = b.emit(extremum, k, z)
    return ir.finish_function("f", b, [h, b.emit(ir.Select, mask, g, k)])


def derived(function: Function) -> Function:
    """The function after the pass, checked on special values."""
    module = Module.of(function)
    after = EliminateDeadCode().run(DeriveMasks().run(module))
    arrays = [SPECIAL, np.arange(9, dtype=np.float32)]
    expected, actual = (ir.evaluate(m, "f", arrays) for m in (module, after))
    for left, right in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(left, right)
    return after["f"]


def compared(function: Function) -> list[str]:
    """What each comparison compares: `z`, or `h` for a computed value."""
    return [
        "z" if op.operands[0] is function.arguments[0] else "h"
        for op in function.block.operations
        if isinstance(op, COMPARISONS)
    ]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("limit", [0.0, 1.0])
@pytest.mark.parametrize("record", COMPARISONS, ids=lambda r: r.name)
def test_clamps_by_select(record, swapped: bool, limit: float) -> None:
    after = derived(clamp_by_select(record, swapped, limit))
    law = record in ((ir.Le, ir.Ge) if swapped else (ir.Lt, ir.Gt))
    assert compared(after) == (["z", "h"] if law else ["z"])


@pytest.mark.parametrize("extremum", [ir.Max, ir.Min], ids=lambda r: r.name)
@pytest.mark.parametrize("record", COMPARISONS, ids=lambda r: r.name)
def test_clamps_by_extremum(record, extremum) -> None:
    after = derived(clamp_by_extremum(record, extremum))
    law = record in ((ir.Gt, ir.Le) if extremum is ir.Max else (ir.Lt, ir.Ge))
    assert compared(after) == ["h" if law else "z"]


def test_a_mask_that_nothing_uses_later_is_left_alone() -> None:
    b = ir.Builder(ir.Block([TYPE]))
    (z,) = b.block.arguments
    k = b.like(0, z)
    function = ir.finish_function("f", b, [b.emit(ir.Select, b.emit(ir.Gt, z, k), z, k)])
    after = DeriveMasks().run(Module.of(function))["f"]
    assert len(after.block.operations) == len(function.block.operations)
