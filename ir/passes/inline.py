"""Inlining of calls."""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.core import Block, Function, Module, Operation
from mapsto.ir.errors import PassError
from mapsto.ir.ops.control import Call
from mapsto.ir.passes.autodiff import callee_sizes
from mapsto.ir.passes.base import Pass
from mapsto.ir.regions import with_regions
from mapsto.ir.substitution import Values, copy_block, copy_operation

__all__ = ["Inline"]


@dataclass(frozen=True)
class Inline(Pass):
    """Replaces calls by the bodies of the functions called.

        %y = call @square %x    =>      %y = mul %x, %x

    Calls in regions too.
    Raises PassError where a function calls itself.
    """

    name = "inline"

    def run(self, module: Module) -> Module:
        return Module({n: _inlined(module, f, (n,)) for n, f in module.functions.items()})


def _inlined(module: Module, function: Function, callers: tuple[str, ...]) -> Function:
    if not any(isinstance(op, Call) for op in function.operations()):
        return function
    return function.with_block(_inlined_block(module, function.block, callers))


def _inlined_block(module: Module, block: Block, callers: tuple[str, ...]) -> Block:
    """The block with calls expanded, those in its regions too."""
    block = with_regions(block, lambda inner: _inlined_block(module, inner, callers))
    operations: list[Operation] = []
    values: Values = {}
    for op in block.operations:
        if isinstance(op, Call):
            _expand(module, op, operations, values, callers)
        else:
            operations.append(copy_operation(op, values, {}))
    return block.with_operations(operations)


def _expand(
    module: Module,
    call: Call,
    operations: list[Operation],
    values: Values,
    callers: tuple[str, ...],
) -> None:
    if call.callee in callers:
        chain = " -> ".join([*callers, call.callee])
        raise PassError(f"a function calls itself, which inlining cannot end: {chain}")
    callee = _inlined(module, module[call.callee], (*callers, call.callee))
    operands = [values.get(value, value) for value in call.operands]
    body: Block = copy_block(callee.block, {}, callee_sizes(callee, operands))
    inner: Values = dict(zip(body.arguments, operands, strict=True))
    for op in body.operations[:-1]:
        operations.append(copy_operation(op, inner, {}))
    for result, returned in zip(call.results, body.returned, strict=True):
        values[result] = inner.get(returned, returned)
