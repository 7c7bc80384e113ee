"""What can be called from Python: maps, and maps of module instances.

A callable compiles once for each signature (the types of the tensors and the static arguments) and
keeps entries for the calls that it has seen (`entries.py`), so that a repeated call goes straight
into native code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mapsto.arguments import Bound, Parameter, bind_arguments
from mapsto.compiler import (
    Options,
    bound_slots,
    compile_for,
    compile_native,
    optimized,
    without_collection,
)
from mapsto.dsl.elaborated import Elaborated, ParameterSpec, Structure, unflatten
from mapsto.dsl.program import Program
from mapsto.entries import Entries, entry_for, entry_into
from mapsto.function_parameters import function_parameters
from mapsto.ir.core import Array
from mapsto.ir.evaluator import evaluate
from mapsto.ir.printer import module_text
from mapsto.ir.types import TensorType
from mapsto.outputs import outputs_of
from mapsto.placement import Mover, User, is_writeable, place_of
from mapsto.runtime.devices.device import Device
from mapsto.runtime.devices.function import DeviceFunction
from mapsto.runtime.devices.registry import find_device
from mapsto.runtime.errors import ArgumentError
from mapsto.runtime.function import NativeFunction

__all__ = ["Compilable", "Map", "Store", "arrays_of_arguments"]


@runtime_checkable
class Store(Protocol):
    """What has parameters: a module instance."""

    options: Options

    def storage_for(self, specs: Sequence[ParameterSpec]) -> Mapping[str, Array]:
        """The arrays of parameters and states by path; new ones are initialized."""

    def to(self, device: str | Device) -> Store:
        """Moves the arrays to a device."""

    def add_user(self, user: User) -> None:
        """Has someone told when the arrays move."""


Compiled = NativeFunction | DeviceFunction


class Compilable:
    """Base of what is compiled on demand and called with arrays."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.transforms: dict[object, Compilable] = {}
        """The maps that `transforms.py` has made of it, by kind and settings."""
        self._entries = Entries()
        self._entries_into = Entries()
        self._in_same_order: tuple[str, ...] = ()
        """Names of arguments that were given in the order of the parameters."""
        self._orders: dict[tuple[object, ...], tuple[str, ...]] = {}
        self._specializations: dict[object, tuple[Compiled, Structure]] = {}

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters of the map."""
        raise NotImplementedError

    def elaborate(
        self, types: Mapping[str, TensorType], static: Mapping[str, object]
    ) -> Elaborated:
        """The IR for arguments of these types; sizes may be named."""
        raise NotImplementedError

    def own_arrays(self, slots: Sequence[ParameterSpec]) -> Mapping[str, Array]:
        """The arrays of the parameters and states that belong to no argument."""
        path = slots[0].path
        raise ArgumentError(f"{path} belongs to a module that is no argument; pass the module in")

    def own_stores(self) -> Iterable[Store]:
        """The modules that it is made of."""
        return ()

    def with_passes(self, passes: str) -> Compilable:
        """The same, compiled by another pipeline."""
        raise NotImplementedError

    def to(self, device: str | Device) -> Compilable:
        """The same on a device, such as `"cuda:0"`, or on the `"cpu"`.

        A map gives another map; a module moves its parameters, with all that shares them, and gives
        itself.  Raises DeviceError where there is no such device.
        """
        raise NotImplementedError

    def sharers(self) -> Iterable[User]:
        """What has arrays in common with it."""
        return ()

    def relocate(self, mover: Mover) -> None:
        """Forgets code that was compiled for arrays that have moved."""
        self._entries.clear()
        self._entries_into.clear()
        self._specializations.clear()
        self.transforms.clear()

    def __call__(self, *arguments: object, out: Any = None, **named: object) -> Any:
        """Applies the map: arrays in (NumPy, or anything with DLPack or a buffer), arrays out.

        `out` takes NumPy arrays that the result is written to, and is given back: one, or as many
        as the result has, in the same structure.  (Where the map has a parameter of this name, it
        is that.)

        Raises ArgumentError where the arguments cannot be bound or the result does not fit into
        `out`, DiagnosticsError where the map does not accept their types.
        """
        if not named:
            if out is None:
                result = self._entries.call(*arguments)
            else:
                result = self._entries_into.call(*arguments, out)
            if result is not NotImplemented:
                return result
        if out is not None and any(parameter.name == "out" for parameter in self.parameters):
            named, out = {**named, "out": out}, None
        given = self._in_order(arguments, named) if named else arguments
        if given is None:
            return self._call_once(bind_arguments(self.parameters, arguments, named), out)
        return self._call_again(given) if out is None else self._call_again_into(given, out)

    def try_fast(self, named: Mapping[str, object]) -> Any:
        """The result of a call like one before, for arguments by name; NotImplemented where there
        was none."""
        if tuple(named) == self._in_same_order:
            result = self._entries.call(*named.values())
            if result is not NotImplemented:
                return result
        given = self._in_order((), named)
        return NotImplemented if given is None else self._entries.find(given)

    def prepare(self, types: Mapping[str, TensorType]) -> None:
        """Compiles for tensors of these types, without a call."""
        self._specialized(types, {})

    def ir(self, **arguments: object) -> str:
        """The tensor IR after the passes, as text, for arguments of these types.

        `net.ir(x=mt.f32["n", 64])`; arguments that are no tensors are given as in a call.
        """
        types = {n: v for n, v in arguments.items() if isinstance(v, TensorType)}
        static = {n: v for n, v in arguments.items() if n not in types}
        return module_text(optimized(self.elaborate(types, static).module, self.options))

    def reference(self, *arguments: object, **named: object) -> Any:
        """What the reference evaluator gives for a call: slow, and the meaning of the IR.

        The IR is the one after the passes.  States stay as they are.
        """
        bound = bind_arguments(self.parameters, arguments, named)
        elaborated = self.elaborate(bound.types, bound.static)
        slots = bound_slots(elaborated)
        arrays = self._arrays(slots, bound.static)
        values = [*(arrays[slot.path] for slot in slots), *bound.tensors.values()]
        values = [np.asarray(value) for value in values]
        module = optimized(elaborated.module, self.options)
        return unflatten(elaborated.result, evaluate(module, elaborated.entry, values))

    def _in_order(
        self, arguments: tuple[object, ...], named: Mapping[str, object]
    ) -> tuple[object, ...] | None:
        """All arguments by position; None where they are wrong, or leave out one before others."""
        if not arguments and tuple(named) == self._in_same_order:
            return tuple(named.values())
        key = (len(arguments), *named)
        order = self._orders.get(key)
        if order is None:
            names = self._names[len(arguments) :][: len(named)]
            self._orders[key] = order = tuple(names) if set(names) == set(named) else ()
        if len(order) != len(named):
            return None
        if not arguments and order == tuple(named):
            self._in_same_order = order
        return (*arguments, *[named[name] for name in order])

    def _call_again(self, arguments: tuple[object, ...]) -> Any:
        """A call of another form or other types than the one before."""
        result = self._entries.find(arguments)
        if result is not NotImplemented:
            return result
        bound = bind_arguments(self.parameters, arguments, {})
        run, structure = self._for_call(bound)
        result = _run(run, structure, bound)
        if run.has_quick_entry:
            self._entries.add(entry_for(run.fast, self._names, arguments, bound, structure))
        return result

    def _call_again_into(self, arguments: tuple[object, ...], out: Any) -> Any:
        if self._entries_into.find((*arguments, out)) is not NotImplemented:
            return out
        bound = bind_arguments(self.parameters, arguments, {})
        run, structure = self._for_call(bound)
        _run_into(run, structure, bound, out)
        if isinstance(run, NativeFunction) and run.has_quick_entry:
            where = run.fast_into, self._names, arguments, bound
            self._entries_into.add(entry_into(*where, structure, out))
        return out

    def _call_once(self, bound: Bound, out: Any) -> Any:
        """A call of a form for which there are no entries."""
        run, structure = self._for_call(bound)
        if out is None:
            return _run(run, structure, bound)
        _run_into(run, structure, bound, out)
        return out

    @property
    def _names(self) -> list[str]:
        return [parameter.name for parameter in self.parameters]

    def _for_call(self, bound: Bound) -> tuple[Compiled, Structure]:
        given = _place_among(bound.tensors.values())
        return self._specialized(bound.types, bound.static, given)

    def _specialized(
        self,
        types: Mapping[str, TensorType],
        static: Mapping[str, object],
        given: Device | None = None,
    ) -> tuple[Compiled, Structure]:
        """The code for arguments of these types, some of them on the device `given`."""
        device = self._home(static) or given
        statics = tuple([(name, _static_key(value)) for name, value in static.items()])
        key = (tuple(types.items()), statics, device)
        found = self._specializations.get(key)
        if found is None:
            with without_collection():
                found = self._specializations[key] = self._compiled(types, static, device)
        return found

    def _home(self, static: Mapping[str, object]) -> Device | None:
        """The device that the function, or the modules that it works on, were moved to."""
        names = (self.options.device, *(s.options.device for s in self._all_stores(static)))
        return next((device for device in map(find_device, names) if device is not None), None)

    def _all_stores(self, static: Mapping[str, object]) -> list[Store]:
        return [*self.own_stores(), *(store for _, store in _stores(static.items()))]

    def _compiled(
        self,
        types: Mapping[str, TensorType],
        static: Mapping[str, object],
        device: Device | None,
    ) -> tuple[Compiled, Structure]:
        elaborated = self.elaborate(types, static)
        arrays = self._arrays(bound_slots(elaborated), static)
        _check_writeable(elaborated.updated, arrays)
        for store in self._all_stores(static):
            store.add_user(self)
        if device is None:
            return compile_native(elaborated, self.options, arrays), elaborated.result
        return compile_for(device, elaborated, self.options, arrays), elaborated.result

    def _arrays(
        self, slots: Sequence[ParameterSpec], static: Mapping[str, object]
    ) -> Mapping[str, Array]:
        """The arrays of parameters and states by path: those of module instances among the
        arguments, then the rest."""
        found = arrays_of_arguments(slots, static)
        rest = [slot for slot in slots if slot.path not in found]
        return {**self.own_arrays(rest), **found} if rest else found


class Map(Compilable):
    """A function of a program: a map, a built-in function, or what a name is given of those, such
    as `net = chain([Dense(8), Dense(2)])` or `slope = grad(loss)`.

    Tensor arguments are arrays; other arguments (numbers, strings, maps, modules) are static: the
    map is compiled anew for each of their values.  `parts` are the module instances that it is made
    of, by path.  Raises TypeError for what is no function.
    """

    def __init__(
        self,
        program: Program,
        name: str,
        options: Options,
        parts: Mapping[str, Store] | None = None,
    ) -> None:
        super().__init__(options)
        self._parts = parts or {}
        self.program = program
        self.name = name
        self.value = program.value(name)
        """The map as a value of the language, to be passed to other maps."""
        parameters = function_parameters(self.value)
        if parameters is None:
            raise TypeError(f"{name} is no map that can be called")
        self._parameters = parameters
        self.__doc__ = program.docstring(name)
        self.__name__ = name

    def __repr__(self) -> str:
        return f"<map {self.program.signature(self.name)}>"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return self._parameters

    def elaborate(
        self, types: Mapping[str, TensorType], static: Mapping[str, object]
    ) -> Elaborated:
        return self.program.elaborate_map(self.name, types, static)

    def own_arrays(self, slots: Sequence[ParameterSpec]) -> Mapping[str, Array]:
        found = arrays_of_arguments(slots, self._parts)
        rest = [slot for slot in slots if slot.path not in found]
        return {**found, **super().own_arrays(rest)} if rest else found

    def with_passes(self, passes: str) -> Map:
        """The same map, compiled by another pipeline."""
        return Map(self.program, self.name, self.options.with_passes(passes), self._parts)

    def to(self, device: str | Device) -> Map:
        """The same map on a device; the modules that it is made of move there."""
        options = self.options.on(device)
        for part in self._parts.values():
            part.to(device)
        return Map(self.program, self.name, options, self._parts)

    def own_stores(self) -> Iterable[Store]:
        return self._parts.values()


def _run(run: Compiled, structure: Structure, bound: Bound) -> Any:
    result = run(*bound.tensors.values())
    if isinstance(structure, TensorType):
        return result
    return unflatten(structure, result if isinstance(result, tuple) else (result,))


def _run_into(run: Compiled, structure: Structure, bound: Bound, out: Any) -> None:
    run.into(list(bound.tensors.values()), outputs_of(structure, out))


def _check_writeable(updated: Iterable[ParameterSpec], arrays: Mapping[str, Array]) -> None:
    for slot in updated:
        if not is_writeable(arrays[slot.path]):
            kind = "state" if slot.is_state else "parameter"
            raise ArgumentError(f"the call would change {slot.path}, a {kind} of a frozen net")


def _place_among(arrays: Iterable[object]) -> Device | None:
    """The device of the first array that is on one."""
    return next((place for place in map(place_of, arrays) if place is not None), None)


@dataclass(frozen=True, slots=True, eq=False)
class _Same:
    """A key that is equal for one object alone, which it keeps."""

    value: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _static_key(value: object) -> object:
    """Numbers and strings compare by value and type, lists and dicts by their items, everything
    else by identity."""
    if isinstance(value, float):
        # Told apart: zeros of both signs.  The same: NaN.
        return type(value), value.hex()
    if isinstance(value, bool | int | str):
        return type(value), value
    if isinstance(value, list | tuple):
        return type(value), tuple([_static_key(item) for item in value])
    if isinstance(value, dict):
        return type(value), tuple([(key, _static_key(item)) for key, item in value.items()])
    return _Same(value)


def arrays_of_arguments(
    slots: Sequence[ParameterSpec], static: Mapping[str, object]
) -> dict[str, Array]:
    """The arrays of parameters and states that belong to module instances among the arguments.

    The paths begin with the name of the argument, and the position in a list of instances.
    """
    found: dict[str, Array] = {}
    for prefix, store in _stores(static.items()):
        start = f"{prefix}."
        own = [
            ParameterSpec(slot.path.removeprefix(start), slot.type, slot.is_state)
            for slot in slots
            if slot.path.startswith(start)
        ]
        arrays = store.storage_for(own)
        found |= {start + spec.path: arrays[spec.path] for spec in own}
    return found


def _stores(values: Iterable[tuple[str, object]]) -> Iterator[tuple[str, Store]]:
    for path, value in values:
        if isinstance(value, Store):
            yield path, value
        elif isinstance(value, list | tuple):
            yield from _stores((f"{path}.{i}", item) for i, item in enumerate(value))
