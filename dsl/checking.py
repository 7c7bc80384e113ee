"""Checking a program without arguments: every definition is elaborated with symbolic sizes.

A symbolic size is rigid: it equals only itself.  A map that is accepted so is right for all sizes.
Groups `...s` are tried with one, no and two dimensions.  Where a program computes with whole
numbers in a way that symbols cannot follow, such as `reshape(x, [h, d / h])`, distinct numbers are
tried instead.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mapsto import ir
from mapsto.dsl import (
    registry,  # noqa: F401 (registers the evaluators)
    syntax,
)
from mapsto.dsl.diagnostics import Diagnostic, DiagnosticError, Kind, report
from mapsto.dsl.dimensions import evaluate_type, is_kind
from mapsto.dsl.evaluation import apply, find
from mapsto.dsl.frame import MAXIMUM_DEPTH, Budget, Frame
from mapsto.dsl.initialization import initial_value
from mapsto.dsl.instances import Instance, instantiate, slot_type
from mapsto.dsl.library import DiagnosticsError, file_scope
from mapsto.dsl.parser import parse
from mapsto.dsl.scope import Bound, FileScope, Scope
from mapsto.dsl.sessions import elaborating, new_frame
from mapsto.dsl.source import Source, Span
from mapsto.dsl.stand_ins import LARGE, SMALL, Trial, configured, fill, stand_in, unknowns
from mapsto.dsl.structures import tensors_in
from mapsto.dsl.training import make_trainer_in
from mapsto.dsl.values import (
    Argument,
    Closure,
    Expected,
    ModuleClass,
    TrainClass,
    Unknowable,
    Unknown,
)

__all__ = ["check", "check_file"]

_STEPS = 200_000
"""How much work a check may take in all, so that it answers within a second or two."""
_GROUP_SIZES = (1, 0, 2)
_ENDLESS = frozenset({Kind.PROGRAM_TOO_LARGE, Kind.RECURSION})
_SYMBOLIC_LIMITS = frozenset(
    {
        Kind.CANNOT_RESHAPE,
        Kind.SYMBOLIC_NUMBER,
        Kind.NOT_A_WHOLE_NUMBER,
        Kind.BAD_SLICE,
        Kind.BAD_EXPONENT,
        Kind.CANNOT_INFER,
    }
)
"""Mistakes that may come from the symbols rather than from the program."""


def check_file(path: str | Path) -> list[Diagnostic]:
    """The mistakes in a file; OSError or UnicodeDecodeError where it cannot be read."""
    place = Path(path)
    return check(Source(str(path), place.read_text("utf-8")), str(place.parent))


def check(source: Source, directory: str | None = None) -> list[Diagnostic]:
    """The mistakes in a source text, in the order of the text; files that it imports are found
    from `directory`."""
    program, broken = parse(source)
    scope, repeated = file_scope(program, source.name, directory)
    found = [*repeated]
    budget = Budget(_STEPS)
    damaged = _hide_damaged(program, scope, broken)
    for name, definition in scope.definitions.items():
        if name in damaged:
            continue
        try:
            found += _check_definition(scope, name, definition, budget)
        except RecursionError:
            found.append(report(Kind.RECURSION, definition.span, name=name, limit=MAXIMUM_DEPTH))
        if budget.spent > budget.limit:
            break
    if any(isinstance(definition, syntax.Broken) for definition in program.definitions):
        # The name may be that of a definition which could not be read.
        found = [diagnostic for diagnostic in found if diagnostic.kind is not Kind.UNKNOWN_NAME]
    return _sorted([*broken, *found], source)


_HEADER = re.compile(r"(?:map|module|train)\s+(\w+)")


def _hide_damaged(
    program: syntax.Program, scope: FileScope, broken: Sequence[Diagnostic]
) -> set[str]:
    """The names of definitions with lines that could not be read; what uses them is not known."""
    places = [diagnostic.span for diagnostic in broken]
    names = {name for name, node in scope.definitions.items() if _is_damaged(node, places)}
    for definition in program.definitions:
        if isinstance(definition, syntax.Broken):
            names.update(_HEADER.findall(definition.span.text))
    for name in names:
        span = program.span
        scope.bind(name, Unknown(Unknowable(report(Kind.CANNOT_INFER, span, name=name))))
    return names


def _is_damaged(node: syntax.Node, places: Iterable[Span]) -> bool:
    if any(node.span.start <= place.start <= node.span.end for place in places):
        return True
    return any(isinstance(inner, syntax.Broken) for inner in syntax.walk(node))


def _sorted(diagnostics: Iterable[Diagnostic], source: Source) -> list[Diagnostic]:
    """Each mistake once, with as few calls around it as possible."""
    best: dict[tuple[Kind, str], Diagnostic] = {}
    for diagnostic in diagnostics:
        key = (diagnostic.kind, str(diagnostic.span))
        known = best.get(key)
        if known is None or len(diagnostic.notes) < len(known.notes):
            best[key] = diagnostic
    return sorted(best.values(), key=lambda d: (d.span.source is not source, d.span.start))


def _check_definition(
    scope: FileScope, name: str, definition: syntax.Definition, budget: Budget
) -> list[Diagnostic]:
    try:
        with elaborating():
            value = find(new_frame(scope, budget), name)
    except DiagnosticsError as error:
        return error.diagnostics
    except Unknowable:
        return []
    if isinstance(definition, syntax.Import | syntax.FromImport):
        return []
    match value:
        case Closure():
            node = value.definition
            generic = bool(node.generics)
            return _attempts(node, lambda trial: _map(value, trial, budget), generic)
        case ModuleClass():
            return _module(value, budget)
        case TrainClass():
            return _train(value, budget)
    return []


Run = Callable[[Trial], list[Diagnostic]]


def _attempts(definition: syntax.Node, run: Run, generic: bool) -> list[Diagnostic]:
    """The mistakes that remain whatever the unknowns are; `generic` tells of a dtype among them."""
    found = _unknown_groups(definition, run, generic)
    names = {node.name for node in syntax.walk(definition) if isinstance(node, syntax.Name)}
    if not found and "none" in names:
        found = _attempt(run, Trial(absent=True))
    if not found and "training" in names:
        found = _attempt(run, Trial(training=True))
    return found


def _unknown_groups(definition: syntax.Node, run: Run, generic: bool) -> list[Diagnostic]:
    """The mistakes whatever dtypes, sizes and groups of sizes are."""
    has_groups = any(isinstance(node, syntax.Spread) for node in syntax.walk(definition))
    for group in _GROUP_SIZES if has_groups else (1,):
        found = _attempt(run, Trial(group=group))
        if any(diagnostic.kind in _ENDLESS for diagnostic in found):
            return found
        if found and generic:
            found = _with_other_dtypes(found, run, group)
        elif generic and group == 1:
            found = _attempt(run, Trial(group=group, dtypes=(ir.DType.F64,)))
        if found:
            return found
    return []


def _attempt(run: Run, trial: Trial) -> list[Diagnostic]:
    """What is wrong with symbolic sizes and, where those may be to blame, with numbers too; told
    with the symbols where it is the same."""
    found = run(trial)
    if not found or not all(_may_be_symbolic(d) for d in found):
        return found
    remaining: list[Diagnostic] = []
    for unit in (SMALL, LARGE):
        remaining = run(replace(trial, symbolic=False, unit=unit, sizes={}))
        if not remaining:
            return []
    places = {(diagnostic.kind, diagnostic.span) for diagnostic in found}
    same = all((diagnostic.kind, diagnostic.span) in places for diagnostic in remaining)
    return found if same else remaining


def _may_be_symbolic(diagnostic: Diagnostic) -> bool:
    facts = " ".join(map(str, diagnostic.facts.values()))
    return diagnostic.kind in _SYMBOLIC_LIMITS or " / " in facts or "*" in facts


def _with_other_dtypes(found: list[Diagnostic], run: Run, group: int) -> list[Diagnostic]:
    """A generic dtype may stand for integers only: nothing is wrong if some choice is accepted."""
    choices = (ir.DType.F32, ir.DType.I32)
    for dtypes in itertools.islice(itertools.product(choices, repeat=2), 1, None):
        if not _attempt(run, Trial(group=group, dtypes=dtypes)):
            return []
    return found


def _map(closure: Closure, trial: Trial, budget: Budget) -> list[Diagnostic]:
    def run(context: bool) -> list[Diagnostic]:
        frame = new_frame(closure.scope, budget)
        return _collect(frame, lambda: _apply(closure, frame, trial, context))

    return _in_some_context(run)


def _in_some_context(run: Callable[[bool], list[Diagnostic]]) -> list[Diagnostic]:
    """What is wrong both where the context asks for the declared result, with any sizes, and where
    it asks for nothing: sizes of a result may follow from it (initializers) or from the body."""
    found = run(True)
    return found if not found or run(False) else []


def _collect(frame: Frame, run: Callable[[], object]) -> list[Diagnostic]:
    """The mistakes of an elaboration, those that it recovered from first."""
    errors: list[DiagnosticError] = []
    frame.session.errors = errors
    try:
        with elaborating():
            run()
    except DiagnosticsError as error:
        errors.extend(DiagnosticError(d) for d in error.diagnostics)
    except Unknowable:
        pass
    return list(
        {id(e.diagnostic): e.diagnostic for e in errors if not isinstance(e, Unknowable)}.values()
    )


def _apply(closure: Closure, frame: Frame, trial: Trial, context: bool) -> None:
    """Elaborates a map on arguments of its declared types; `context` says whether its result is
    asked for in the declared type."""
    frame.session.training = trial.training
    definition = closure.definition
    scope = unknowns(frame, closure.scope, definition, trial)
    arguments = []
    for parameter in _kinds_first(definition.parameters):
        value = stand_in(frame.inside(scope), parameter, trial)
        place = (parameter.type or parameter).span
        scope.names.setdefault(parameter.name.name, Bound(value, parameter.span))
        arguments.append(Argument(parameter.name.name, value, place))
    name = definition.name or definition
    expected = _expected(frame.inside(scope), definition.result) if context else None
    apply(closure, frame, name.span, tuple(arguments), expected)


def _kinds_first(parameters: Iterable[syntax.Parameter]) -> list[syntax.Parameter]:
    """The parameters that types of others may mention come first, as in a call."""
    return sorted(parameters, key=lambda p: p.type is None or not is_kind(p.type))


def _expected(frame: Frame, result: syntax.TypeExpression | None) -> Expected | None:
    """The declared result, which may say more than the arguments, as in initializers."""
    if not isinstance(result, syntax.ValueType) or is_kind(result):
        return None
    type = evaluate_type(result, frame)
    return Expected(type.dtype, type.shape)


def _module(module: ModuleClass, budget: Budget) -> list[Diagnostic]:
    """The mistakes in a module's configuration and maps."""
    definition = module.definition

    def make(trial: Trial, frame: Frame) -> Instance:
        inner = Scope(module.scope, generics=frozenset(g.name for g in definition.generics))
        given = []
        for parameter in definition.parameters:
            value = configured(frame.inside(inner), parameter, trial)
            inner.bind(parameter.name.name, value)
            given.append(Argument(parameter.name.name, value, parameter.span))
        instance = instantiate(module, frame, definition.name.span, tuple(given))
        slots = [slot.declaration.type for slot in instance.slots]
        known = {parameter.name.name for parameter in definition.parameters}
        generics = [generic.name for generic in definition.generics]
        fill(instance.scope, slots, generics, known, trial)
        return instance

    maps = [node for node in definition.members if isinstance(node, syntax.MapDefinition)]
    is_generic = bool(definition.generics)
    found = _attempts(definition, lambda t: _members(module, make, t, budget), is_generic)
    for node in maps:

        def run(trial: Trial, node: syntax.MapDefinition = node) -> list[Diagnostic]:
            return _in_some_context(lambda c: _method(module, node, make, trial, budget, c))

        found += _attempts(definition, run, is_generic or bool(node.generics))
    return found


