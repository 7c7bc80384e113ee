"""The size budget: short functions, short files, shallow nesting, lines that fit a screen."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mapsto", "dsl", "ir", "lowering", "runtime")
FILES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]

LONGEST_LINE = 100
LONGEST_FILE = 500
LONGEST_FUNCTION = 80
LONGEST_OF_MOST_FUNCTIONS = 30
"""Of nine functions in ten."""
LONGEST_OF_HALF_THE_FUNCTIONS = 10
DEEPEST_NESTING = 3

_PRAGMA = re.compile(r"  # (noqa|type: ignore)\b.*")
Callable = ast.FunctionDef | ast.AsyncFunctionDef
_COMPOUND = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)
_BRANCHES = (ast.ExceptHandler, ast.match_case)


def functions(file: Path) -> Iterator[Callable]:
    """All functions of a file, those in classes and functions too."""
    nodes = ast.walk(ast.parse(file.read_text()))
    return (node for node in nodes if isinstance(node, Callable))


def length(function: Callable) -> int:
    """Lines of a function, without its decorators."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def nesting(node: ast.AST) -> int:
    """How deep statements of a node are nested in one another; functions inside count alone."""
    return max((_nesting_of_child(child, node) for child in ast.iter_child_nodes(node)), default=0)


def _nesting_of_child(child: ast.AST, parent: ast.AST) -> int:
    if isinstance(child, _BRANCHES):
        return nesting(child)
    if not isinstance(child, _COMPOUND):
        return 0
    is_elif = isinstance(child, ast.If) and isinstance(parent, ast.If) and parent.orelse == [child]
    return nesting(child) + (not is_elif)


def place(file: Path, line: int) -> str:
    return f"{file.relative_to(ROOT)}:{line}"


def test_lines_fit() -> None:
    lines = ((f, i, x) for f in FILES for i, x in enumerate(f.read_text().splitlines(), 1))
    wrong = [place(f, i) for f, i, x in lines if len(_PRAGMA.sub("", x)) > LONGEST_LINE]
    assert not wrong, f"lines over {LONGEST_LINE} characters: {wrong}"


def test_files_are_short() -> None:
    lengths = {str(f.relative_to(ROOT)): f.read_text().count("\n") for f in FILES}
    wrong = {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}
    assert not wrong, f"files over {LONGEST_FILE} lines: {wrong}"


def test_functions_are_short() -> None:
    wrong = [
        f"{place(file, f.lineno)} {f.name}: {length(f)}"
        for file in FILES
        for f in functions(file)
        if length(f) > LONGEST_FUNCTION
    ]
    assert not wrong, f"functions over {LONGEST_FUNCTION} lines: {wrong}"


@pytest.mark.parametrize("package", PACKAGES)
def test_most_functions_are_very_short(package: str) -> None:
    lengths = [
        length(f) for file in FILES if file.is_relative_to(ROOT / package) for f in functions(file)
    ]
    assert statistics.median(lengths) <= LONGEST_OF_HALF_THE_FUNCTIONS
    assert statistics.quantiles(lengths, n=10)[-1] <= LONGEST_OF_MOST_FUNCTIONS


def test_nesting_is_shallow() -> None:
    wrong = [
        f"{place(file, f.lineno)} {f.name}: {nesting(f)}"
        for file in FILES
        for f in functions(file)
        if nesting(f) > DEEPEST_NESTING
    ]
    assert not wrong, f"nested deeper than {DEEPEST_NESTING}: {wrong}"


NESTED = """
def f():
    if a:
        pass
    elif b:
        for x in y:
            try:
                g()
            except E:
                if c:
                    pass
"""


def test_the_measure_of_nesting() -> None:
    (function,) = ast.parse(NESTED).body
    assert nesting(function) == 4
