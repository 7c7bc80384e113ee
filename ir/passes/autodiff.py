"""Expands `jvp` and `vjp` operations into the operations that compute the derivatives."""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.ir.builder import Builder
from mapsto.ir.core import Block, Function, Location, Module, Operation, Region, Value
from mapsto.ir.dims import Dim, symbols
from mapsto.ir.errors import PassError
from mapsto.ir.linearize import Pushed, push_forward, split_linear
from mapsto.ir.liveness import keep_live
from mapsto.ir.ops.control import Call, Jvp, Vjp
from mapsto.ir.ops.custom import CustomTangent
from mapsto.ir.ops.shaping import ints_of
from mapsto.ir.pruning import pruned
from mapsto.ir.regions import silenced
from mapsto.ir.substitution import Values, copy_operation
from mapsto.ir.transposition import transpose_operations

__all__ = ["callee_sizes", "expand_differentiation"]


def expand_differentiation(module: Module) -> Module:
    """The module without `jvp` and `vjp`, the innermost expanded first.

    What is differentiated is copied to where its derivative is taken, with the calls in it inlined;
    other calls stay.  Ops that do not depend on what is differentiated get no derivative, and
    nothing is kept that no result needs.  An argument without influence has the derivative 0.
    Raises MissingDerivative where an op on the way has no derivative, and PassError where a
    differentiated function calls itself.
    """
    expander = _Expander(module)
    return Module({name: expander.expanded(name) for name in module.functions})


def callee_sizes(function: Function, operands: Sequence[Value]) -> dict[str, Dim]:
    """What the named sizes of a function are where it is applied to these operands."""
    sizes: dict[str, Dim] = {}
    for argument, operand in zip(function.arguments, operands, strict=True):
        for dim, given in zip(argument.shape, operand.shape, strict=True):
            name = str(dim)
            if symbols(dim) == {name} and dim != given:
                sizes.setdefault(name, given)
    return sizes


