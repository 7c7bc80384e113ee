"""A program: its definitions, and the IR of its maps, modules and training steps.

This is what the Python API, the command line and the training loop use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mapsto import ir
from mapsto.dsl import (
    registry,  # noqa: F401 (registers the evaluators)
    syntax,
)
from mapsto.dsl.applications import elaborate_application
from mapsto.dsl.elaborated import Elaborated, InputSpec, ParameterSpec, Structure
from mapsto.dsl.evaluation import apply, find
from mapsto.dsl.initialization import elaborate_initializers
from mapsto.dsl.instances import Instance, duplicate, slots_in
from mapsto.dsl.library import DiagnosticsError, file_scope
from mapsto.dsl.parser import parse
from mapsto.dsl.scope import FileScope
from mapsto.dsl.sessions import (
    elaborating,
    from_python,
    new_frame,
    slot_paths,
)
from mapsto.dsl.source import Source
from mapsto.dsl.training import Trainer, make_trainer
from mapsto.dsl.values import (
    Applicable,
    Argument,
    Closure,
    ModuleClass,
    TrainClass,
    Value,
)

__all__ = [
    "DiagnosticsError",
    "Elaborated",
    "InputSpec",
    "ModuleInstance",
    "ParameterSpec",
    "Program",
    "Structure",
]


class Program:
    """The definitions of a source text, ready to be elaborated."""

    def __init__(self, source: Source, program: syntax.Program, scope: FileScope) -> None:
        self.source = source
        self.syntax = program
        self.scope = scope

    @classmethod
    def load(cls, path: str | Path) -> Program:
        """The program in a file.

        Raises DiagnosticsError for mistakes in the text, OSError and UnicodeDecodeError where it
        cannot be read.
        """
        place = Path(path)
        return cls.loads(place.read_text("utf-8"), str(path), str(place.parent))

    @classmethod
    def loads(cls, text: str, name: str = "<text>", directory: str | None = None) -> Program:
        """The program in a text; `name` stands for the file in messages, and imports of files
        start at `directory`."""
        source = Source(name, text)
        program, diagnostics = parse(source)
        scope, repeated = file_scope(program, name, directory)
        if diagnostics or repeated:
            raise DiagnosticsError([*diagnostics, *repeated])
        return cls(source, program, scope)

    def names(self) -> tuple[str, ...]:
        """The names that the program defines, in the order of the text."""
        return tuple(self.scope.definitions)

    def definition(self, name: str) -> syntax.Definition | None:
        """The syntax tree of a definition."""
        return self.scope.definitions.get(name)

    def docstring(self, name: str) -> str:
        """The documentation of a definition; empty if it has none."""
        documented = getattr(self.value(name), "definition", self.scope.definitions.get(name))
        docstring = getattr(documented, "docstring", None)
        return "" if docstring is None else str(docstring.text)

    def signature(self, name: str) -> str:
        """The header of a map, module or train block, such as `relu[T](x: T[...s]) -> T[...s]`."""
        value = self.value(name)
        definition = getattr(value, "definition", None)
        if definition is None:
            return name
        parameters = ", ".join(parameter.span.text for parameter in definition.parameters)
        generics = ", ".join(generic.name for generic in getattr(definition, "generics", ()))
        result = getattr(definition, "result", None)
        arrow = "" if result is None else f" -> {result.span.text}"
        return f"{name}{f'[{generics}]' if generics else ''}({parameters}){arrow}"

    def value(self, name: str) -> Value:
        """What a name stands for: its own definition, or one of the standard library.

        Raises KeyError for a name without a meaning, DiagnosticsError where its definition is
        wrong.
        """
        with elaborating():
            value = find(new_frame(self.scope), name)
        if value is None:
            raise KeyError(name)
        return value

    def elaborate_map(
        self,
        name: str,
        argument_types: Mapping[str, ir.TensorType],
        static_arguments: Mapping[str, object] | None = None,
    ) -> Elaborated:
        """The IR of a map for arguments of these types.

        The map may be any function: a built-in one, or one made of others, whose parameters and
        states have paths that begin with the name.  `static_arguments` are numbers, strings, maps
        and module instances.  Sizes in the types may be symbolic.  Raises DiagnosticsError where
        the map does not accept them.
        """
        value = self.value(name)
        if not isinstance(value, Applicable):
            raise TypeError(f"{name} is not a map")
        given = {**argument_types, **(static_arguments or {})}
        return self._applied(value, name, given, [(name, value)])

    def _applied(
        self,
        function: Value,
        entry: str,
        given: Mapping[str, object],
        roots: Sequence[tuple[str, Value]],
    ) -> Elaborated:
        """The IR of a function applied to arguments in any order."""
        span = self.syntax.span
        if isinstance(function, Closure):
            definition = function.definition
            span = definition.span if definition.name is None else definition.name.span
            given = _in_order(definition, given)
        return elaborate_application(self.scope, function, entry, span, given, roots)

    def instantiate(
        self, name: str, configuration: Mapping[str, object] | None = None
    ) -> ModuleInstance:
        """An instance of a module; raises DiagnosticsError where the configuration is wrong."""
        value = self.value(name)
        if not isinstance(value, ModuleClass):
            raise TypeError(f"{name} is not a module")
        span = value.definition.name.span
        given = tuple([Argument(k, from_python(v), span) for k, v in (configuration or {}).items()])
        with elaborating():
            instance = apply(value, new_frame(self.scope), span, given)
        assert isinstance(instance, Instance)
        return ModuleInstance(self, instance)

    def trainer(self, name: str, configuration: Mapping[str, object] | None = None) -> Trainer:
        """A `train` block with its net and optimizer."""
        value = self.value(name)
        if not isinstance(value, TrainClass):
            raise TypeError(f"{name} is not a train block")
        return make_trainer(value, configuration or {})


class ModuleInstance:
    """An instance of a module; its parameters are known once a map of it was elaborated."""

    def __init__(self, program: Program, value: Instance) -> None:
        self.program = program
        self.value = value

    @property
    def name(self) -> str:
        """The name of the module."""
        return self.value.title

    def duplicate(self) -> ModuleInstance:
        """Another instance with the same configuration and sizes, and parameters of its own."""
        return ModuleInstance(self.program, duplicate(self.value))

    def maps(self) -> tuple[str, ...]:
        """The names of its maps; the unnamed one is the empty string."""
        members = self.value.definition.members
        maps = [node for node in members if isinstance(node, syntax.MapDefinition)]
        return tuple(["" if node.name is None else node.name.name for node in maps])

    def parameter_names(self, method: str = "") -> tuple[str, ...]:
        """The names of the arguments of a map of the module."""
        return tuple([p.name.name for p in self.closure(method).definition.parameters])

    def state_paths(self) -> frozenset[str]:
        """The paths of its states, such as `norm.mean`; all others are parameters."""
        paths = slot_paths([("", self.value)])
        slots = slots_in(self.value)
        return frozenset(path for key, path in paths.items() if slots[key].is_state)

    def elaborate(
        self,
        method: str,
        argument_types: Mapping[str, ir.TensorType],
        static_arguments: Mapping[str, object] | None = None,
    ) -> Elaborated:
        """The IR of a map of the module (the unnamed one is `""`) for arguments of these types.

        Fixes the sizes of the parameters if this is the first use.
        """
        entry = f"{self.name}.{method}" if method else self.name
        given = {**argument_types, **(static_arguments or {})}
        return self.program._applied(self.closure(method), entry, given, [("", self.value)])

    def closure(self, method: str) -> Closure:
        """A map of the module; the unnamed one is `""`.  Raises KeyError where there is none."""
        if not method:
            call = self.value.call
            if call is None:
                raise KeyError(f"{self.name} has no unnamed map")
            return call
        bound = self.value.scope.names.get(method)
        if bound is None or not isinstance(bound.value, Closure):
            raise KeyError(f"{self.name} has no map {method}")
        return bound.value

    def elaborate_initializers(self) -> Elaborated:
        """The function `init(seed: i64[])` of the first values of all parameters and states whose
        sizes are known.

        The result maps each path to its tensor.  Equal seeds and paths give equal bits.
        """
        with elaborating():
            return elaborate_initializers(new_frame(self.program.scope), [("", self.value)])


def _in_order(definition: syntax.MapDefinition, given: Mapping[str, object]) -> dict[str, object]:
    """Arguments in the order of the parameters, unknown names last."""
    places = {p.name.name: i for i, p in enumerate(definition.parameters)}
    names = sorted(given, key=lambda name: places.get(name.partition(".")[0], len(places)))
    return {name: given[name] for name in names}
