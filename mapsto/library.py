"""Programs in Python: `load` gives an object whose attributes are the maps, modules and training
blocks of a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapsto.callables import Map
from mapsto.compiler import Options
from mapsto.dsl.instances import Instance as InstanceValue
from mapsto.dsl.instances import instances_in
from mapsto.dsl.program import ModuleInstance, Program
from mapsto.dsl.values import ModuleClass, Number, Text, TrainClass, Truth, Value
from mapsto.function_parameters import function_parameters
from mapsto.instances import Instance, instances_among
from mapsto.trainer import Trainer

__all__ = ["Library", "load", "loads"]


def load(path: str | Path, options: Options | None = None) -> Library:
    """The program in a file.

    Raises DiagnosticsError, which lists all mistakes with their places, and OSError.
    """
    return Library(Program.load(path), options or Options())


def loads(text: str, options: Options | None = None, name: str = "<text>") -> Library:
    """The program in a text; see `load`."""
    return Library(Program.loads(text, name), options or Options())


@dataclass(frozen=True)
class Definition:
    """A definition that is no function of arrays, such as a list of modules, but can be passed to
    maps and modules."""

    name: str
    value: Value

    def __repr__(self) -> str:
        return f"<{type(self.value).__name__.lower()} {self.name}>"


class Library:
    """A loaded program.

    Attributes are its definitions, and those of the standard library: a map is a function of
    arrays, a module a constructor of instances (`lib.MLP(hidden=256, seed=0)`), a training block a
    constructor of trainers (`lib.Digits(net=net)`), a named instance an instance, a number itself.
    """

    def __init__(self, program: Program, options: Options) -> None:
        self.program = program
        self.options = options
        self._instances: dict[InstanceValue, Instance] = {}
        """Those that definitions have in common share their parameters."""

    def __repr__(self) -> str:
        return f"<library {self.program.source.name}: {', '.join(self.program.names())}>"

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.program.names()})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            value = self.program.value(name)
        except KeyError:
            known = ", ".join(self.program.names())
            message = f"{self.program.source.name} defines no {name!r}; it defines {known}"
            raise AttributeError(message) from None
        if isinstance(value, ModuleClass):
            found: Any = self._module(name, value)
        elif isinstance(value, TrainClass):
            found = self._trainer(name, value)
        elif isinstance(value, InstanceValue):
            found = self._instance(value)
        elif isinstance(value, Number | Text | Truth):
            found = value.value
        elif function_parameters(value) is not None:
            found = Map(self.program, name, self.options, self._parts(name, value))
        else:
            found = Definition(name, value)
        self.__dict__[name] = found
        return found

    def _parts(self, name: str, value: Value) -> dict[str, Instance]:
        """The instances that a function is made of, by path, without those inside others."""
        parts: dict[str, Instance] = {}
        for path, part in instances_in(value, name):
            if not any(path.startswith(f"{outer}.") for outer in parts):
                parts[path] = self._instance(part)
        return parts

    def _instance(self, value: InstanceValue) -> Instance:
        if value not in self._instances:
            inner = ModuleInstance(self.program, value)
            self._instances[value] = Instance(inner, self.options)
        return self._instances[value]

    def _module(self, name: str, value: ModuleClass) -> Callable[..., Instance]:
        def make(*arguments: object, seed: int = 0, **configuration: object) -> Instance:
            given = _configuration(name, value, arguments, configuration)
            parts = tuple(instances_among(given.values()))
            inner = self.program.instantiate(name, given)
            return Instance(inner, self.options, seed, parts=parts)

        make.__name__, make.__doc__ = name, self.program.docstring(name)
        return make

    def _trainer(self, name: str, value: TrainClass) -> Callable[..., Trainer]:
        def make(*arguments: object, seed: int = 0, **configuration: object) -> Trainer:
            given = _configuration(name, value, arguments, configuration)
            return Trainer(self.program, name, given, self.options, seed)

        make.__name__, make.__doc__ = name, self.program.docstring(name)
        return make


def _configuration(
    name: str,
    value: ModuleClass | TrainClass,
    arguments: tuple[object, ...],
    configuration: dict[str, object],
) -> dict[str, object]:
    """All arguments under the names of the parameters.  Raises TypeError as Python does."""
    names = [parameter.name.name for parameter in value.definition.parameters]
    if len(arguments) > len(names):
        raise TypeError(f"{name} takes {len(names)} arguments, found {len(arguments)}")
    positional = dict(zip(names, arguments, strict=False))
    for repeated in positional.keys() & configuration.keys():
        raise TypeError(f"{name} is given {repeated} twice")
    return {**positional, **configuration}
