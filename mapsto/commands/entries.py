"""`FILE:ENTRY`: finding what a command works on, and its IR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mapsto.callables import Compilable, Map
from mapsto.commands.settings import Settings, check_names, input_types, names_of
from mapsto.commands.sources import read
from mapsto.compiler import Options
from mapsto.dsl import syntax
from mapsto.dsl.diagnostics import Kind, nearest
from mapsto.dsl.elaborated import Elaborated
from mapsto.dsl.library import DiagnosticsError
from mapsto.dsl.program import Program
from mapsto.dsl.scope import Scope
from mapsto.dsl.train_members import UNNAMED
from mapsto.dsl.values import Closure
from mapsto.errors import MapstoError
from mapsto.instances import Instance, Method
from mapsto.ir.core import Array
from mapsto.ir.dims import DimExpression, symbols
from mapsto.ir.types import TensorType
from mapsto.library import Library
from mapsto.trainer import Trainer
from mapsto.training_steps import Step

__all__ = ["Entry", "Opened", "open_target", "split_target"]

Definition = syntax.MapDefinition
EVALUATION = "evaluate"


def split_target(text: str) -> tuple[Path, str]:
    """The file and the entry of `FILE:ENTRY`; the entry may be missing."""
    path, colon, entry = text.rpartition(":")
    if not colon or "/" in entry or Path(text).exists():
        return Path(text), ""
    return Path(path), entry


def load_program(path: Path) -> Program:
    """The program in a file.  Raises DiagnosticError and DiagnosticsError."""
    source = read(path)
    return Program.loads(source.text, source.name, str(path.parent))


def open_target(text: str, options: Options, settings: Settings, seed: int) -> Opened:
    """The file of a target and the entries that it names.  Raises MapstoError where there is no
    such entry."""
    path, names = split_target(text)
    opened = Opened(load_program(path), options, settings, seed)
    if not names:
        raise MapstoError(f"{text}: name what to take, as in {text}:{_example(opened)}")
    opened.entries = tuple(opened.find(name.strip()) for name in names.split(","))
    known = [name for entry in opened.entries for name in entry.setting_names()]
    check_names(settings, [*known, *sorted(opened.configurable)], names)
    return opened


class Opened:
    """A program with its module instances and trainers, each made once."""

    entries: tuple[Entry, ...] = ()

    def __init__(self, program: Program, options: Options, settings: Settings, seed: int) -> None:
        self.program = program
        self.library = Library(program, options)
        self.settings = settings
        self.seed = seed
        self.configurable: set[str] = set()
        """The names of the parameters of the modules that were made."""
        self._made: dict[str, Instance | Trainer] = {}

    def find(self, text: str) -> Entry:
        """The entry `map`, `Module`, `Module.method`, `Train.step`, `Train.evaluate`, `Train.net`
        or `Train.net.method`."""
        name, _, rest = text.partition(".")
        found = self._definition(name)
        if isinstance(found, syntax.MapDefinition) and not rest:
            return _map_entry(getattr(self.library, name))
        if isinstance(found, syntax.ModuleDefinition):
            return _method_entry(text, self._make(name, found), rest)
        if isinstance(found, syntax.TrainDefinition):
            return self._train_entry(text, self._make(name, found), rest or "step")
        raise MapstoError(f"`{text}` is not a map, a module, a method or a training step")

    def trainer(self, name: str = "") -> Trainer:
        """The `train` block of this name, or the only one."""
        names = [n for n in self.program.names() if _is_train(self.program.definition(n))]
        if not name and len(names) != 1:
            found = f"has {len(names)}: {', '.join(names)}" if names else "has none"
            raise MapstoError(f"{self.program.source.name}: name a `train` block; the file {found}")
        name = name or names[0]
        definition = self._definition(name)
        if not isinstance(definition, syntax.TrainDefinition):
            raise MapstoError(f"`{name}` is not a `train` block{_suggestion(name, names)}")
        made = self._make(name, definition)
        assert isinstance(made, Trainer)
        return made

    def _definition(self, name: str) -> object:
        try:
            value = self.program.value(name)
        except KeyError:
            own = self.program.names()
            hint = _suggestion(name, own)
            message = f"{self.program.source.name} defines no `{name}`{hint}"
            raise MapstoError(message) from None
        return getattr(value, "definition", None)

    def _make(
        self, name: str, definition: syntax.ModuleDefinition | syntax.TrainDefinition
    ) -> Instance | Trainer:
        """The instance or trainer of a definition, with the settings that are its parameters."""
        if name not in self._made:
            names = [p.name.name for p in definition.parameters]
            is_block = isinstance(definition, syntax.TrainDefinition)
            dotted = [s for s in self.settings if is_block and s.partition(".")[0] in names]
            given = {key: self.settings[key] for key in [*names, *dotted] if key in self.settings}
            self.configurable.update([*names, *dotted])
            made = getattr(self.library, name)(seed=self.seed, **given)
            assert isinstance(made, Instance | Trainer)
            self._made[name] = made
        return self._made[name]

    def _train_entry(self, text: str, trainer: Instance | Trainer, rest: str) -> Entry:
        assert isinstance(trainer, Trainer)
        member, _, method = rest.partition(".")
        steps = _steps(trainer)
        if member in steps and not method:
            return _step_entry(text, steps[member], member)
        if member == EVALUATION and not method:
            return _evaluation_entry(text, trainer)
        if member in trainer.nets:
            return _method_entry(text, trainer.nets[member], method)
        known = [*steps, EVALUATION, *trainer.nets]
        raise MapstoError(f"`{text}` is none of {', '.join(known)}{_suggestion(member, known)}")


@dataclass(frozen=True)
class Entry:
    """Something that can be compiled.

    `definitions` are the maps that declare its inputs, each with the scope of its names; `owner`
    holds its parameters.
    """

    name: str
    c_name: str
    target: Compilable
    definitions: tuple[tuple[Definition, Scope], ...]
    owner: object = None
    documentation: str = ""
    result_name: str = "result"

    def setting_names(self) -> Iterator[str]:
        """The names that settings can give a value."""
        for definition, scope in self.definitions:
            yield from names_of(definition)
            yield from (g for s in scope.enclosing() for g in s.generics)

    def elaborate(
        self,
        settings: Settings,
        weights: Mapping[str, Array],
        given: Mapping[str, TensorType] | None = None,
    ) -> Elaborated:
        """The IR for inputs of the given types, and of the declared ones for the rest.

        Sizes of parameters that the inputs leave open are those of the weights.  Raises MapstoError
        where a size is known neither way, DiagnosticsError where the program is wrong.
        """
        fixed = dict(settings)
        while True:
            types, static = self._inputs(fixed)
            try:
                return self.target.elaborate({**types, **(given or {})}, static)
            except DiagnosticsError as error:
                found = _sizes_in(error, weights)
                if set(found) <= set(fixed):
                    _ask_for_size(self.name, error)
                    raise
                fixed |= found

    def _inputs(self, settings: Settings) -> tuple[dict[str, TensorType], dict[str, object]]:
        types: dict[str, TensorType] = {}
        static: dict[str, object] = {}
        for definition, scope in self.definitions:
            own_types, own_static = input_types(definition, scope, settings)
            types, static = own_types | types, own_static | static
        return types, static


def _sizes_in(error: DiagnosticsError, weights: Mapping[str, Array]) -> dict[str, int]:
    """The sizes that the weights say where a parameter's type has names."""
    sizes: dict[str, int] = {}
    for diagnostic in error.diagnostics:
        type_, path = diagnostic.facts.get("type"), str(diagnostic.facts.get("name"))
        if diagnostic.kind is not Kind.SYMBOLIC_PARAMETER or not isinstance(type_, TensorType):
            continue
        array = weights.get(path)
        if array is None or array.ndim != type_.rank:
            continue
        for dim, extent in zip(type_.shape, array.shape, strict=True):
            if isinstance(dim, DimExpression) and {str(dim)} == set(symbols(dim)):
                sizes[str(dim)] = extent
    return sizes


