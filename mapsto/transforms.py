"""Maps of maps from Python: `grad`, `value_and_grad`, `jvp`, `vmap`, `train_mode`, `eval_mode`.

    slope = mt.grad(lib.loss)
    loss, gradient = mt.value_and_grad(lib.loss)(net, x, y)
    gradient["layers.0.w"]

They take maps of a program, module instances, maps of instances, and what they give themselves, so
they nest.  The derivative is compiled as one native function, with the map's value in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mapsto.arguments import Parameter
from mapsto.callables import Compilable, Map
from mapsto.dsl.applications import elaborate_application
from mapsto.dsl.elaborated import Elaborated, ParameterSpec
from mapsto.dsl.program import Program
from mapsto.dsl.values import Closure, Mode, Transform, Value
from mapsto.instances import Method
from mapsto.ir.core import Array
from mapsto.ir.types import DType, TensorType
from mapsto.runtime.errors import ArgumentError

__all__ = ["Transformed", "eval_mode", "grad", "jvp", "train_mode", "value_and_grad", "vmap"]

_MODES = {"train_mode": True, "eval_mode": False}


def grad(function: Compilable, argnums: int | Sequence[int] = 0) -> Transformed:
    """The gradient of a map whose result is a scalar.

    `argnums` are the positions of the arguments to differentiate by: one position gives one
    gradient, several a tuple.  The gradient by a tensor has its shape; the gradient by a module
    instance is a dict from the paths of its parameters, such as `layers.0.w`, to arrays.
    Raises TypeError for what is no map, ValueError for a position that there is not.
    """
    return Transformed("grad", function, argnums)


def value_and_grad(function: Compilable, argnums: int | Sequence[int] = 0) -> Transformed:
    """The pair of a map's value and its gradient, computed together; see `grad`."""
    return Transformed("value_and_grad", function, argnums)


def jvp(function: Compilable, argnums: int | Sequence[int] = 0) -> Transformed:
    """The pair of a map's value and its derivative along directions (forward mode).

    The directions follow the map's arguments, one for each of `argnums`, each of its argument's
    type: `jvp(f)(x, y, dx)`, `jvp(f, (0, 1))(x, y, dx, dy)`.
    """
    return Transformed("jvp", function, argnums)


def vmap(function: Compilable) -> Transformed:
    """The map applied to each element along the first axis of its tensor arguments.

    Scalars and arguments that are no tensors are the same for every element.
    """
    return Transformed("vmap", function, ())


def train_mode(function: Compilable) -> Transformed:
    """The map as it is in training: `training` is true in it, so that layers such as dropout work
    as they do in the step of a `train` block."""
    return Transformed("train_mode", function, ())


def eval_mode(function: Compilable) -> Transformed:
    """The map as it is in evaluation: `training` is false in it, as in a plain call."""
    return Transformed("eval_mode", function, ())


class Transformed(Compilable):
    """A map made of a map; called like one."""

    def __init__(self, kind: str, function: Compilable, argnums: int | Sequence[int]) -> None:
        if not isinstance(function, Map | Method | Transformed):
            raise TypeError(f"{kind} takes a map or a module instance, not {function!r}")
        super().__init__(function.options)
        self.kind = kind
        self.function = function
        self.single = isinstance(argnums, int)
        count = len(function.parameters)
        self.argnums = tuple(
            _position(kind, number, count)
            for number in ((argnums,) if isinstance(argnums, int) else argnums)
        )

    def __repr__(self) -> str:
        return f"<{self.kind} of {self.function!r}>"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        known = list(self.function.parameters)
        if self.kind == "vmap" or self.kind in _MODES:
            return tuple(known)
        for number in self.argnums:
            known[number] = _as_tensor(known[number])
        if self.kind != "jvp":
            return tuple(known)
        for number in self.argnums:
            known.append(_direction(known[number], known))
        return tuple(known)

    def elaborate(
        self, types: Mapping[str, TensorType], static: Mapping[str, object]
    ) -> Elaborated:
        given = {**types, **static}
        owners = {name.partition(".")[0] for name in given}
        names = [p.name for p in self.parameters if p.name in owners]
        program, closure, roots = _origin(self.function)
        return elaborate_application(
            program,
            self._value(names),
            f"{self.kind}.{closure.title}",
            closure.definition.span,
            {key: given[key] for name in names for key in given if key.partition(".")[0] == name},
            roots,
        )

    def own_arrays(self, slots: Sequence[ParameterSpec]) -> Mapping[str, Array]:
        return self.function.own_arrays(slots)

    def with_passes(self, passes: str) -> Transformed:
        """The same, compiled by another pipeline."""
        function = self.function.with_passes(passes)
        return Transformed(self.kind, function, self.argnums[0] if self.single else self.argnums)

    def _value(self, names: Sequence[str]) -> Value:
        """The function as a value of the language, for arguments of these names."""
        inner = self.function
        value = inner._value(names) if isinstance(inner, Transformed) else _origin(inner)[1]
        if self.kind in _MODES:
            return Mode(value, _MODES[self.kind])
        known = inner.parameters
        positions = []
        for number in self.argnums:
            if known[number].name not in names:
                name = known[number].name
                raise ArgumentError(f"{self.kind} by {name} needs the argument {name}")
            positions.append(names.index(known[number].name))
        return Transform(self.kind, value, tuple(positions), self.single)


def _origin(function: Compilable) -> tuple[Program, Closure, list[tuple[str, Value]]]:
    """The program and the map at the bottom, and the instance that the map belongs to."""
    match function:
        case Transformed():
            return _origin(function.function)
        case Map():
            return function.program, function.closure, []
        case Method():
            inner = function.owner.inner
            return inner.program, function.owner.closure(function.name), [("", inner.value)]
    raise TypeError(f"{function!r} is no map")


def _position(kind: str, number: int, count: int) -> int:
    if not -count <= number < count:
        raise ValueError(f"{kind} by argument {number}, but the map has {count} arguments")
    return number % count


def _as_tensor(parameter: Parameter) -> Parameter:
    """A scalar parameter as a tensor: a number to differentiate by is no constant of the code."""
    if not parameter.is_scalar:
        return parameter
    return replace(parameter, is_tensor=True, dtype=parameter.dtype or DType.F32)


def _direction(parameter: Parameter, known: Sequence[Parameter]) -> Parameter:
    """The parameter for the direction along an argument: `dx` for x."""
    name = f"d{parameter.name}"
    while any(p.name == name for p in known):
        name = f"d{name}"
    return replace(parameter, name=name, has_default=False)
