"""Dead code elimination."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mapsto.ir.core import Function, Module, SymbolReference
from mapsto.ir.passes.base import Pass
from mapsto.ir.pruning import pruned

__all__ = ["EliminateDeadCode"]


@dataclass(frozen=True)
class EliminateDeadCode(Pass):
    """Removes operations whose results nothing uses, and private functions that nothing refers to.

        %1 = exp %x                     %2 = mul %x, %x
        %2 = mul %x, %x         =>      return %2
        return %2

    Operations with effects stay.  Arguments stay: they are the function's interface.  A function
    is private where its attribute `private` says so.  Control flow keeps what is needed of it: a
    loop no longer carries what neither its results nor a later step need, and gives no output that
    nothing uses.

        %1, %2, %3 = scan %a, %b, %xs ..        %1 = scan %a, %xs ..
        return %1                         =>    return %1
    """

    name = "dce"

    def run(self, module: Module) -> Module:
        functions = module.functions.items()
        return _without_unused(Module({n: f.with_block(pruned(f.block)) for n, f in functions}))


def _without_unused(module: Module) -> Module:
    """The module with the functions that public ones reach."""
    pending = [f for f in module.functions.values() if not f.attributes.get("private")]
    reached = {function.name for function in pending}
    while pending:
        for name in _references(pending.pop()):
            if name not in reached and name in module.functions:
                reached.add(name)
                pending.append(module[name])
    return Module({name: f for name, f in module.functions.items() if name in reached})


def _references(function: Function) -> Iterator[str]:
    for op in function.operations():
        values = op.attributes.values()
        yield from (value.name for value in values if isinstance(value, SymbolReference))
