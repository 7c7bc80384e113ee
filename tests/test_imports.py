"""Which package may import which: one way, and nothing that is not a declared dependency."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ALLOWED = {
    "ir": {"ir"},
    "dsl": {"dsl", "ir"},
    "lowering": {"lowering", "ir"},
    "runtime": {"runtime", "lowering", "ir"},
    "mapsto": {"mapsto", "runtime", "lowering", "dsl", "ir"},
}
"""For each package, those that it may import; `mapsto` is the public face."""


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if node.module == "mapsto" else [str(node.module)]


def package_of(module: str) -> str | None:
    """The package of the project that a module belongs to; None for other modules."""
    first, *rest = module.split(".")
    if first != "mapsto":
        return None
    return rest[0] if rest and rest[0] in ALLOWED else "mapsto"


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ALLOWED)
def test_dependencies_point_one_way(package: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in files(package)
        for module in imported(file)
        if package_of(module) not in {None, *ALLOWED[package]}
    ]
    assert files(package) and not wrong, "\n".join(wrong)


def declared(extra: str | None = None) -> set[str]:
    """The distributions that the project depends on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    given = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {re.split(r"[^\w-]", item)[0] for item in given}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_are_declared(package: str) -> None:
    known = {*sys.stdlib_module_names, "mapsto", *declared(), *declared("plot")}
    # The linker of the extra `link`, found by its module.
    known.add("ziglang")
    wrong = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in files(package)
        for module in imported(file)
        if module.split(".")[0] not in known
    ]
    assert not wrong, "\n".join(wrong)
