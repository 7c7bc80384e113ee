"""What can be called from Python: maps, and maps of module instances.

A callable compiles once for each signature (the types of the tensors and the static arguments) and
keeps the last specialization at hand, so that a repeated call goes straight into native code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mapsto.arguments import Bound, Parameter, bind_arguments, parameters_of
from mapsto.compiler import Options, compile_native
from mapsto.dsl.elaborated import Elaborated, Structure, unflatten
from mapsto.dsl.program import Program
from mapsto.dsl.values import Closure, Value
from mapsto.ir.core import Array
from mapsto.ir.types import TensorType
from mapsto.runtime.function import NativeFunction

__all__ = ["Callable_", "Map"]


def _never(*arguments: object) -> Any:
    return NotImplemented


class Callable_:
    """Base of what is compiled on demand and called with arrays."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._fast: Callable[..., Any] = _never
        self._names: tuple[str, ...] = ()
        self._specializations: dict[object, tuple[NativeFunction, Structure]] = {}

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters of the map."""
        raise NotImplementedError

    def elaborate(
        self, types: Mapping[str, TensorType], static: Mapping[str, object]
    ) -> Elaborated:
        """The IR for arguments of these types; sizes may be named."""
        raise NotImplementedError

    def arrays(self, elaborated: Elaborated) -> Mapping[str, Array]:
        """The arrays of the parameters and states that the IR refers to."""
        return {}

    def __call__(self, *arguments: object, **named: object) -> Any:
        """Applies the map: arrays in (NumPy, or anything with DLPack or a buffer), arrays out.

        Raises ArgumentError where the arguments cannot be bound, DiagnosticsError where the map
        does not accept their types.
        """
        if not named:
            result = self._fast(*arguments)
            if result is not NotImplemented:
                return result
        return self._call_slowly(bind_arguments(self.parameters, arguments, named))

    def try_fast(self, named: Mapping[str, object]) -> Any:
        """The result of the last specialization for arguments by name, in the order of the
        parameters; NotImplemented where it does not fit."""
        return self._fast(*named.values()) if tuple(named) == self._names else NotImplemented

    def prepare(self, types: Mapping[str, TensorType]) -> None:
        """Compiles for tensors of these types, without a call."""
        self._specialized(types, {})

    def _call_slowly(self, bound: Bound) -> Any:
        native, structure = self._specialization(bound)
        result = native(*bound.tensors.values())
        if isinstance(structure, TensorType):
            if not bound.static and len(bound.tensors) == len(self.parameters):
                self._fast, self._names = native.fast, tuple(bound.tensors)
            return result
        values = result if isinstance(result, tuple) else (result,)
        return unflatten(structure, values)

    def _specialization(self, bound: Bound) -> tuple[NativeFunction, Structure]:
        return self._specialized(bound.types, bound.static)

    def _specialized(
        self, types: Mapping[str, TensorType], static: Mapping[str, object]
    ) -> tuple[NativeFunction, Structure]:
        key = (tuple(types.items()), _static_key(static))
        found = self._specializations.get(key)
        if found is None:
            elaborated = self.elaborate(types, static)
            native = compile_native(elaborated, self.options, self.arrays(elaborated))
            found = self._specializations[key] = (native, elaborated.result)
        return found


class Map(Callable_):
    """A map of a program.

    Tensor arguments are arrays; other arguments (numbers, strings, maps, modules) are static: the
    map is compiled anew for each of their values.
    """

    def __init__(self, program: Program, name: str, options: Options) -> None:
        super().__init__(options)
        self.program = program
        self.name = name
        value = program.value(name)
        assert isinstance(value, Closure)
        self._closure = value
        self.__doc__ = program.docstring(name)
        self.__name__ = name

    def __repr__(self) -> str:
        return f"<map {self.program.signature(self.name)}>"

    @property
    def value(self) -> Value:
        """The map as a value of the language, to be passed to other maps."""
        return self._closure

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return parameters_of(self._closure.definition)

    def elaborate(
        self, types: Mapping[str, TensorType], static: Mapping[str, object]
    ) -> Elaborated:
        return self.program.elaborate_map(self.name, types, static)

    def with_passes(self, passes: str) -> Map:
        """The same map, compiled by another pipeline."""
        return Map(self.program, self.name, self.options.with_passes(passes))


def _static_key(static: Mapping[str, object]) -> object:
    """Numbers and strings compare by value and type, everything else by identity."""
    return tuple(
        (name, type(value), value if isinstance(value, bool | int | float | str) else id(value))
        for name, value in static.items()
    )
