"""Which ops stand where at which level, broken once each."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from rule_checks import function, tensor

from mapsto import ir
from mapsto.ir.core import Function, Location, Region
from mapsto.ir.errors import VerifyError
from mapsto.ir.fusion import fuse_function
from mapsto.ir.levels import ELABORATED, EXPANDED, FUSED, LEVELS, check_level

X = tensor(4)
Values = Sequence[ir.Value]


def exponential(b: ir.Builder, x: ir.Value) -> ir.Value:
    return b.emit(ir.Exp, x)


def call(b: ir.Builder, x: ir.Value) -> ir.Value:
    b.location = Location("net.mto", 3, 5)
    return b.emit(ir.Call, x, callee=ir.SymbolReference("g"), results=(X,))


def kernel_of(inner: object) -> Function:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        inside = ir.Builder(ir.Block([X]))
        block = inside.returning(inner(inside, *inside.block.arguments))  # type: ignore[operator]
        return b.emit(ir.Kernel, x, regions=[Region(block)])

    return function(body, X)["f"]


def kernel(b: ir.Builder, x: ir.Value) -> ir.Value:
    inside = ir.Builder(ir.Block([X]))
    block = inside.returning(exponential(inside, *inside.block.arguments))
    return b.emit(ir.Kernel, x, regions=[Region(block)])


def scan_of(inner: object) -> Function:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        def step(i: ir.Builder, carried: Values, _: Values) -> tuple[Values, Values]:
            return [inner(i, *carried)], []  # type: ignore[operator]

        return ir.scan(b, step, [x], extent=3)[0][0]

    return function(body, X)["f"]


def kernel_of_scan() -> Function:
    def scan(b: ir.Builder, x: ir.Value) -> ir.Value:
        return ir.scan(b, lambda i, c, _: (c, []), [x], extent=3)[0][0]

    return kernel_of(scan)


PLAIN, CALLING = function(exponential, X)["f"], function(call, X)["f"]


def test_what_belongs() -> None:
    check_level(PLAIN, ELABORATED)
    check_level(CALLING, ELABORATED)
    check_level(PLAIN, EXPANDED)
    check_level(scan_of(exponential), EXPANDED)
    check_level(scan_of(kernel), FUSED)
    check_level(fuse_function(PLAIN), FUSED)


@pytest.mark.parametrize(
    ("found", "level", "message"),
    [
        (kernel_of(exponential), ELABORATED, "`kernel` in @f is made by a later stage"),
        (kernel_of(exponential), EXPANDED, "`kernel` in @f has to be expanded"),
        (CALLING, EXPANDED, "net.mto:3:5: `call` in @f has to be expanded by a pass: let"),
        (PLAIN, FUSED, "`exp` in @f has to be in a kernel"),
        (kernel_of(call), FUSED, "`call` in @f does not stand in a kernel"),
        (scan_of(call), EXPANDED, "`call` in @f has to be expanded"),
        (scan_of(exponential), FUSED, "`exp` in @f has to be in a kernel"),
        (kernel_of_scan(), FUSED, "`scan` in @f does not stand in a kernel"),
        (kernel_of(kernel), FUSED, "`kernel` in @f does not stand in a kernel"),
    ],
)
def test_what_does_not(found: Function, level: object, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        check_level(found, level)  # type: ignore[arg-type]


def test_fusion_takes_what_is_expanded() -> None:
    with pytest.raises(VerifyError, match="`call` in @f has to be expanded"):
        fuse_function(CALLING)


def test_memory_is_in_no_kernel_by_need() -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        return b.emit(ir.Reshape, x, shape=(2, 2))

    fused = fuse_function(function(body, X)["f"])
    check_level(fused, FUSED)


def test_levels_have_names() -> None:
    assert len({level.name for level in LEVELS}) == len(LEVELS)
