"""Any text gets an answer: a tree or diagnostics that can be drawn, never an exception."""

from __future__ import annotations

from random import Random

import pytest
from texts import mutate, noise, random_program

from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.lalr import MAXIMUM_DEPTH
from mapsto.dsl.lexer import MAXIMUM_CHARACTERS
from mapsto.dsl.parser import parse
from mapsto.dsl.render import render_all, render_rich
from mapsto.dsl.source import Source
from mapsto.dsl.syntax import Node, Program, children
from mapsto.dsl.tree_printer import print_tree


def check_answer(text: str) -> list[Kind]:
    """Parse and draw; the kinds of the diagnostics."""
    tree, diagnostics = parse(Source("test.mto", text))
    assert isinstance(tree, Program)
    render_all(diagnostics)
    print_tree(tree)
    for diagnostic in diagnostics:
        assert 0 <= diagnostic.span.start <= diagnostic.span.end <= len(text)
    return [diagnostic.kind for diagnostic in diagnostics]


def check_seed(seed: int) -> None:
    random = Random(seed)
    if seed % 3 == 0:
        check_answer(noise(random, random.randint(1, 60)))
    else:
        check_answer(mutate(random, random_program(random)))


@pytest.mark.parametrize("block", range(10))
def test_mutated_and_random_texts(block: int) -> None:
    for seed in range(block * 300, block * 300 + 300):
        check_seed(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_many_mutated_and_random_texts(block: int) -> None:
    for seed in range(block * 1000, block * 1000 + 1000):
        check_seed(seed)


def test_every_prefix_of_a_program() -> None:
    text = random_program(Random(5))[:600]
    for length in range(len(text)):
        check_answer(text[:length])


@pytest.mark.parametrize(
    "text",
    [
        "(" * 50_000,
        ")" * 50_000,
        "[(" * 25_000,
        "map f():\n    " + "-" * 25_000 + "x\n",
        "map f():\n    " + "not " * 12_500 + "x\n",
        "map f():\n    " + "x^" * 12_500 + "x\n",
        "map f():\n    " + "x + " * 12_500 + "x\n",
        "map f():\n    x" + "[0]" * 12_500 + "\n",
        "map f():\n    " + "if x then y else " * 5_000 + "x\n",
        "map f():\n    " + "[i] |-> " * 5_000 + "x\n",
        "".join(" " * i + "if x:\n" for i in range(700)),
        "".join(f"{' ' * (2000 - i)}x\n" for i in range(200)),
        "\0" * 50_000,
        "\n" * 100_000,
        "\r" * 100_000,
        " " * 100_000,
        "\t" * 100_000,
        "#" * 100_000,
        '"' * 100_000,
        '"\n' * 50_000,
        "9" * 100_000,
        "x" * 100_000,
        "x " * 50_000,
        "1x\n" * 25_000,
        "let a\n" * 12_500,
        "\u202e\N{COMBINING ACUTE ACCENT}" * 25_000,
        "\ud800",
        "k = 1\n" * 25_000,
        "k = (\n" * 12_500,
        "map f():\n" * 10_000,
    ],
    ids=lambda text: repr(text[:24]),
)
def test_hostile_texts(text: str) -> None:
    check_answer(text)


def test_long_lists_are_linear_and_allowed() -> None:
    assert check_answer(f"k = [{', '.join(['x'] * 20_000)}]\n") == []


def test_limits_are_reported() -> None:
    assert check_answer("x" * (MAXIMUM_CHARACTERS + 1)) == [Kind.SOURCE_TOO_LONG]
    assert check_answer("k = " + "-" * 1000 + "x") == [Kind.NESTED_TOO_DEEPLY]
    assert Kind.TOO_MANY_ERRORS in check_answer("let a = 1\n" * 100)


def test_trees_are_never_deeper_than_the_limit() -> None:
    for depth in range(MAXIMUM_DEPTH - 10, MAXIMUM_DEPTH + 10):
        tree, _ = parse(Source("test.mto", f"map f():\n    {'-' * depth}x\n"))
        assert _depth(tree) <= MAXIMUM_DEPTH + 3


def _depth(node: Node) -> int:
    return 1 + max(map(_depth, children(node)), default=0)


def test_coloured_messages_have_the_same_text() -> None:
    _, diagnostics = parse(Source("test.mto", "map f(x: f32[n) -> é:\n    x $ 1\n"))
    for diagnostic in diagnostics:
        lines = [line.rstrip() for line in render_rich(diagnostic).plain.split("\n")]
        assert "\n".join(lines) == render_all([diagnostic])
