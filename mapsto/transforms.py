"""Maps of maps from Python: derivatives, `vmap`, `remat`, `train_mode`, `eval_mode`.

    slope = mt.grad(lib.loss)
    loss, gradient = mt.value_and_grad(lib.loss)(net, x, y)
    gradient["layers.0.w"]

They take maps of a program, module instances, maps of instances, and what they give themselves, so
they nest.  The derivative is compiled as one native function, with the map's value in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

from mapsto.arguments import Parameter
from mapsto.callables import Compilable, Map, Store
from mapsto.dsl.applications import elaborate_application
from mapsto.dsl.elaborated import Elaborated, ParameterSpec
from mapsto.dsl.program import Program
from mapsto.dsl.values import Closure, Group, Mode, Nothing, Number, Transform, Value
from mapsto.function_parameters import function_parameters, position_of
from mapsto.instances import Instance, Method
from mapsto.ir.core import Array
from mapsto.ir.types import TensorType
from mapsto.placement import Mover, User
from mapsto.runtime.devices.device import Device
from mapsto.runtime.errors import ArgumentError

__all__ = [
    "Transformed",
    "eval_mode",
    "grad",
    "hessian",
    "jvp",
    "remat",
    "train_mode",
    "value_and_grad",
    "vmap",
]

_MODES = {"train_mode": True, "eval_mode": False}

Argnums = int | str | Sequence[int | str]
Axes = int | None | Sequence["Axes"]


class _Settings(NamedTuple):
    """What a map of maps is told besides the map."""

    argnums: Argnums = ()
    has_aux: bool = False
    in_axes: Axes = None
    out_axes: Axes = 0


def grad(function: Compilable, argnums: Argnums = 0, has_aux: bool = False) -> Transformed:
    """The gradient of a map whose result is a scalar, or a tuple that begins with one.

    `argnums` are the positions or names of the arguments to differentiate by: one gives one
    gradient, several a tuple.  The gradient by a tensor has its shape; the gradient by a module
    instance is a dict from the paths of its parameters, such as `layers.0.w`, to arrays.  With
    `has_aux` the result is the pair of gradient and further results.
    Raises TypeError for what is no map, ValueError for an argument that there is not.
    """
    return _transformed("grad", function, _hashable(argnums), has_aux)


def value_and_grad(
    function: Compilable, argnums: Argnums = 0, has_aux: bool = False
) -> Transformed:
    """The pair of a map's value, all of it, and its gradient, computed together; see `grad`."""
    return _transformed("value_and_grad", function, _hashable(argnums), has_aux)


def jvp(function: Compilable, argnums: Argnums = 0) -> Transformed:
    """The pair of a map's value and its derivative along directions (forward mode).

    The directions follow the map's arguments, one for each of `argnums`, each of its argument's
    type: `jvp(f)(x, y, dx)`, `jvp(f, (0, 1))(x, y, dx, dy)`.
    """
    return _transformed("jvp", function, _hashable(argnums))


def hessian(function: Compilable, argnums: Argnums = 0) -> Transformed:
    """The second derivatives of a map whose result is a scalar.

    By a tensor of shape s it has the shape s + s; with several `argnums` it is a tuple of tuples of
    shapes s + t, as in JAX.
    """
    return _transformed("hessian", function, _hashable(argnums))


def vmap(function: Compilable, in_axes: Axes = None, out_axes: Axes = 0) -> Transformed:
    """The map applied to each element along an axis of its tensor arguments.

    `in_axes` is one axis, or a tuple with an axis for each argument, None for an argument that is
    the same for every element.  By default tensors go by their first axis; scalars and arguments
    that are no tensors are the same for every element.  Results are stacked along `out_axes`.
    """
    for axes in (in_axes, out_axes):
        _axes(axes)
    return _transformed("vmap", function, (), False, _hashable(in_axes), _hashable(out_axes))


def remat(function: Compilable) -> Transformed:
    """The map, computed again where its derivative needs it: less memory, more work."""
    return _transformed("remat", function)


def train_mode(function: Compilable) -> Transformed:
    """The map as it is in training: `training` is true in it, so that layers such as dropout work
    as they do in the step of a `train` block."""
    return _transformed("train_mode", function)


def eval_mode(function: Compilable) -> Transformed:
    """The map as it is in evaluation: `training` is false in it, as in a plain call."""
    return _transformed("eval_mode", function)


def _transformed(kind: str, function: Compilable, *settings: Any) -> Transformed:
    """A map made of a map: the same where it was made before, which has its code."""
    made = function.transforms if isinstance(function, Compilable) else {}
    found = made.get((kind, settings))
    if isinstance(found, Transformed):
        return found
    if not isinstance(function, Map | Method | Transformed):
        raise TypeError(f"{kind} takes a map or a module instance, not {function!r}")
    found = made[kind, settings] = Transformed(kind, function, _Settings(*settings))
    return found


