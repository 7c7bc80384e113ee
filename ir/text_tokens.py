"""Tokens of the text form, and a cursor over them."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from mapsto.ir.errors import TextError

__all__ = ["Cursor", "Token"]

DEEPEST_NESTING = 50
"""Levels of brackets; deeper text is refused rather than run into Python's recursion limit."""

_T = TypeVar("_T")
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_TOKEN = re.compile(
    rf"""
      (?P<space>(?:\s|//[^\n]*)+)
    | (?P<value>%(?:[A-Za-z_][A-Za-z0-9_.]*|[0-9]+|{_STRING})(?:\$[0-9]+)?)
    | (?P<symbol>@(?:[A-Za-z_][A-Za-z0-9_.]*|{_STRING}))
    | (?P<name>[A-Za-z_][A-Za-z0-9_.]*)
    | (?P<float>[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+))
    | (?P<int>[0-9]+)
    | (?P<string>{_STRING})
    | (?P<quoted>`(?:[^`\\\n]|\\.)*`)
    | (?P<punctuation>->|[()\[\]{{}}<>:,=*/+-])
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text: its kind, the text, and where it begins."""

    kind: str
    text: str
    start: int


class Cursor:
    """A position in the tokens of a text."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self._lines = [m.end() for m in re.finditer("\n", text)]
        self.tokens = self._tokenize()
        self.position = 0
        self.depth = 0

    @property
    def token(self) -> Token:
        """The next token; of kind `end` at the end."""
        return self.tokens[self.position]

    def fail(self, message: str, token: Token | None = None) -> NoReturn:
        """Raises TextError at a token, the next one unless told."""
        start = (token or self.token).start
        line = bisect.bisect_right(self._lines, start)
        column = start - (self._lines[line - 1] if line else 0) + 1
        raise TextError(f"{self.file}:{line + 1}:{column}: {message}")

    def is_next(self, text: str) -> bool:
        """Whether the next token is this punctuation or name."""
        return self.token.text == text and self.token.kind in ("punctuation", "name")

    def accept(self, text: str) -> bool:
        """Takes the next token if it is this punctuation or name."""
        found = self.is_next(text)
        self.position += found
        return found

    def expect(self, text: str) -> Token:
        """Takes this punctuation or name; TextError where something else stands."""
        if not self.is_next(text):
            self.fail(f"expected `{text}`, found {self._found()}")
        return self.take()

    def expect_kind(self, kind: str, description: str) -> Token:
        """Takes a token of a kind; TextError where something else stands."""
        if self.token.kind != kind:
            self.fail(f"expected {description}, found {self._found()}")
        return self.take()

    def take(self) -> Token:
        """Takes the next token."""
        token = self.token
        self.position += token.kind != "end"
        return token

    def bracketed(self, open_: str, close: str, item: Callable[[], _T]) -> list[_T]:
        """Takes items with commas between brackets."""
        self.expect(open_)
        self.enter()
        items: list[_T] = []
        while not self.is_next(close):
            items.append(item())
            if not self.accept(","):
                break
        self.expect(close)
        self.leave()
        return items

    def enter(self) -> None:
        """One level of nesting deeper; TextError where it is too deep."""
        self.depth += 1
        if self.depth > DEEPEST_NESTING:
            self.fail(f"more than {DEEPEST_NESTING} levels of nesting")

    def leave(self) -> None:
        """One level of nesting back."""
        self.depth -= 1

    def unquoted(self, token: Token, text: str) -> str:
        """What a text in quotes stands for; other text as it is."""
        if text[:1] not in ('"', "`"):
            return text
        try:
            return str(json.loads(f'"{text[1:-1]}"'))
        except ValueError:
            self.fail("wrong escape in quotes", token)

    def _found(self) -> str:
        return "the end of the text" if self.token.kind == "end" else f"`{self.token.text}`"

    def _tokenize(self) -> list[Token]:
        tokens: list[Token] = []
        position = 0
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            if match is None or match.lastgroup is None:
                character = self.text[position]
                self.fail(f"unexpected character {character!r}", Token("", "", position))
            if match.lastgroup != "space":
                tokens.append(Token(match.lastgroup, match.group(), position))
            position = match.end()
        return [*tokens, Token("end", "", len(self.text))]
