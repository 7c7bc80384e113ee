"""The sentences of diagnostics: the one place that turns kinds and facts into words.

A sentence is a template; `{name}` stands for a fact.  `{names:or}` lists the items of a tuple as
alternatives, `{names:and}` as a sequence.  A sentence is lower case and has no final period.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from mapsto.dsl.diagnostics import Diagnostic, Fact, Help, Kind, Note, NoteKind

__all__ = ["HELPS", "LABELS", "MESSAGES", "NOTES", "describe", "help_text", "label", "note_text"]

MESSAGES: dict[Kind, str] = {
    Kind.SOURCE_TOO_LONG: "the file has more than {limit} characters",
    Kind.UNREADABLE_FILE: "cannot read `{path}`: {reason}",
    Kind.UNEXPECTED_CHARACTER: "unexpected character {character}",
    Kind.UNTERMINATED_STRING: "the string is not closed",
    Kind.BAD_ESCAPE: "unknown escape `{text}` in a string",
    Kind.BAD_NUMBER: "`{text}` is not a number",
    Kind.NUMBER_TOO_LARGE: "the number is too large for {type}",
    Kind.TAB_INDENTATION: "tab in the indentation",
    Kind.UNEXPECTED_INDENT: "unexpected indentation",
    Kind.INCONSISTENT_DEDENT: "the indentation matches no line above",
    Kind.MISSING_BLOCK: "expected an indented block after `:`",
    Kind.UNCLOSED_BRACKET: "`{bracket}` is never closed",
    Kind.UNMATCHED_BRACKET: "`{bracket}` closes nothing",
    Kind.MISMATCHED_BRACKET: "expected `{closing}`, found `{bracket}`",
    Kind.NESTED_TOO_DEEPLY: "too deeply nested",
    Kind.TOO_MANY_ERRORS: "{limit} errors; the rest of the file was not checked",
    Kind.UNEXPECTED_TOKEN: "unexpected {found}",
    Kind.UNKNOWN_STATEMENT: "unknown statement `{word}`",
    Kind.MISPLACED_STATEMENT: "`{word}` cannot stand here",
    Kind.MISSING_COLON: "expected `:` before the indented block",
    Kind.KEYWORD_AS_NAME: "`{word}` is a keyword and cannot be a name",
    Kind.CHAINED_COMPARISON: "comparisons cannot be chained",
    Kind.ASSIGNMENT_WITHOUT_LET: "`{name}` is assigned without `let`",
    Kind.FOREIGN_SPELLING: "the language has no `{text}`",
    Kind.BAD_BINDER: "expected the name of an index before `|->`",
    Kind.MISPLACED_SPREAD: "`...` cannot stand in a list",
    Kind.BAD_UPDATE_TARGET: "only a state can be updated with `<-`",
    Kind.POSITIONAL_AFTER_NAMED: "positional argument after a named one",
    Kind.UNTYPED_PARAMETER: "parameter `{name}` has no type",
    Kind.MISPLACED_DOCSTRING: "a string here has no effect",
    Kind.UNNAMED_IMPORT: "the imported file `{path}` gets no name",
}

LABELS: dict[Kind, str] = {
    Kind.UNEXPECTED_TOKEN: "expected {expected:or}",
    Kind.NESTED_TOO_DEEPLY: "more than {limit} levels",
}
"""What stands beside the underline; nothing if a fact is missing or an empty tuple."""

NOTES: dict[NoteKind, str] = {
    NoteKind.OPENED_HERE: "`{bracket}` was opened here",
    NoteKind.DIMENSION_FROM: "`{name}` is {value} here",
    NoteKind.VALUE_HAS_TYPE: "this has type `{type}`",
    NoteKind.DEFINED_HERE: "`{name}` is defined here",
    NoteKind.CALLED_HERE: "in this call of `{name}`",
}

HELPS: dict[Help, str] = {
    Help.DID_YOU_MEAN: "did you mean `{suggestion}`?",
    Help.USE_SPACES: "indent with four spaces",
    Help.CLOSE_STRING: "end it with `{quotes}`",
    Help.DOUBLE_QUOTES: 'write strings with double quotes: "text"',
    Help.DOUBLE_BACKSLASH: "for a backslash write `\\\\`",
    Help.ALIGN: "give it the indentation of the statement that it follows",
    Help.ADD_BLOCK: "indent the lines that belong to it, or write one expression after the `:`",
    Help.ADD_COLON: "end the header with `:`",
    Help.ADD_ALIAS: 'write `import "{path}" as name`, or `from "{path}" import name`',
    Help.OTHER_NAME: "choose another name, such as `{word}_`",
    Help.SPLIT_EXPRESSION: "name parts of it with `let`",
    Help.SPLIT_COMPARISON: "write `a < b and b < c`",
    Help.WRITE_LET: "write `let {name} = ...` for a new value, `{name} <- ...` to update a state",
    Help.DROP_RETURN: "the last expression of a body is its value",
    Help.ONE_STATEMENT_A_LINE: "write each statement on a line of its own",
    Help.BELONGS: "`{word}` belongs {place}",
    Help.WRITE_INSTEAD: "write `{replacement}`",
    Help.WRITE_BINDERS: "an index lambda is written `[...s, i] |-> x[...s, i]`",
    Help.UPDATE_STATE: "write the name of a state before `<-`, for a comparison `a < -b`",
    Help.POSITIONAL_FIRST: "write positional arguments first",
    Help.ADD_TYPE: "write `{name}: f32[n]`, or a kind such as `int` or `map`",
}


def describe(diagnostic: Diagnostic) -> str:
    """The sentence that says what is wrong."""
    return _fill(MESSAGES[diagnostic.kind], diagnostic.facts)


def label(diagnostic: Diagnostic) -> str:
    """The words beside the underlined span; empty if the message says it all."""
    return _fill_if_known(LABELS.get(diagnostic.kind, ""), diagnostic.facts)


def note_text(note: Note) -> str:
    """The words beside a note's span."""
    return _fill(NOTES[note.kind], note.facts)


def help_text(diagnostic: Diagnostic) -> str:
    """How to repair it; empty if there is no good guess."""
    if diagnostic.help is None:
        return ""
    return _fill_if_known(HELPS[diagnostic.help], diagnostic.facts)


class _Formatter(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, tuple):
            return _list(value, format_spec or "and")
        return str(value)


def _fill(template: str, facts: Mapping[str, Fact]) -> str:
    return _Formatter().vformat(template, (), facts)


def _fill_if_known(template: str, facts: Mapping[str, Fact]) -> str:
    names = [name for _, name, _, _ in _Formatter().parse(template) if name]
    known = all(facts.get(name) not in (None, ()) for name in names)
    return _fill(template, facts) if known else ""


def _list(items: Sequence[Any], word: str) -> str:
    """`a, b or c`."""
    if len(items) < 2:
        return "".join(map(str, items))
    return f"{', '.join(map(str, items[:-1]))} {word} {items[-1]}"