def _method(
    module: ModuleClass,
    node: syntax.MapDefinition,
    make: Callable[[Trial, Frame], Instance],
    trial: Trial,
    budget: Budget,
    context: bool,
) -> list[Diagnostic]:
    """The mistakes in a map of a module."""
    frame = new_frame(module.scope, budget)

    def elaborate() -> None:
        instance = make(trial, frame)
        title = instance.title if node.name is None else node.name.name
        _apply(Closure(node, instance.scope, title), frame, trial, context)

    return _collect(frame, elaborate)


def _members(
    module: ModuleClass,
    make: Callable[[Trial, Frame], Instance],
    trial: Trial,
    budget: Budget,
) -> list[Diagnostic]:
    """Mistakes outside the maps: configuration, submodules, initializers."""
    frame = new_frame(module.scope, budget)
    seed = ir.Value(ir.TensorType(ir.DType.I64), None, 0, "seed")
    found: list[Diagnostic] = []

    def initialize() -> None:
        instance = make(trial, frame)
        for slot in instance.slots:
            part = new_frame(module.scope, budget)

            def first(slot=slot, part=part) -> None:  # type: ignore[no-untyped-def]
                initial_value(part, slot, slot_type(part, slot), seed, slot.name)

            found.extend(_collect(part, first))

    return [*_collect(frame, initialize), *found]