class Transformed(Compilable):
    """A map made of a map; called like one."""

    def __init__(self, kind: str, function: Compilable, settings: _Settings) -> None:
        super().__init__(function.options)
        self.kind = kind
        self.function = function
        self.settings = settings
        names = [parameter.name for parameter in function.parameters]
        argnums = self.settings.argnums
        self.single = isinstance(argnums, int | str)
        self.argnums = tuple(
            position_of(kind, number, names)
            for number in ((argnums,) if isinstance(argnums, int | str) else argnums)
        )
        _check_axes(self.settings.in_axes, len(names))
        self.add_user(self)

    def __repr__(self) -> str:
        return f"<{self.kind} of {self.function!r}>"

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        names = [parameter.name for parameter in self.function.parameters]
        return function_parameters(self._value(names)) or ()

    def elaborate(
        self, types: Mapping[str, TensorType], static: Mapping[str, object]
    ) -> Elaborated:
        given = {**types, **static}
        owners = {name.partition(".")[0] for name in given}
        names = [p.name for p in self.parameters if p.name in owners]
        program, innermost, title, roots = _origin(self.function)
        return elaborate_application(
            program.scope,
            self._value(names),
            f"{self.kind}.{title}",
            innermost.definition.span if isinstance(innermost, Closure) else program.syntax.span,
            {key: given[key] for name in names for key in given if key.partition(".")[0] == name},
            roots,
        )

    def own_arrays(self, slots: Sequence[ParameterSpec]) -> Mapping[str, Array]:
        return self.function.own_arrays(slots)

    @property
    def value(self) -> Value:
        """The function as a value of the language, to be passed to other maps."""
        return self._value([parameter.name for parameter in self.parameters])

    def storage_for(self, specs: Sequence[ParameterSpec]) -> Mapping[str, Array]:
        """The arrays of the module instance that the function is made of."""
        return _store_of(self.function).storage_for(specs) if specs else {}

    def with_passes(self, passes: str) -> Transformed:
        """The same, compiled by another pipeline."""
        return Transformed(self.kind, self.function.with_passes(passes), self.settings)

    def to(self, device: str | Device) -> Transformed:
        """The same on a device, with the module that it is made of."""
        return Transformed(self.kind, self.function.to(device), self.settings)

    def add_user(self, user: User) -> None:
        """Has someone told when the arrays of the module move that the map is made of."""
        for store in self.own_stores():
            store.add_user(user)

    def own_stores(self) -> Iterable[Store]:
        return self.function.own_stores()

    def relocate(self, mover: Mover) -> None:
        if next(iter(self.own_stores()), None) is not None:
            # What moves are not merely modules among the arguments.
            self.options = replace(self.options, device=mover.device)
        super().relocate(mover)

    def _value(self, names: Sequence[str]) -> Value:
        """The function as a value of the language, for arguments of these names."""
        inner = self.function
        value = inner._value(names) if isinstance(inner, Transformed) else _innermost(inner)
        if self.kind in _MODES:
            return Mode(value, _MODES[self.kind])
        chosen = [inner.parameters[number].name for number in self.argnums]
        for name in chosen:
            if name not in names:
                raise ArgumentError(f"{self.kind} by {name} needs the argument {name}")
        made = Transform(self.kind, value, tuple(chosen), self.single, self.settings.has_aux)
        if self.kind != "vmap":
            return made
        own = [parameter.name for parameter in inner.parameters]
        in_axes = _axes_of_arguments(self.settings.in_axes, own, names)
        return replace(made, in_axes=in_axes, out_axes=_axes(self.settings.out_axes))


def _hashable(value: Any) -> Any:
    """A list as a tuple, so that what was made with it is found again."""
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value


def _origin(function: Compilable) -> tuple[Program, Value, str, list[tuple[str, Value]]]:
    """The program, the map at the bottom, its title, and the instance that the map belongs to."""
    match function:
        case Transformed():
            return _origin(function.function)
        case Map():
            value, name = function.value, function.name
            title = value.title if isinstance(value, Closure) else name
            return function.program, value, title, [(name, value)]
        case Method():
            inner = function.owner.inner
            closure = function.owner.closure(function.name)
            return inner.program, closure, closure.title, [("", inner.value)]
    raise TypeError(f"{function!r} is no map")


def _innermost(function: Compilable) -> Value:
    """What is no map of a map as a value: an instance itself, so that its parameters are reached
    through it."""
    return function.value if isinstance(function, Instance) else _origin(function)[1]


def _store_of(function: Compilable) -> Instance:
    """The instance that a map of maps is made of."""
    while isinstance(function, Transformed):
        function = function.function
    assert isinstance(function, Method), "a map has no parameters of its own"
    return function.owner


def _check_axes(in_axes: Axes, count: int) -> None:
    if isinstance(in_axes, Sequence) and len(in_axes) > count:
        raise ValueError(f"in_axes has {len(in_axes)} items, but the map has {count} arguments")


def _axes_of_arguments(
    in_axes: Axes, parameters: Sequence[str], names: Sequence[str]
) -> Value | None:
    """What is told about the arguments of these names; nothing about those after the last axis."""
    if not isinstance(in_axes, Sequence):
        return None if in_axes is None else Number(in_axes)
    known = dict(zip(parameters, in_axes, strict=False))
    return Group(tuple([_axes(known.get(name)) for name in names]))


def _axes(axes: Axes) -> Value:
    if axes is None:
        return Nothing()
    if isinstance(axes, int):
        return Number(axes)
    if isinstance(axes, str) or not isinstance(axes, Sequence):
        raise TypeError(f"an axis is a whole number, None, or a tuple of those, not {axes!r}")
    return Group(tuple([_axes(item) for item in axes]))
