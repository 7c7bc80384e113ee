"""Which optimizer changes a parameter, and the change.

The `optimizer` of a `train` block is a module with a map from a parameter and its gradient to the
new parameter, or a list of pairs `(which, optimizer)` of which the first that fits is taken.
`which` is a pattern of paths such as `"layers.*.bias"`, a module, or a list of those.  A module
whose map takes trees sees all parameters that it is for at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NoReturn

from mapsto.dsl import syntax
from mapsto.dsl.diagnostics import Help, Kind
from mapsto.dsl.evaluation import apply
from mapsto.dsl.frame import Frame, SlotKey, fail
from mapsto.dsl.instances import Instance, copied, instances_in
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import coerce, describe
from mapsto.dsl.trees import new_parameters
from mapsto.dsl.values import Argument, Group, ParameterTree, Tensor, Text, Value

__all__ = ["Optimizers"]


@dataclass(frozen=True, slots=True)
class _Choice:
    """An optimizer, and the patterns and modules whose parameters it is for."""

    patterns: tuple[str, ...]
    modules: frozenset[Instance]
    template: Instance

    @property
    def over_trees(self) -> bool:
        """Whether it takes all its parameters at once."""
        assert self.template.call is not None
        type = self.template.call.definition.parameters[0].type
        return isinstance(type, syntax.ValueType) and type.name.name == "tree"

    def fits(self, key: SlotKey, path: str) -> bool:
        """Whether it is for this parameter."""
        return key[0] in self.modules or any(fnmatchcase(path, p) for p in self.patterns)


class Optimizers:
    """The optimizer of a block, with a copy for each parameter that it has changed.

    `span` is where it was given.  Raises DiagnosticError where the value is no optimizer.
    """

    def __init__(self, value: Value, span: Span) -> None:
        self.span = span
        self._choices = list(_choices(value, span))
        self._copies: dict[SlotKey, Instance] = {}
        self._wholes: dict[int, Instance] = {}
        """The optimizers over trees that were used, by their number among the choices."""

    def roots(self, paths: Mapping[SlotKey, str]) -> list[tuple[str, Instance]]:
        """The optimizers of what was changed so far, with the prefix of the paths of their states:
        the path of the parameter that is theirs alone."""
        own = [key for key in paths if key in self._copies]
        found = [(f"optimizer.{paths[key]}", self._copies[key]) for key in own]
        alone = len(self._choices) == 1
        wholes = self._wholes.items()
        return found + [("optimizer" if alone else f"optimizer.{i}", w) for i, w in wholes]

    def check_patterns(self, paths: Sequence[str]) -> None:
        """Reports a pattern that none of the paths of parameters fits."""
        for pattern in (p for choice in self._choices for p in choice.patterns):
            if pattern != "*" and not any(fnmatchcase(path, pattern) for path in paths):
                fail(Kind.UNUSED_PATTERN, self.span, pattern=pattern)

    def renewed(
        self,
        frame: Frame,
        old: Mapping[SlotKey, Tensor],
        by: Mapping[SlotKey, Tensor],
        paths: Mapping[SlotKey, str],
    ) -> dict[SlotKey, Tensor]:
        """The new values of parameters, by their gradients."""
        chosen = {key: self._choice(key, paths[key]) for key in old}
        new: dict[SlotKey, Tensor] = {}
        for number, choice in enumerate(self._choices):
            own = {key: paths[key] for key in old if chosen[key] == number}
            if own and choice.over_trees:
                new |= self._renewed_whole(frame, number, old, by, own)
        for key in old:
            if key not in new:
                new[key] = self._renewed_alone(frame, chosen[key], key, old[key], by[key])
        return new

    def _renewed_alone(
        self, frame: Frame, number: int, key: SlotKey, old: Tensor, by: Tensor
    ) -> Tensor:
        """The new value of a parameter by an optimizer of its own."""
        if key not in self._copies:
            self._copies[key] = copied(self._choices[number].template, frame)
        value = self._apply(self._copies[key], frame, old, by)
        return coerce(frame, self.span, value, old.type, what=f"the new value of `{key[1]}`")

    def _renewed_whole(
        self,
        frame: Frame,
        number: int,
        old: Mapping[SlotKey, Tensor],
        by: Mapping[SlotKey, Tensor],
        paths: Mapping[SlotKey, str],
    ) -> dict[SlotKey, Tensor]:
        """The new values of the parameters that have these paths, by an optimizer over trees."""
        if number not in self._wholes:
            self._wholes[number] = copied(self._choices[number].template, frame)
        trees = [ParameterTree(None, {k: of[k] for k in paths}, paths) for of in (old, by)]
        value = self._apply(self._wholes[number], frame, *trees)
        return new_parameters(frame, self.span, value, trees[0])

    def _apply(self, optimizer: Instance, frame: Frame, old: Value, by: Value) -> Value:
        given = (Argument(None, old, self.span), Argument(None, by, self.span))
        return apply(optimizer, frame, self.span, given)

    def _choice(self, key: SlotKey, path: str) -> int:
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
