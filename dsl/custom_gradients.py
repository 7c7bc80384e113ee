"""Maps whose derivative is written by hand, in a `gradient` block behind the body.

Such a call is an op that names two functions: the body, and the gradient, which takes the arguments
and the cotangent of the result and gives a cotangent for each floating-point argument.  What the
body uses from around it, parameters of modules above all, is not among the arguments: its
cotangents are those of the body's own derivative, and so are those of states that the body updates.

Under index notation both work at all points at once; the cotangent of an argument that does not
depend on an index is the sum over it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mapsto import ir
from mapsto.dsl import syntax
from mapsto.dsl.carried import LeafType
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.evaluation import scalar_or_tensor
from mapsto.dsl.frame import Facts, Frame, SlotKey, fail
from mapsto.dsl.functions import close, free_values, size_values
from mapsto.dsl.reductions import reduce_variables
from mapsto.dsl.source import Span
from mapsto.dsl.statements import evaluate_block
from mapsto.dsl.structures import describe_structure, leaves, rebuilt, tensors_in
from mapsto.dsl.tensors import sorted_variables
from mapsto.dsl.tracing import Trace, block_of, trace, unused_name
from mapsto.dsl.values import Expected, Group, IndexVariable, Nothing, Tensor, Value
from mapsto.ir.substitution import copy_into

__all__ = ["CustomCall", "Functions"]


@dataclass(frozen=True, slots=True)
class _Forward:
    """The result of the body: its structure, and its tensors over all indices of the call."""

    structure: Value
    tensors: list[Tensor]
    axes: tuple[IndexVariable, ...]


@dataclass(frozen=True, slots=True)
class _Parameter:
    """A parameter that is a tensor or a structure of them, and its value in the call."""

    name: str
    value: Value
    tensors: list[Tensor]

    @property
    def floats(self) -> list[int]:
        """Which of its tensors have cotangents."""
        return [i for i, tensor in enumerate(self.tensors) if tensor.dtype.is_float]


@dataclass(frozen=True, slots=True)
class Functions:
    """The two functions of a call.

    Both take the tensors of the arguments (`names` tells of which parameter each is), then what is
    captured from around them.  `operands` are the values of all those in the call.
    """

    body: str
    gradient: str
    names: tuple[str, ...]
    operands: tuple[ir.Value, ...]
    forward: _Forward
    results: tuple[ir.TensorType, ...]
    updated: tuple[SlotKey, ...]


class CustomCall:
    """A call of a map with a gradient of its own.

    `frame` has the parameters of the map bound to the arguments, `run` elaborates its body in a
    frame.
    """

    def __init__(
        self,
        frame: Frame,
        span: Span,
        definition: syntax.MapDefinition,
        title: str,
        run: Callable[[Frame], Value],
    ) -> None:
        self.frame = frame
        self.span = span
        self.definition = definition
        self.title = title
        self.run = run
        self.parameters = list(self._parameters())

    @property
    def written(self) -> syntax.Gradient:
        """The gradient block."""
        gradient = self.definition.gradient
        assert gradient is not None
        return gradient

    def _parameters(self) -> list[_Parameter]:
        found = []
        for parameter in self.definition.parameters:
            name = parameter.name.name
            value = self.frame.scope.names[name].value
            held = list(leaves(value))
            if held and all(scalar_or_tensor(leaf) for leaf in held):
                found.append(_Parameter(name, value, tensors_in(self.frame, self.span, value)))
        return found

    def emit(self) -> Value:
        """Emits the op; gives the result of the call."""
        frame = self.frame
        functions = self.functions()
        op = frame.operation(
            self.span,
            ir.CustomCall,
            *functions.operands,
            callee=ir.SymbolReference(functions.body),
            gradient=ir.SymbolReference(functions.gradient),
            results=functions.results,
        )
        forward = functions.forward
        count = len(forward.tensors)
        for key, value in zip(functions.updated, op.results[count:], strict=True):
            frame.session.assign(key, value)
        results = [Tensor(value, forward.axes) for value in op.results[:count]]
        return rebuilt(forward.structure, results)

    def functions(self) -> Functions:
        """Elaborates the body and the gradient into functions of the session."""
        return _Builder(self).build()

    def fresh(self) -> tuple[Frame, list[ir.Value]]:
        """A frame in which new values stand for the arguments' tensors."""
        frame, values = self.frame.nested(), []
        for parameter in self.parameters:
            tensors = [LeafType.of(t).fresh(parameter.name) for t in parameter.tensors]
            values += [tensor.value for tensor in tensors]
            frame.scope.bind(parameter.name, rebuilt(parameter.value, tensors))
        return frame, values

    def forward(self, frame: Frame) -> _Forward:
        """The result of the body, every tensor of it over all indices of the call."""
        result = self.run(frame)
        tensors = tensors_in(frame, self.span, result)
        given = [tensor for parameter in self.parameters for tensor in parameter.tensors]
        axes = sorted_variables(v for tensor in (*given, *tensors) for v in tensor.axes)
        full = [LeafType.of(t).over(axes).spread(frame, self.span, t) for t in tensors]
        return _Forward(result, full, axes)

    def reverse(
        self, frame: Frame, forward: _Forward, primals: Sequence[Tensor], seeds: Sequence[Tensor]
    ) -> list[ir.Value]:
        """The cotangent of each floating-point tensor of the arguments, by the gradient block."""
        self._bind_cotangents(frame, forward, primals, seeds)
        floats = [parameter for parameter in self.parameters if parameter.floats]
        value = evaluate_block(self.written.body, frame, _expected(floats))
        if value is None:
            fail(Kind.NO_VALUE, self.written.body.span, owner=f"gradient of {self.title}")
        found = self._parts(value, floats)
        pairs = zip(floats, found, strict=True)
        return [
            v for parameter, part in pairs for v in self._fitted(frame, forward, parameter, part)
        ]

    def _bind_cotangents(
        self, frame: Frame, forward: _Forward, primals: Sequence[Tensor], seeds: Sequence[Tensor]
    ) -> None:
        """Binds the names of the cotangents, and those of the results: `y` where `dy` is one."""
        given = iter(seeds)
        cotangent = rebuilt(
            forward.structure,
            [next(given) if t.dtype.is_float else Nothing() for t in forward.tensors],
        )
        result = rebuilt(forward.structure, primals)
        names = self.written.parameters
        several = len(names) > 1
        cotangents = self._items(cotangent) if several else (cotangent,)
        results = self._items(result) if several else (result,)
        known = {parameter.name.name for parameter in self.definition.parameters}
        for name, value, primal in zip(names, cotangents, results, strict=True):
            frame.scope.bind(name.name, value, name.span)
            own = name.name[1:]
            if name.name.startswith("d") and own and own not in known:
                frame.scope.bind(own, primal, name.span)

    def _items(self, value: Value) -> tuple[Value, ...]:
        """One value for each name of a cotangent."""
        names = self.written.parameters
        items = value.items if isinstance(value, Group) else ()
        if len(items) != len(names):
            facts: Facts = {"expected": len(names), "found": describe_structure(value)}
            fail(Kind.CANNOT_UNPACK, names[0].span, count=len(items), **facts)
        return items

    def _parts(self, value: Value, floats: Sequence[_Parameter]) -> tuple[Value, ...]:
        """What the block gives for each parameter with a cotangent."""
        if len(floats) == 1:
            return (value,)
        items = value.items if isinstance(value, Group) else ()
        if len(items) != len(floats):
            names = tuple(f"`{parameter.name}`" for parameter in floats)
            facts: Facts = {"names": names, "count": len(floats)}
            found = describe_structure(value)
            fail(Kind.GRADIENT_COUNT, self._place(), name=self.title, found=found, **facts)
        return items

    def _place(self) -> Span:
        return self.written.body.statements[-1].span

    def _fitted(
        self, frame: Frame, forward: _Forward, parameter: _Parameter, part: Value
    ) -> list[ir.Value]:
        """The cotangents of a parameter in its types, summed over indices that it has not."""
        span, what = self._place(), f"the gradient by `{parameter.name}`"
        targets = [parameter.tensors[i] for i in parameter.floats]
        given = list(leaves(part))
        if isinstance(part, Nothing):
            return [frame.constant(span, 0, tensor.value.type).value for tensor in targets]
        if len(given) != len(targets):
            expected = describe_structure(parameter.value)
            found = describe_structure(part)
            fail(Kind.WRONG_VALUE, span, what=what, expected=expected, found=found)
        values = []
        for leaf, target in zip(given, targets, strict=True):
            type = LeafType.of(target).over(forward.axes)
            tensor = type.fitted(frame, span, leaf, what)
            extra = [v for v in tensor.axes if v not in target.axes]
            if extra:
                tensor = reduce_variables(frame, span, "sum", tensor, extra)
            values.append(tensor.value)
        return values


