"""Writes docs/library.md, the list of the standard library, from its docstrings.

python docs/make_library.py
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
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
stand for any dtype that fits, `...s` for any number of dimensions. Maps have names in small letters
and are applied to tensors, modules begin with a capital letter and are made first: `relu(x)`,
`Dense(10)(x)`.

"""

_FUNCTIONS = """
## Functions that the compiler knows

Elementwise functions are the ops of the IR under their own names; the others choose, move or reduce
elements, or work on maps. [The language reference](language.md) shows their use. An argument with
`?` may be left out.

| call | what |
|---|---|
"""


def library_page() -> str:
    """The text of the page."""
    programs = {n: Program.loads(text, f"{n}.mto") for n, text in library_files().items()}
    files = (_file(name, program) for name, program in programs.items())
    functions = _FUNCTIONS + "".join(_functions())
    return _INTRODUCTION + _contents(programs) + "".join(files) + functions


def _contents(programs: Mapping[str, Program]) -> str:
    """A line for each file, with links to its definitions, and one for the functions."""
    link = _Links()
    link("The standard library")
    lines = []
    for name, program in programs.items():
        title = program.syntax.docstring
        summary = "" if title is None else title.text.strip().partition("\n\n")[0]
        file = link(name)
        names = ", ".join(link(definition) for definition in program.names())
        lines.append(f"- **{file}**. {_paragraphs(summary)} {names}\n")
    functions = link("Functions that the compiler knows")
    return f"{''.join(lines)}- **{functions}**, a table\n"


class _Links:
    """Links to headings, in their order; equal ones get numbers, as on GitHub."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, heading: str) -> str:
        anchor = heading.lower().replace(" ", "-")
        number = self._seen[anchor]
        self._seen[anchor] += 1
        return f"[{heading}](#{anchor}{f'-{number}' if number else ''})"


def _file(name: str, program: Program) -> str:
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
            yield f"| `{name}({value.usage})` | {summary[:1].lower()}{summary[1:]} |\n"


if __name__ == "__main__":
    PAGE.write_text(library_page(), "utf-8")