class _Expander:
    """Functions of a module without differentiation, each made once and when it is needed."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.done: dict[tuple[str, bool], Function] = {}
        self.active: list[str] = []

    def expanded(self, name: str) -> Function:
        """The function without `jvp` and `vjp`."""
        return self._rewritten(name, inline=False)

    def flat(self, name: str) -> Function:
        """The function without `jvp`, `vjp` and `call`."""
        return self._rewritten(name, inline=True)

    def _rewritten(self, name: str, inline: bool) -> Function:
        key = (name, inline)
        if key in self.done:
            return self.done[key]
        if name not in self.module.functions:
            raise PassError(f"no function @{name} to differentiate or call")
        if name in self.active:
            raise PassError(f"the function @{name} is differentiated and calls itself")
        function = self.module[name]
        if not _has_requests(function.block, inline):
            return function
        self.active.append(name)
        self.done[key] = function.with_block(self.rewrite(function.block, {}, inline))
        self.active.pop()
        return self.done[key]

    def rewrite(self, block: Block, values: Values, inline: bool) -> Block:
        """A copy of the block with its requests for derivatives (and calls) expanded.

        `values` maps values of enclosing blocks to those that replace them.
        """
        copy = self._rewrite_once(block, values, inline)
        # A custom gradient brings calls and requests of its own.
        while _has_requests(copy, inline):
            copy = self._rewrite_once(copy, values, inline)
        return copy

    def _rewrite_once(self, block: Block, values: Values, inline: bool) -> Block:
        types = [argument.type for argument in block.arguments]
        copy = Block(types, [argument.hint for argument in block.arguments])
        values.update(zip(block.arguments, copy.arguments, strict=True))
        build = Builder(copy)
        for op in block.operations:
            results = self._expand(build, op, values, inline)
            values.update(zip(op.results, results, strict=True))
        return pruned(copy)

    def _expand(
        self, build: Builder, op: Operation, values: Values, inline: bool
    ) -> Sequence[Value]:
        operands = [values.get(value, value) for value in op.operands]
        if isinstance(op, Jvp):
            return self._forward(build, op, operands)
        if isinstance(op, Vjp):
            return self._reverse(build, op, operands)
        if isinstance(op, CustomTangent):
            build.location = op.location
            return [CustomTangent(operands, op.attributes).expanded(build)]
        if inline and isinstance(op, Call) and not op.has_own_derivative:
            return self._inlined(build, op, operands)
        if op.regions:
            regions = [Region(self.rewrite(r.block, values, inline)) for r in op.regions]
            return build.append(op.rebuilt(operands, regions)).results
        return build.append(copy_operation(op, values, {})).results

    def _inlined(self, build: Builder, op: Call, operands: Sequence[Value]) -> Sequence[Value]:
        function = self.flat(op.callee)
        sizes = callee_sizes(function, operands)
        block = function.block
        values = dict(zip(block.arguments, operands, strict=True))
        for inner in block.operations[:-1]:
            build.append(copy_operation(inner, values, sizes))
        return [values.get(value, value) for value in block.returned]

    def _forward(self, build: Builder, op: Jvp, operands: Sequence[Value]) -> Sequence[Value]:
        wrt, outputs = ints_of(op, "wrt"), ints_of(op, "outputs")
        function = self.flat(op.callee)
        count = len(function.arguments)
        given = dict(zip(wrt, operands[count:], strict=True))
        scratch = _scratch(op.location)
        pushed = _push(scratch, function, operands[:count], given, transposable=False)
        tangents = [pushed.tangents[i] or scratch.like(0, pushed.results[i]) for i in outputs]
        results = [*pushed.results, *tangents]
        build.block.operations += keep_live(scratch.block.operations, results)
        return results

    def _reverse(self, build: Builder, op: Vjp, operands: Sequence[Value]) -> Sequence[Value]:
        wrt, outputs = ints_of(op, "wrt"), ints_of(op, "outputs")
        function = self.flat(op.callee)
        if op.attributes["silent"]:
            function = function.with_block(silenced(function.block))
        count = len(function.arguments)
        seeds = [Value(operands[i].type, None, i, "tangent") for i in wrt]
        scratch = _scratch(op.location)
        given = dict(zip(wrt, seeds, strict=True))
        pushed = _push(scratch, function, operands[:count], given, transposable=True)
        primal, linear = split_linear(scratch.block.operations, seeds)
        scratch.block.operations = primal
        tangents = zip((pushed.tangents[i] for i in outputs), operands[count:], strict=True)
        pairs = [(tangent, cotangent) for tangent, cotangent in tangents if tangent is not None]
        found = transpose_operations(scratch, linear, seeds, pairs)
        scratch.location = op.location
        cotangents = [found.get(seed) or scratch.like(0, seed) for seed in seeds]
        for i, cotangent in zip(wrt, cotangents, strict=True):
            _name_gradient(cotangent, function.arguments[i])
        results = [*pushed.results, *cotangents]
        build.block.operations += keep_live(scratch.block.operations, results)
        return results


def _push(
    build: Builder,
    function: Function,
    operands: Sequence[Value],
    tangents: dict[int, Value],
    transposable: bool,
) -> Pushed:
    sizes = callee_sizes(function, operands)
    return push_forward(build, function.block, operands, tangents, sizes, transposable)


def _name_gradient(cotangent: Value, argument: Value) -> None:
    """Names a cotangent after its argument, for who reads the text form."""
    if argument.hint and not cotangent.hint and cotangent.defining_op is not None:
        cotangent.hint = f"d_{argument.hint}"


def _scratch(location: Location | None) -> Builder:
    return Builder(Block(()), location)


def _has_requests(block: Block, inline: bool) -> bool:
    nested = (op.regions for op in block.operations)
    return any(_is_request(op, inline) for op in block.operations) or any(
        _has_requests(region.block, inline) for regions in nested for region in regions
    )


def _is_request(op: Operation, inline: bool) -> bool:
    if isinstance(op, Call):
        return inline and not op.has_own_derivative
    return isinstance(op, Jvp | Vjp | CustomTangent)
