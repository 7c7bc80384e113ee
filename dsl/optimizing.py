"""Which optimizer changes a parameter, and the change.

The `optimizer` of a `train` block is a module with a map from a parameter and its gradient to the
new parameter, or a list of pairs `(which, optimizer)` of which the first that fits is taken.
`which` is a pattern of paths such as `"layers.*.bias"`, a module, or a list of those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NoReturn

from mapsto.dsl.diagnostics import Help, Kind
from mapsto.dsl.evaluation import apply
from mapsto.dsl.frame import Frame, SlotKey, fail
from mapsto.dsl.instances import Instance, copied, instances_in
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import coerce, describe
from mapsto.dsl.values import Argument, Group, Tensor, Text, Value

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
    """The optimizer of a block, with a copy for each parameter that it has changed.

    `span` is where it was given.  Raises DiagnosticError where the value is no optimizer.
    """

    def __init__(self, value: Value, span: Span) -> None:
        self.span = span
        self._choices = list(_choices(value, span))
        self._copies: dict[SlotKey, Instance] = {}

    def copies(self) -> dict[SlotKey, Instance]:
        """The optimizer of each parameter that was changed so far."""
        return self._copies

    def check_patterns(self, paths: Sequence[str]) -> None:
        """Reports a pattern that none of the paths of parameters fits."""
        for pattern in (p for choice in self._choices for p in choice.patterns):
            if pattern != "*" and not any(fnmatchcase(path, pattern) for path in paths):
                fail(Kind.UNUSED_PATTERN, self.span, pattern=pattern)

    def renewed(self, frame: Frame, key: SlotKey, path: str, old: Tensor, by: Tensor) -> Tensor:
        """The new value of a parameter, by its gradient."""
        if key not in self._copies:
            self._copies[key] = copied(self._template(key, path), frame)
        place = self.span
        given = (Argument(None, old, place), Argument(None, by, place))
        value = apply(self._copies[key], frame, place, given)
        return coerce(frame, place, value, old.type, what=f"the new value of `{key[1]}`")

    def _template(self, key: SlotKey, path: str) -> Instance:
        for choice in self._choices:
            if choice.fits(key, path):
                return choice.template
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
