"""What dead code elimination removes and what it keeps."""

from __future__ import annotations

from rule_checks import after, function, names, tensor

from mapsto import ir
from mapsto.ir.core import Module
from mapsto.ir.passes.dce import EliminateDeadCode
from mapsto.ir.passes.differentiate import Differentiate
from mapsto.ir.passes.inline import Inline

TYPE = tensor(4)


def square(name: str, private: bool, callee: str = "") -> ir.Function:
    """x * x, or what another function makes of x."""
    build = ir.Builder(ir.Block([TYPE]))
    (x,) = build.block.arguments
    if callee:
        reference = ir.SymbolReference(callee)
        result = build.emit(ir.Call, x, callee=reference, results=(TYPE,))
    else:
        result = build.emit(ir.Mul, x, x)
    return ir.finish_function(name, build, [result], {"private": True} if private else {})


def test_unused_operations_go() -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        b.emit(ir.Neg, b.emit(ir.Exp, x))
        return b.emit(ir.Mul, x, x)

    assert names(after(function(body, TYPE))) == ["mul"]


def test_private_functions_stay_while_something_refers_to_them() -> None:
    module = Module.of(
        square("f", private=False, callee="g"),
        square("g", private=True, callee="h"),
        square("h", private=True),
        square("unused", private=True, callee="h"),
        square("public", private=False),
    )
    assert list(EliminateDeadCode().run(module).functions) == ["f", "g", "h", "public"]
    inlined = EliminateDeadCode().run(Inline().run(module))
    assert list(inlined.functions) == ["f", "public"]


def test_private_functions_that_call_each_other_go() -> None:
    module = Module.of(square("g", True, callee="h"), square("h", True, callee="g"))
    assert not EliminateDeadCode().run(module).functions


def test_differentiation_leaves_no_stop_gradient() -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        return b.emit(ir.Mul, x, b.emit(ir.StopGradient, x))

    assert names(after(function(body, TYPE), Differentiate())) == ["mul"]
