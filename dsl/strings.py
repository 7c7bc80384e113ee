"""What stands in strings: escapes, and the text of documentation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

from mapsto.dsl.syntax import Block, Docstring, ExpressionStatement, String

__all__ = ["clean_docstring", "split_docstring", "unescaped"]

_ESCAPE = re.compile(r"\\(?:u\{([0-9a-fA-F]{1,6})\}|(.))", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "0": "\0"}


def unescaped(text: str, report: Callable[[int, int, str], None]) -> str:
    """The text between quotes with its escapes replaced; an unknown one is reported, with where it
    begins and ends, and stays."""

    def replace(match: re.Match[str]) -> str:
        code, letter = match.groups()
        if code and int(code, 16) <= 0x10FFFF:
            return chr(int(code, 16))
        if letter in _ESCAPES:
            return _ESCAPES[letter]
        report(match.start(), match.end(), match.group())
        return match.group()

    return re.sub(r"\r\n?", "\n", _ESCAPE.sub(replace, text))


def clean_docstring(text: str) -> str:
    """The text of a docstring without its indentation and the blanks around it."""
    lines = inspect.cleandoc(text).split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()


def split_docstring(body: Block) -> tuple[Docstring | None, Block]:
    """The documentation of a map, a string before its other statements, and these."""
    first, *rest = body.statements
    if not rest or not isinstance(first, ExpressionStatement):
        return None, body
    if not isinstance(first.value, String):
        return None, body
    docstring = Docstring(first.span, clean_docstring(first.value.value))
    return docstring, Block(rest[0].span.to(rest[-1].span), tuple(rest))
