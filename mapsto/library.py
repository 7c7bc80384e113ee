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
from mapsto.dsl.program import ModuleInstance, Program
from mapsto.dsl.values import Closure, ModuleClass, Number, Text, TrainClass, Truth, Value
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
    """A definition that cannot be called from Python, such as `tanh`, but be passed to maps and
    modules: `lib.Dense(10, activation=lib.tanh)`."""

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
        self._maps: dict[str, Map] = {}

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
        if isinstance(value, Closure):
            found: Any = Map(self.program, name, self.options)
        elif isinstance(value, ModuleClass):
            found = self._module(name, value)
        elif isinstance(value, TrainClass):
            found = self._trainer(name, value)
        elif isinstance(value, InstanceValue):
            found = Instance(ModuleInstance(self.program, value), self.options)
        elif isinstance(value, Number | Text | Truth):
            found = value.value
        else:
            found = Definition(name, value)
        self.__dict__[name] = found
        return found

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
