"""Writes docs/library.md, the list of the standard library, from its docstrings.

python docs/make_library.py
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from mapsto.dsl.builtins import builtins
from mapsto.dsl.library import library_files
from mapsto.dsl.program import Program
from mapsto.dsl.values import Builtin, Effect

__all__ = ["PAGE", "library_page"]

PAGE = Path(__file__).with_name("library.md")

_INTRODUCTION = """\
# The standard library

Written by `docs/make_library.py` from the docstrings in `dsl/stdlib/`; edit those.

All names are in scope without an import, and a definition of your own shadows them. `T` and `I`
stand for any dtype that fits, `...s` for any number of dimensions.
"""

_FUNCTIONS = """
## Functions that the compiler knows

Elementwise functions are the ops of the IR under their own names; the others choose, move or reduce
elements, or work on maps. [The language reference](language.md) shows their use.

| name | what |
|---|---|
"""


def library_page() -> str:
    """The text of the page."""
    files = (_file(name, text) for name, text in library_files().items())
    return _INTRODUCTION + "".join(files) + _FUNCTIONS + "".join(_functions())


def _file(name: str, text: str) -> str:
    program = Program.loads(text, f"{name}.mto")
    title = program.syntax.docstring
    summary = "" if title is None else f"\n{_paragraphs(title.text)}\n"
    return f"\n## {name}\n{summary}" + "".join(
        f"\n### {definition}\n\n{_entry(program, definition)}" for definition in program.names()
    )


def _entry(program: Program, name: str) -> str:
    documentation = _paragraphs(program.docstring(name))
    definition = program.definition(name)
    assert definition is not None
    if not documentation:
        return f"`{definition.span.text.strip()}`\n"
    return f"`{program.signature(name)}`\n\n{documentation}\n"


def _paragraphs(text: str) -> str:
    """A docstring without its indentation, one line a paragraph; `*` is no emphasis."""
    first, _, rest = text.strip().partition("\n")
    lines = f"{first}\n{textwrap.dedent(rest)}".strip().split("\n\n")
    return "\n\n".join(" ".join(part.split()) for part in lines).replace("*", r"\*")


def _functions() -> Iterator[str]:
    for name, value in sorted(builtins().items()):
        if isinstance(value, Builtin | Effect):
            summary = value.summary.replace("|", r"\|").replace("*", r"\*")
            yield f"| `{name}` | {summary[:1].lower()}{summary[1:]} |\n"


if __name__ == "__main__":
    PAGE.write_text(library_page(), "utf-8")
