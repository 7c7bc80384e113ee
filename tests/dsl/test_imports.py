"""Imports: files, the standard library, installed packages, cycles."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

import mapsto as mt
from mapsto.dsl.checking import check, check_file
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.source import Source

X = np.array([1.0, 2.0], np.float32)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed Python package with files of the language; its own code must not run."""
    root = tmp_path / "site" / "mapsto_shapes"
    (root / "solids").mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('imported')")
    (root / "__init__.mto").write_text(
        'from "circles.mto" import area\nfactor = 3.0\nmap twice(x: f32[n]): 2 * x\n'
    )
    (root / "circles.mto").write_text("map area(r: f32[n]) -> f32[n]: pi * r^2\n")
    (root / "solids" / "__init__.mto").write_text(
        'from "../circles.mto" import area\nmap volume(r: f32[n]): area(r) * r * (4.0 / 3)\n'
    )
    monkeypatch.syspath_prepend(str(root.parent))
    importlib.invalidate_caches()
    return root


def test_files_of_installed_packages(package: Path) -> None:
    lib = mt.loads("""
import mapsto_shapes
import mapsto_shapes.circles as round
from mapsto_shapes.solids import volume as space
from mapsto_shapes import area

map f(x: f32[n]):
    (mapsto_shapes.twice(x) * mapsto_shapes.factor, round.area(x), space(x), area(x))
""")
    twice, area, volume, again = lib.f(X)
    np.testing.assert_allclose(twice, 6 * X)
    np.testing.assert_allclose(area, np.pi * X**2, rtol=1e-6)
    np.testing.assert_allclose(volume, np.pi * X**3 * 4 / 3, rtol=1e-6)
    np.testing.assert_allclose(again, area)


@pytest.mark.parametrize("name", ["mapsto_shapes.cubes", "mapsto_no_such", "numpy", "json.tool"])
def test_packages_without_the_file_are_reported(package: Path, name: str) -> None:
    (diagnostic,) = check(Source("test.mto", f"import {name} as m\nmap f(x: f32): m.g(x)\n"))[:1]
    assert diagnostic.kind is Kind.UNKNOWN_MODULE


def test_mistakes_in_a_package_are_shown_there(package: Path) -> None:
    (package / "circles.mto").write_text("map area(r: f32[n]) -> f32[n]: r + [1\n")
    (diagnostic, *_) = check(Source("test.mto", "from mapsto_shapes.circles import area\n"))
    assert diagnostic.span.file.endswith("circles.mto")


def test_files_may_import_each_other(tmp_path: Path) -> None:
    (tmp_path / "even.mto").write_text(
        'from "odd.mto" import odd\n'
        "map even(x: f32, n: int) -> f32: if n == 0 then x else odd(x + 1, n - 1)\n"
    )
    (tmp_path / "odd.mto").write_text(
        'from "even.mto" import even\n'
        "map odd(x: f32, n: int) -> f32: if n == 0 then -x else even(x + 1, n - 1)\n"
    )
    lib = mt.load(tmp_path / "even.mto")
    assert lib.even(np.float32(1), 4) == 5
    assert lib.even(np.float32(1), 3) == -4


def test_a_cycle_of_values_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.mto").write_text('from "b.mto" import size\n')
    (tmp_path / "b.mto").write_text('from "a.mto" import size\n')
    found = check_file(tmp_path / "a.mto")
    assert [diagnostic.kind for diagnostic in found] == [Kind.CYCLIC_DEFINITION]


def test_aliases_and_the_standard_library() -> None:
    lib = mt.loads("""
from math import square as quadratic, clip
import math as m
map f(x: f32[n]): quadratic(x) + clip(x, 0, 1) + m.square(x)
""")
    np.testing.assert_allclose(lib.f(X), 2 * X**2 + 1)
