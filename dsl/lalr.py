"""The driver of the parse table: tokens in, what the builder's actions return out.

Aho, Lam, Sethi, Ullman, "Compilers: Principles, Techniques, and Tools", section 4.5; recovery by
dropping what a mistaken line put on the stack ("panic mode", section 4.8).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from mapsto.dsl.tables import END, ParseTable, Reduction

__all__ = ["MAXIMUM_DEPTH", "Automaton", "Token", "TooDeep", "UnexpectedToken"]

MAXIMUM_DEPTH = 120
"""How deep a tree may be, so that code which walks it may use recursion."""


class Token(NamedTuple):
    """A terminal of the grammar at offsets `start` to `end` of the source."""

    type: str
    start: int
    end: int


class UnexpectedToken(Exception):
    """A token that no continuation of the text before it allows; `expected` are those allowed."""

    def __init__(self, token: Token, expected: frozenset[str]) -> None:
        super().__init__(token.type)
        self.token = token
        self.expected = expected


class TooDeep(Exception):
    """The tree is deeper than `MAXIMUM_DEPTH` at this token."""

    def __init__(self, token: Token) -> None:
        super().__init__(token.type)
        self.token = token


class _Entry(NamedTuple):
    """What the stack holds for a symbol: state after it, value, offsets, depth of its tree."""

    state: int
    value: Any
    start: int
    end: int
    depth: int


class Automaton:
    """A parse in progress.

    An action is called with the offsets of its text and the values of the rule's children.
    """

    def __init__(self, table: ParseTable, actions: Mapping[str, Callable[..., Any]]) -> None:
        self._table = table
        self._actions = actions
        self._stack = [_Entry(table.start, None, -1, -1, 0)]

    def feed(self, token: Token) -> None:
        """Take the next token.

        Raises:
            UnexpectedToken: no sentence of the grammar continues so.
            TooDeep: the tree would be too deep.
        """
        while (target := self._table.states[self._stack[-1].state].get(token.type)) is not None:
            if target >= 0:
                self._stack.append(_Entry(target, token, token.start, token.end, 0))
                return
            self._reduce(self._table.reductions[-1 - target], token)
            if token.type == END and self._stack[-1].state == self._table.end:
                return
        raise UnexpectedToken(token, self.expected())

    @property
    def result(self) -> Any:
        """The value of the start symbol, after the END token was fed."""
        return self._stack[-1].value

    def expected(self) -> frozenset[str]:
        """The terminals that may come next."""
        symbols = self._table.states[self._stack[-1].state]
        return frozenset(symbol for symbol in symbols if self.accepts(symbol))

    def accepts(self, terminal: str) -> bool:
        """Whether a terminal may come next, after whatever reductions it causes."""
        if terminal in self._table.rules:
            return False
        states = [entry.state for entry in self._stack]
        while (target := self._table.states[states[-1]].get(terminal)) is not None and target < 0:
            rule = self._table.reductions[-1 - target]
            del states[-rule.size :]
            states.append(self._table.states[states[-1]][rule.origin])
            if terminal == END and states[-1] == self._table.end:
                return True
        return target is not None

    def drop_from(self, offset: int) -> None:
        """Forget everything that starts at an offset or after it."""
        while self._stack[-1].start >= offset:
            self._stack.pop()

    def _reduce(self, rule: Reduction, token: Token) -> None:
        entries = self._stack[-rule.size :]
        del self._stack[-rule.size :]
        start, end = entries[0].start, entries[-1].end
        depth = max(entry.depth for entry in entries)
        if rule.action is None:
            value = _gather(rule, entries) if rule.gathers else entries[rule.children[0]].value
        else:
            arguments = _values(entries, rule.children, rule.spliced)
            value = self._actions[rule.action](start, end, *arguments)
            depth += 1
        if depth > MAXIMUM_DEPTH:
            raise TooDeep(token)
        target = self._table.states[self._stack[-1].state][rule.origin]
        self._stack.append(_Entry(target, value, start, end, depth))


def _values(
    entries: Sequence[_Entry], children: Sequence[int], spliced: Collection[int]
) -> list[Any]:
    values: list[Any] = []
    for index in children:
        if index in spliced:
            values.extend(entries[index].value)
        else:
            values.append(entries[index].value if index >= 0 else None)
    return values


def _gather(rule: Reduction, entries: Sequence[_Entry]) -> list[Any]:
    """The children as a list.  A list that is first is extended in place, so that n items take
    linear time."""
    if not rule.children or rule.children[0] not in rule.spliced:
        return _values(entries, rule.children, rule.spliced)
    values: list[Any] = entries[rule.children[0]].value
    values.extend(_values(entries, rule.children[1:], rule.spliced))
    return values