def _ask_for_size(name: str, error: DiagnosticsError) -> None:
    """Raises MapstoError with what to do where nothing is wrong but that a size is missing."""
    first = error.diagnostics[0]
    type_ = first.facts.get("type")
    if first.kind is not Kind.SYMBOLIC_PARAMETER or not isinstance(type_, TensorType):
        return
    names = sorted(type_.symbols)
    flags = " ".join(f"--static {name}=64" for name in names)
    raise MapstoError(
        f"`{name}` has the parameter `{first.facts.get('name')}: {type_}`, which needs a number for"
        f" {' and '.join(names)}: give {flags}, or --weights"
    )


def _map_entry(target: Map) -> Entry:
    closure = target.value
    assert isinstance(closure, Closure)
    definitions = ((closure.definition, closure.scope),)
    return Entry(target.name, target.name, target, definitions, None, target.__doc__ or "")


def _method_entry(text: str, instance: Instance | Trainer, method: str) -> Entry:
    assert isinstance(instance, Instance)
    maps = instance.inner.maps()
    if method not in maps:
        known = [name for name in maps if name]
        found = f"map `{method}`" if method else "unnamed map"
        there = f"; it has {', '.join(known)}" if known else ""
        hint = _suggestion(method, known) or there
        raise MapstoError(f"`{instance.inner.name}` has no {found}{hint}")
    target: Method = getattr(instance, method) if method else instance
    closure = instance.closure(method)
    docstring = closure.definition.docstring
    if docstring is None and not method:
        docstring = instance.inner.value.definition.docstring
    documentation = "" if docstring is None else docstring.text
    definitions = ((closure.definition, closure.scope),)
    return Entry(text, method or "forward", target, definitions, instance, documentation)


def _steps(trainer: Trainer) -> dict[str, Step]:
    """The steps of a `train` block by name: of all losses, and of each that has a name."""
    named = [name for name in trainer.loss_names if name != UNNAMED]
    return {"step": trainer.compiled_step, **{f"step_{n}": trainer.step_of(n) for n in named}}


def _step_entry(text: str, step: Step, member: str) -> Entry:
    """A training step of a `train` block."""
    definitions = tuple((loss.closure.definition, loss.closure.scope) for loss in step.losses)
    about = "One step of the optimizer on a batch; the loss before it."
    return Entry(text, member, step, definitions, step.owner, about, "loss")


def _evaluation_entry(text: str, trainer: Trainer) -> Entry:
    """The evaluation of a `train` block."""
    about = "The loss and the metrics on a batch; nothing changes."
    every = tuple((c.definition, c.scope) for c in trainer.inner.closures().values())
    return Entry(text, EVALUATION, trainer.compiled_evaluation, every, trainer, about)


def _is_train(definition: object) -> bool:
    return isinstance(definition, syntax.TrainDefinition)


def _suggestion(name: str, candidates: tuple[str, ...] | list[str]) -> str:
    close = nearest(name, candidates)
    if close:
        return f"; did you mean `{close}`?"
    return f"; there are {', '.join(candidates)}" if candidates else ""


def _example(opened: Opened) -> str:
    names = opened.program.names()
    return names[0] if names else "NAME"
