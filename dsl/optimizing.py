"""Which optimizer changes a parameter, and the change.

The `optimizer` of a `train` block is a module with a map from a parameter and its gradient, or
trees of them, to what is new; or a list of pairs `(which, optimizer)` of which the first that fits
is taken.  `which` is a pattern of paths such as `"layers.*.bias"`, a module, or a list of those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import NoReturn

from mapsto.dsl.diagnostics import Help, Kind
from mapsto.dsl.evaluation import apply
from mapsto.dsl.frame import Frame, SlotKey, fail
from mapsto.dsl.instances import Instance, copied, instances_in
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import describe
from mapsto.dsl.trees import new_parameters
from mapsto.dsl.values import Argument, Closure, Group, ParameterTree, Tensor, Text, Value

__all__ = ["Optimizers"]


@dataclass(frozen=True, slots=True)
class _Choice:
    """An optimizer, and the patterns and modules whose parameters it is for."""

    patterns: tuple[str, ...]
    modules: frozenset[Instance]
    template: Instance

    def fits(self, key: SlotKey, path: str) -> bool:
        """Whether it is for this parameter."""
        return key[0] in self.modules or any(fnmatchcase(path, p) for p in self.patterns)


class Optimizers:
    """The optimizer of a block; `span` is where it was given.

    An optimizer of tensors has states of its own for each parameter, one of trees sees all that it
    is for (`trees.py`).  Raises DiagnosticError where the value is no optimizer.
    """

    def __init__(self, value: Value, span: Span) -> None:
        self.span = span
        self._choices = list(_choices(value, span))
        self._used: dict[int, Instance] = {}
        """A copy of each optimizer that was used, by its number among the choices."""

    def roots(self) -> list[tuple[str, Instance]]:
        """The optimizers that were used, by the prefix of the paths of their states."""
        alone = len(self._choices) == 1
        used = self._used.items()
        return [("optimizer" if alone else f"optimizer.{i}", optimizer) for i, optimizer in used]

    def check_patterns(self, paths: Sequence[str]) -> None:
        """Reports a pattern that none of the paths of parameters fits."""
        for pattern in (p for choice in self._choices for p in choice.patterns):
            if pattern != "*" and not any(fnmatchcase(path, pattern) for path in paths):
                fail(Kind.UNUSED_PATTERN, self.span, pattern=pattern)

    def update(
        self, frame: Frame, gradients: Mapping[SlotKey, Tensor], paths: Mapping[SlotKey, str]
    ) -> None:
        """Gives parameters the values that the optimizers make of their gradients."""
        for number, choice in enumerate(self._choices):
            own = {k: g for k, g in gradients.items() if self._chosen(k, paths[k]) == number}
            if own:
                if number not in self._used:
                    self._used[number] = copied(choice.template, frame)
                self._update(frame, self._used[number], own, {key: paths[key] for key in own})

    def evaluated(self) -> Iterator[tuple[SlotKey, Closure]]:
        """For each parameter that has one, the map that gives what evaluation takes in its place:
        `weights` of an optimizer that keeps averages."""
        for _, optimizer in self.roots():
            for _, part in instances_in(optimizer):
                for key, (_, copy) in part.copies.items():
                    inner = (found.scope.names.get("weights") for _, found in instances_in(copy))
                    maps = (b.value for b in inner if b and isinstance(b.value, Closure))
                    yield from ((key, closure) for closure in islice(maps, 1))

    def _update(
        self,
        frame: Frame,
        optimizer: Instance,
        gradients: Mapping[SlotKey, Tensor],
        paths: Mapping[SlotKey, str],
    ) -> None:
        session, place = frame.session, self.span
        old = {key: Tensor(session.current(key)) for key in gradients}
        trees = (ParameterTree(None, old, paths), ParameterTree(None, dict(gradients), paths))
        given = tuple([Argument(None, tree, place) for tree in trees])
        new = new_parameters(frame, place, apply(optimizer, frame, place, given), trees[0])
        for key, tensor in new.items():
            if tensor.value is not old[key].value:
                session.renewed[key] = tensor.value

    def _chosen(self, key: SlotKey, path: str) -> int:
        for number, choice in enumerate(self._choices):
            if choice.fits(key, path):
                return number
        return fail(Kind.NO_OPTIMIZER_FOR, self.span, help=Help.ADD_PATTERN, name=path)


def _choices(value: Value, span: Span) -> Iterator[_Choice]:
    if not isinstance(value, Group) or not value.is_list:
        yield _Choice(("*",), frozenset(), _checked(value, span))
        return
    for item in value.items:
        if not isinstance(item, Group) or item.is_list or len(item.items) != 2:
            _not_a_pair(item, span)
        which, optimizer = item.items
        parts = which.items if isinstance(which, Group) else (which,)
        for part in parts:
            if not isinstance(part, Text | Instance):
                _not_a_pair(item, span)
        patterns = tuple([part.value for part in parts if isinstance(part, Text)])
        modules = [inner for part in parts for _, inner in instances_in(part)]
        yield _Choice(patterns, frozenset(modules), _checked(optimizer, span))


def _not_a_pair(item: Value, span: Span) -> NoReturn:
    reason = "it is no pair of parameters and an optimizer"
    fail(Kind.NOT_AN_OPTIMIZER, span, help=Help.OPTIMIZER_PAIR, name=describe(item), reason=reason)


def _checked(value: Value, span: Span) -> Instance:
    """The value, if it is a module that can change a parameter."""
    if not isinstance(value, Instance) or value.call is None:
        found = describe(value)
        fail(Kind.NOT_AN_OPTIMIZER, span, name=found, reason="it is not a module with a call")
    if len(value.call.definition.parameters) != 2:
        reason = "its map does not take a parameter and a gradient"
        fail(Kind.NOT_AN_OPTIMIZER, span, name=f"`{value.title}`", reason=reason)
    return value