def _expected(floats: Sequence[_Parameter]) -> Expected | None:
    """What the gradient block is asked for: a tensor, or a tuple of tensors."""
    wishes = tuple(
        Expected(p.tensors[0].dtype, p.tensors[0].shape) if isinstance(p.value, Tensor) else None
        for p in floats
    )
    return wishes[0] if len(wishes) == 1 else Expected(items=wishes)


class _Builder:
    """Makes the two functions of a call."""

    def __init__(self, call: CustomCall) -> None:
        self.call = call
        self.frame = call.frame
        inner, self.given = call.fresh()
        self.forward: Trace[_Forward] = trace(call.frame, lambda: call.forward(inner))
        built = self.forward.result
        results = [tensor.value for tensor in built.tensors]
        self.results = [*results, *self.forward.updated.values()]
        other, self.again = call.fresh()
        types = [LeafType.of(tensor) for tensor in built.tensors]
        self.primals = [type.fresh() for type in types]
        seeds = [type.fresh("cotangent") for type in types if type.type.dtype.is_float]
        self.reverse: Trace[list[ir.Value]] = trace(
            call.frame, lambda: call.reverse(other, built, self.primals, seeds)
        )
        for key in self.reverse.updated:
            fail(Kind.STATE_IN_GRADIENT, call.written.span, name=key[1])
        of_states = [v for v in self.forward.updated.values() if v.dtype.is_float]
        self.seeds = [s.value for s in seeds]
        self.state_seeds = [ir.Value(v.type, None, 0, "cotangent") for v in of_states]
        self.captured = self._captured(self.forward, self.results, self.given)
        inside = [*self.again, *self.seeds, *(tensor.value for tensor in self.primals)]
        self.captured_again = self._captured(self.reverse, self.reverse.result, inside)
        name = unused_name(call.frame, call.title)
        self.names = (name, f"{name}.gradient")

    def _captured(
        self, built: Trace[Any], results: Sequence[ir.Value], own: Sequence[ir.Value]
    ) -> list[ir.Value]:
        block = built.build.block
        free = [v for v in free_values(block, results) if v not in own]
        return [*free, *size_values(self.frame, self.call.span, block, [*own, *free])]

    def build(self) -> Functions:
        body, gradient = self.names
        functions = self.frame.session.functions
        unused = [ir.Value(v.type, None, 0, v.hint) for v in self.captured_again]
        arguments = [*self.given, *self.captured, *unused]
        private: dict[str, ir.Attribute] = {"private": True}
        functions[body] = close(body, self.forward.build, arguments, self.results, private)
        functions[gradient] = self._gradient(gradient)
        parameters = self.call.parameters
        own = [tensor.value for p in parameters for tensor in p.tensors]
        captured = self.forward.actual(self.captured)
        captured += self.reverse.actual(self.captured_again)
        return Functions(
            body,
            gradient,
            tuple(p.name for p in parameters for _ in p.tensors),
            (*own, *captured),
            self.forward.result,
            tuple(value.type for value in self.results),
            tuple(self.forward.updated),
        )

    def _gradient(self, name: str) -> ir.Function:
        unused = [ir.Value(v.type, None, 0, v.hint) for v in self.captured]
        seeds = [*self.seeds, *self.state_seeds]
        arguments = [*self.again, *unused, *self.captured_again, *seeds]
        target = ir.Block([v.type for v in arguments], [v.hint for v in arguments])
        build = ir.Builder(target, self.reverse.build.location)
        values = dict(zip(arguments, target.arguments, strict=True))
        block = block_of(self.reverse, [], self.reverse.result)
        primals = [tensor.value for tensor in self.primals]
        if any(value in primals for value in free_values(block, ())):
            values.update(zip(primals, self._primal(build), strict=False))
        found = copy_into(block, target, values)
        derived = self._derived(build)
        outputs = [*self._with_states(build, found), *derived]
        return ir.finish_function(name, build, outputs, {"private": True}, build.location)

    @property
    def count(self) -> int:
        """How many arguments both functions take, cotangents aside."""
        return len(self.given) + len(self.captured) + len(self.captured_again)

    def _primal(self, build: ir.Builder) -> Sequence[ir.Value]:
        """The result of the call inside of its gradient: so it has this derivative there too."""
        body, gradient = (ir.SymbolReference(name) for name in self.names)
        operands = build.block.arguments[: self.count]
        types = tuple(value.type for value in self.results)
        op = build.op(ir.CustomCall, *operands, callee=body, gradient=gradient, results=types)
        return op.results

    def _derived(self, build: ir.Builder) -> list[ir.Value]:
        """Cotangents of what is captured: those of the body's derivative."""
        start = len(self.given)
        known = {start + i for i in range(len(self.captured))}
        every = build.block.arguments[start : self.count]
        floats = [start + i for i, value in enumerate(every) if value.dtype.is_float]
        wrt = [i for i in floats if i in known]
        found = self._pull(build, wrt, build.block.arguments[self.count :])
        pulled = dict(zip(wrt, found, strict=True))
        return [pulled.get(i) or build.like(0, build.block.arguments[i]) for i in floats]

    def _with_states(self, build: ir.Builder, found: Sequence[ir.Value]) -> list[ir.Value]:
        """Adds what the new values of states contribute to the cotangents of the arguments."""
        if not self.state_seeds:
            return list(found)
        seeds = build.block.arguments[self.count :]
        own = len(self.seeds)
        zeros = [build.like(0, seed) for seed in seeds[:own]]
        wrt = [i for i, value in enumerate(self.given) if value.dtype.is_float]
        parts = self._pull(build, wrt, [*zeros, *seeds[own:]])
        return [build.emit(ir.Add, *pair) for pair in zip(found, parts, strict=True)]

    def _pull(
        self, build: ir.Builder, wrt: Sequence[int], seeds: Sequence[ir.Value]
    ) -> Sequence[ir.Value]:
        if not wrt:
            return ()
        arguments = build.block.arguments
        types = [value.type for value in self.results]
        op = build.op(
            ir.Vjp,
            *arguments[: self.count],
            *seeds,
            callee=ir.SymbolReference(self.names[0]),
            results=(*types, *(arguments[i].type for i in wrt)),
            wrt=tuple(wrt),
            outputs=tuple(i for i, type in enumerate(types) if type.dtype.is_float),
        )
        return op.results[len(types) :]
