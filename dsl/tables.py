"""The parse table: Lark compiles `grammar.lark`; the result is kept on disk as JSON.

Making the table takes a few tenths of a second and needs Lark imported, reading it takes a few
milliseconds.  The copy on disk is used if it was made of this grammar by this version of the code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mapsto.ir.disk_cache import GRAMMAR as KEPT
from mapsto.ir.disk_cache import key_of

__all__ = ["END", "ParseTable", "Reduction", "build_table", "load_table"]

END = "$END"
"""Type of the token after the last."""

GRAMMAR = Path(__file__).with_name("grammar.lark")
START = "definition"


@dataclass(frozen=True, slots=True)
class Reduction:
    """What the driver does when the right side of a rule is complete.

    origin: name of the rule, in angle brackets.
    size: number of symbols on its right side.
    action: name of the builder's method; None passes the only child on, or gathers the children.
    children: for each argument of the action the index of a symbol, or -1 for an absent optional.
    gathers: whether the rule only gathers its children for the rule that uses it.
    spliced: indices of the symbols whose value is such a gathered list.
    """

    origin: str
    size: int
    action: str | None
    children: tuple[int, ...]
    gathers: bool
    spliced: frozenset[int]


@dataclass(frozen=True, slots=True)
class ParseTable:
    """An LALR(1) automaton.

    `states[state][symbol]` is the next state for a terminal that is shifted and for a rule that
    was reduced, and `-1 - r` where rule `reductions[r]` is to be reduced.  A rule's name is in
    angle brackets; a terminal is named by its text if it has only one (`"let"`, `"->"`), else by
    its name in the grammar (`"NAME"`).
    `rules` are the names of rules, `literals` the terminals with one text, `patterns` the regular
    expressions of the others.
    """

    start: int
    end: int
    states: Sequence[Mapping[str, int]]
    reductions: Sequence[Reduction]
    rules: frozenset[str]
    literals: frozenset[str]
    patterns: Mapping[str, str]


@cache
def load_table() -> ParseTable:
    """The table of the language's grammar."""
    grammar = GRAMMAR.read_text(encoding="utf-8")
    key = key_of(grammar, Path(__file__).read_bytes())
    kept = KEPT.load(key)
    if kept is not None:
        return _decode(json.loads(kept))
    data = build_table(grammar)
    KEPT.save(key, json.dumps(data, separators=(",", ":")).encode())
    return _decode(data)


def build_table(grammar: str) -> dict[str, Any]:
    """The table of a grammar, as plain lists and dicts.

    Raises:
        lark.exceptions.GrammarError: the grammar is not LALR(1).
    """
    from lark import Lark

    lark = Lark(grammar, parser="lalr", lexer="basic", start=START, maybe_placeholders=True)
    names = {rule.origin.name: _rule_name(rule) for rule in lark.rules}
    names |= {
        terminal.name: terminal.pattern.value if terminal.pattern.type == "str" else terminal.name
        for terminal in lark.terminals
    }
    numbers = {rule: number for number, rule in enumerate(lark.rules)}
    table = lark.parser.parser._parse_table
    return {
        "start": table.start_states[START],
        "end": table.end_states[START],
        "states": [
            _encode_state(table.states[state], names, numbers) for state in range(len(table.states))
        ],
        "rules": [_encode_rule(rule) for rule in lark.rules],
        "literals": [names[t.name] for t in lark.terminals if t.pattern.type == "str"],
        "patterns": {
            t.name: t.pattern.to_regexp() for t in lark.terminals if t.pattern.type == "re"
        },
    }


def _encode_state(
    actions: Mapping[str, tuple[Any, Any]], names: Mapping[str, str], numbers: Mapping[Any, int]
) -> dict[str, int]:
    return {
        names.get(symbol, symbol): target if isinstance(target, int) else -1 - numbers[target]
        for symbol, (_, target) in actions.items()
    }


def _rule_name(rule: Any) -> str:
    """Name of what a rule makes, apart from all names of terminals."""
    return f"<{rule.origin.name}>"


def _encode_rule(rule: Any) -> dict[str, Any]:
    symbols = rule.expansion
    kept = [not (s.is_term and s.filter_out) or rule.options.keep_all_tokens for s in symbols]
    children = _children(kept, rule.options.empty_indices)
    gathers = rule.origin.name.startswith("_")
    named = rule.options.template_source or rule.origin.name
    passes = gathers or (rule.options.expand1 and not rule.alias and len(children) == 1)
    return {
        "origin": _rule_name(rule),
        "size": len(symbols),
        "action": None if passes else str(rule.alias or named),
        "children": children,
        "gathers": gathers,
        "spliced": [i for i, s in enumerate(symbols) if not s.is_term and s.name.startswith("_")],
    }


def _children(kept: Sequence[bool], absent: Sequence[bool]) -> list[int]:
    """Indices of the kept symbols, with -1 where Lark marks an optional as absent."""
    indices = iter(range(len(kept)))
    if not absent:
        return [index for index in indices if kept[index]]
    order = [-1 if is_absent else next(indices) for is_absent in absent]
    return [index for index in order if index < 0 or kept[index]]


def _decode(data: Mapping[str, Any]) -> ParseTable:
    reductions = [
        Reduction(
            rule["origin"],
            rule["size"],
            rule["action"],
            tuple(rule["children"]),
            rule["gathers"],
            frozenset(rule["spliced"]),
        )
        for rule in data["rules"]
    ]
    return ParseTable(
        data["start"],
        data["end"],
        data["states"],
        reductions,
        frozenset(rule.origin for rule in reductions),
        frozenset(data["literals"]),
        data["patterns"],
    )
