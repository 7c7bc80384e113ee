"""Every wrong program under `diagnostics/` gives exactly the messages written below it.

A file is a program, the line `#! expected`, and the rendered messages, each line after `# `.  The
program is what stands before the marker.  To accept the messages as they are now, run with the
environment variable MAPSTO_ACCEPT=1 and read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from own_functions import own_functions

from mapsto.dsl import syntax
from mapsto.dsl.checking import check
from mapsto.dsl.diagnostics import Diagnostic, Help, Kind, NoteKind
from mapsto.dsl.library import library_file, library_files
from mapsto.dsl.parser import parse
from mapsto.dsl.render import render_all
from mapsto.dsl.source import Source
from mapsto.dsl.wording import HELPS, MESSAGES, NOTES

MARKER = "#! expected\n"
FILES = sorted(Path(__file__).with_name("diagnostics").glob("*.mto"))


def diagnose(source: Source) -> list[Diagnostic]:
    """All diagnostics of a program: of its syntax, or else of its meaning."""
    return check(source)


def read(path: Path) -> tuple[str, str]:
    """The program and the expected messages of a file."""
    program, _, expected = path.read_bytes().decode().partition(MARKER)
    return program, "\n".join(line.removeprefix("#")[1:] for line in expected.splitlines())


def accept(path: Path, program: str, messages: str) -> None:
    lines = "".join(f"# {line}".rstrip() + "\n" for line in messages.splitlines())
    path.write_bytes(f"{program}{MARKER}{lines}".encode())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_messages(path: Path) -> None:
    program, expected = read(path)
    messages = render_all(diagnose(Source(path.name, program)))
    if os.environ.get("MAPSTO_ACCEPT"):
        accept(path, program, messages)
        return
    assert messages == expected


def test_every_kind_of_mistake_has_a_file() -> None:
    programs = [read(path)[0] for path in FILES]
    found = {d.kind for program in programs for d in diagnose(Source("test.mto", program))}
    # Tested elsewhere: they need a file on disk or a very long text, or arguments from outside.
    elsewhere = {Kind.UNREADABLE_FILE, Kind.SOURCE_TOO_LONG}
    elsewhere |= {Kind.PROGRAM_TOO_LARGE, Kind.ILL_TYPED_OPERATION}
    elsewhere |= {Kind.SYMBOLIC_NUMBER, Kind.SYMBOLIC_PARAMETER}
    assert set(Kind) - found - elsewhere == set()


def test_every_construct_and_function_is_used_wrongly() -> None:
    """A construct of the syntax, a builtin, a file of the library that stands in no wrong program
    here has messages that nobody has seen."""
    trees = [parse(Source(path.name, read(path)[0]))[0] for path in FILES]
    nodes = [node for tree in trees for node in syntax.walk(tree)]
    classes = [item for item in vars(syntax).values() if isinstance(item, type)]
    constructs = {item for item in classes if issubclass(item, syntax.Node)}
    bases = {base for item in constructs for base in item.__bases__}
    assert constructs - bases - {type(node) for node in nodes} == set()
    names = {node.name for node in nodes if isinstance(node, syntax.Name)}
    names |= {node.name.name for node in nodes if isinstance(node, syntax.ValueType)}
    assert own_functions() - names == set()
    assert [f for f in library_files() if names.isdisjoint(library_file(f).definitions)] == []


@pytest.mark.parametrize("sentences", [MESSAGES, NOTES, HELPS])
def test_sentences_are_lower_case_without_period(sentences: dict[object, str]) -> None:
    for sentence in sentences.values():
        assert not sentence[0].isupper()
        assert not sentence.endswith(".") or sentence.endswith("...")


def test_every_kind_has_a_sentence() -> None:
    assert set(MESSAGES) == set(Kind)
    assert set(NOTES) == set(NoteKind)
    assert set(HELPS) == set(Help)