def _train(train: TrainClass, budget: Budget) -> list[Diagnostic]:
    """The mistakes in a `train` block: its modules, then the step and the metrics; none where only
    a use tells what is trained."""
    if any(parameter.default is None for parameter in train.definition.parameters):
        return []

    def run(trial: Trial) -> list[Diagnostic]:
        frame = new_frame(train.scope, budget)

        def elaborate() -> None:
            trainer = make_trainer_in(frame, train, {})
            inside = frame.inside(trainer.scope)
            values: dict[str, Argument] = {}
            for loss in trainer.losses:
                values = _arguments(inside, loss.closure, trial) | values
            trainer.build_step(inside, values)
            for closure in trainer.metrics().values():
                given, span = _arguments(inside, closure, trial), closure.definition.span
                tensors_in(inside, span, apply(closure, inside, span, tuple(given.values())))

        return _collect(frame, elaborate)

    return _attempts(train.definition, run, generic=False)


def _arguments(frame: Frame, closure: Closure, trial: Trial) -> dict[str, Argument]:
    scope = unknowns(frame, closure.scope, closure.definition, trial)
    arguments = {}
    for parameter in closure.definition.parameters:
        value = stand_in(frame.inside(scope), parameter, trial)
        place = (parameter.type or parameter).span
        arguments[parameter.name.name] = Argument(parameter.name.name, value, place)
    return arguments
