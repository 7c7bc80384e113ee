"""From an unexpected token to the diagnostic that helps most.

Each explanation looks for one common mistake; the first that applies wins, and the plain
"unexpected this, expected that" is the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mapsto.dsl.diagnostics import Diagnostic, Help, Kind, nearest, report
from mapsto.dsl.lalr import Token, UnexpectedToken
from mapsto.dsl.layout import Line
from mapsto.dsl.source import Source, Span
from mapsto.dsl.tables import END

__all__ = ["explain"]

_EXPRESSION = {"NAME", "INTEGER", "FLOAT", "STRING", "(", "[", "-", "not", "if", "true", "false"}
_COMPARISONS = {"==", "!=", "<", "<=", ">", ">="}
_INFIX = {"or", "and", "+", "-", "*", "/", "%", "@", "^", "|->", "<-", *_COMPARISONS}
_TYPE = {"NAME", "map", "module", "("}
_STATEMENTS = {
    "_PARAM": "in a module",
    "_STATE": "in a module",
    "_LOSS": "in a `train` block",
    "_METRIC": "in a `train` block",
    "_GRADIENT": "after the body of a map",
    "let": "in the body of a map",
    "if": "in the body of a map",
    "for": "in the body of a map",
    "elif": "after the block of an `if`",
    "else": "after the block of an `if`",
    "import": "at the top of a file",
    "from": "at the top of a file",
    "module": "at the top of a file",
    "train": "at the top of a file",
}
_KEYWORDS_ELSEWHERE = {
    "def": "map",
    "fn": "map",
    "fun": "map",
    "func": "map",
    "function": "map",
    "class": "module",
    "struct": "module",
    "var": "let",
    "const": "let",
    "val": "let",
    "elseif": "elif",
}
_ENDS_OF_OPERANDS = {"NAME", "INTEGER", "FLOAT", ")", "]"}
_WORDS_ELSEWHERE = {
    "if": "if condition then a else b",
    "is": "==",
    "lambda": "map f(x: f32[n]): ...",
}
_CALLS = {
    "while": "while(condition, step, start)",
    "print": 'print("text {}", x)',
    "assert": 'assert(condition, "message")',
    "loss": "loss name[net](x: f32[n, d]) = ...",
}
_DESCRIPTIONS = {
    "NAME": "a name",
    "INTEGER": "a number",
    "FLOAT": "a number",
    "STRING": "a string",
    "_NEWLINE": "end of line",
    "_INDENT": "an indented block",
    "_DEDENT": "end of the block",
    END: "end of the file",
}
_LONGEST_LIST = 4


@dataclass(frozen=True, slots=True)
class _Mistake:
    """An unexpected token and the line that it is in."""

    source: Source
    token: Token
    expected: frozenset[str]
    line: Line

    @property
    def span(self) -> Span:
        return self.source.span(self.token.start, self.token.end)

    @property
    def index(self) -> int:
        """Position of the token in its line."""
        tokens = self.line.tokens
        return tokens.index(self.token) if self.token in tokens else len(tokens)

    @property
    def first(self) -> Token:
        return self.line.tokens[0]

    @property
    def after_expression(self) -> bool:
        return "^" in self.expected

    def text(self, token: Token) -> str:
        return self.source.text[token.start : token.end]

    def first_span(self) -> Span:
        return self.source.span(self.first.start, self.first.end)


def explain(source: Source, error: UnexpectedToken, line: Line) -> Diagnostic:
    """The diagnostic for a token that the grammar does not allow."""
    mistake = _Mistake(source, error.token, error.expected, line)
    for explanation in _EXPLANATIONS:
        diagnostic = explanation(mistake)
        if diagnostic is not None:
            return diagnostic
    return _plain(mistake)


def _misplaced(mistake: _Mistake) -> Diagnostic | None:
    """A statement that exists, where it does not belong."""
    token = mistake.token
    if mistake.index != 0 or token.type not in _STATEMENTS:
        return None
    facts = {"word": mistake.text(token), "place": _STATEMENTS[token.type]}
    return Diagnostic(Kind.MISPLACED_STATEMENT, mistake.span, facts, help=Help.BELONGS)


def _foreign_statement(mistake: _Mistake) -> Diagnostic | None:
    """A statement of another language."""
    if mistake.index != 1 or mistake.first.type != "NAME":
        return None
    word, span = mistake.text(mistake.first), mistake.first_span()
    if word == "return":
        return report(Kind.FOREIGN_SPELLING, span, help=Help.DROP_RETURN, text=word)
    if word in _KEYWORDS_ELSEWHERE:
        facts = {"text": word, "replacement": _KEYWORDS_ELSEWHERE[word]}
        return Diagnostic(Kind.FOREIGN_SPELLING, span, facts, help=Help.WRITE_INSTEAD)
    return None


def _call_without_brackets(mistake: _Mistake) -> Diagnostic | None:
    """What is a statement elsewhere and has another form here: `print "text"`, `while x > 0:`."""
    replacement = _CALLS.get(mistake.text(mistake.first))
    if mistake.index != 1 or replacement is None or mistake.token.type == "=":
        return None
    facts = {**_plain(mistake).facts, "replacement": replacement}
    return Diagnostic(Kind.UNEXPECTED_TOKEN, mistake.span, facts, help=Help.WRITE_INSTEAD)


def _unknown_statement(mistake: _Mistake) -> Diagnostic | None:
    """Two names in a row at the start of a line: the first may be a misspelt keyword."""
    starts_wrong = mistake.index == 1 and mistake.first.type == "NAME"
    if not starts_wrong or mistake.token.type not in ("NAME", "(", "["):
        return None
    if mistake.after_expression and mistake.token.type != "NAME":
        return None
    word = mistake.text(mistake.first)
    words = ["param", "state", "loss", "metric", "let", "map", "module", "train", "import", "from"]
    suggestion = nearest(word, words)
    if suggestion is None and mistake.after_expression:
        return None
    help = Help.DID_YOU_MEAN if suggestion else None
    facts = {"word": word, "suggestion": suggestion}
    return Diagnostic(Kind.UNKNOWN_STATEMENT, mistake.first_span(), facts, help=help)


def _assignment(mistake: _Mistake) -> Diagnostic | None:
    """`a = e` among statements."""
    if mistake.token.type != "=" or mistake.index != 1 or mistake.first.type != "NAME":
        return None
    name = mistake.text(mistake.first)
    return report(Kind.ASSIGNMENT_WITHOUT_LET, mistake.span, help=Help.WRITE_LET, name=name)


def _assignment_to_part(mistake: _Mistake) -> Diagnostic | None:
    """`x[i] = e` or `r.a = e` among statements."""
    if mistake.token.type != "=" or "_NEWLINE" not in mistake.expected or mistake.index < 2:
        return None
    before = mistake.line.tokens[: mistake.index]
    if before[0].type != "NAME" or before[1].type not in ("[", "."):
        return None
    span = mistake.source.span(before[0].start, before[-1].end)
    return report(Kind.ASSIGNMENT_TO_PART, span, help=Help.NEW_VALUE, text=span.text)


def _foreign_operator(mistake: _Mistake) -> Diagnostic | None:
    """`**` for a power, `->` for a tensor, `+=` and its like."""
    if mistake.index == 0:
        return None
    previous = mistake.line.tokens[mistake.index - 1]
    if mistake.token.type == "->" and previous.type == "]" and mistake.after_expression:
        arrow = {"found": "`->`", "replacement": "|->"}
        return Diagnostic(Kind.UNEXPECTED_TOKEN, mistake.span, arrow, help=Help.WRITE_INSTEAD)
    if previous.end != mistake.token.start:
        return None
    span = mistake.source.span(previous.start, mistake.token.end)
    if previous.type == mistake.token.type == "*":
        facts = {"text": "**", "replacement": "^"}
        return Diagnostic(Kind.FOREIGN_SPELLING, span, facts, help=Help.WRITE_INSTEAD)
    if mistake.token.type == "=" and previous.type in ("+", "-", "*", "/", "%", "@", "^"):
        name = mistake.text(mistake.first)
        facts = {"text": span.text, "name": name}
        return Diagnostic(Kind.FOREIGN_SPELLING, span, facts, help=Help.WRITE_LET)
    return None


def _foreign_word(mistake: _Mistake) -> Diagnostic | None:
    """`a if c else b`, `x is y`, `lambda x: y`."""
    if mistake.index == 0:
        return None
    previous = mistake.line.tokens[mistake.index - 1]
    words = {}
    if previous.type in _ENDS_OF_OPERANDS:
        words[mistake.text(mistake.token)] = mistake.token
    if mistake.token.type in ("NAME", ":"):
        words[mistake.text(previous)] = previous
    for word, replacement in _WORDS_ELSEWHERE.items():
        if word in words:
            span = mistake.source.span(words[word].start, words[word].end)
            facts = {"found": f"`{word}`", "replacement": replacement}
            return Diagnostic(Kind.UNEXPECTED_TOKEN, span, facts, help=Help.WRITE_INSTEAD)
    return None


def _chained_comparison(mistake: _Mistake) -> Diagnostic | None:
    """`a < b < c`."""
    if mistake.token.type not in _COMPARISONS or "and" not in mistake.expected:
        return None
    return report(Kind.CHAINED_COMPARISON, mistake.span, help=Help.SPLIT_COMPARISON)


def _keyword_as_name(mistake: _Mistake) -> Diagnostic | None:
    """A keyword where only a name can stand."""
    wants_name = "NAME" in mistake.expected and "-" not in mistake.expected
    if not wants_name or not mistake.token.type.isalpha() or mistake.token.type in _DESCRIPTIONS:
        return None
    word = mistake.token.type
    return report(Kind.KEYWORD_AS_NAME, mistake.span, help=Help.OTHER_NAME, word=word)


_EXPLANATIONS: tuple[Callable[[_Mistake], Diagnostic | None], ...] = (
    _misplaced,
    _foreign_statement,
    _call_without_brackets,
    _assignment,
    _unknown_statement,
    _foreign_operator,
    _assignment_to_part,
    _foreign_word,
    _chained_comparison,
    _keyword_as_name,
)


def _plain(mistake: _Mistake) -> Diagnostic:
    expected = _alternatives(mistake.expected)
    found = _found(mistake.token, mistake.text(mistake.token))
    return report(Kind.UNEXPECTED_TOKEN, mistake.span, found=found, expected=expected)


def _found(token: Token, text: str) -> str:
    if token.type == "NAME":
        return f"name `{text}`"
    if token.type in ("INTEGER", "FLOAT"):
        return f"number `{text}`"
    return _describe(token.type).removeprefix("an ").removeprefix("a ")


def _describe(terminal: str) -> str:
    if terminal in _DESCRIPTIONS:
        return _DESCRIPTIONS[terminal]
    return f"`{terminal.removeprefix('_').lower()}`"


def _alternatives(expected: Iterable[str]) -> tuple[str, ...]:
    """What could have stood there, in words; nothing if that would be a long list."""
    rest = set(expected) - {"_BROKEN"}
    groups = []
    if "^" in rest:
        rest -= _INFIX | {"(", "[", "."}
    if rest >= {"NAME", "FLOAT", "-"}:
        rest -= _EXPRESSION
        groups.append("an expression")
    elif rest >= _TYPE:
        rest -= _TYPE
        groups.append("a type")
    words = groups + sorted({_describe(terminal) for terminal in rest})
    return tuple(words) if len(words) <= _LONGEST_LIST else ()
