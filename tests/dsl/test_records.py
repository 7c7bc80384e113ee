"""Records: values and types, fields, structure in maps, derivatives, Python and files."""

from __future__ import annotations

import numpy as np
import pytest
from elaborating import run_map

import mapsto as mt
from mapsto.cli import main
from mapsto.dsl.checking import check
from mapsto.dsl.elaborated import result_names
from mapsto.dsl.formatter import format_source
from mapsto.dsl.parser import parse
from mapsto.dsl.source import Source
from mapsto.dsl.tree_printer import print_tree

X = np.array([1.0, 2.0, 4.0], np.float32)

TEXT = """
map moments(x: f32[n]) -> (mean: f32, spread: (low: f32, high: f32)):
    (mean = mean(x), spread = (low = min(x), high = max(x)))

map width(m: (mean: f32, spread: (low: f32, high: f32))) -> f32:
    m.spread.high - m.spread.low

map scaled(p: (f32[n], (x: f32[n], by: f32)), k: f32 = 2.0) -> f32[n]:
    let (first, second) = p
    first + second.x * second.by * k

map chosen(x: f32[n]) -> (a: f32, b: f32[n]):
    let r = (a = sum(x), b = x)
    let other = (b = 2 * x, a = max(x))
    if sum(x) > 0 then (a = r.a, b = other.b) else (a = other.a, b = r.b)

map cost(x: f32[n]) -> (loss: f32, error: f32): (loss = sum(x^2), error = max(x))

map slope(x: f32[n]):
    let (value, gradient) = value_and_grad(cost)(x)
    (value = value, gradient = gradient)

map rows(x: f32[m, n]) -> (total: f32[m], doubled: f32[m, n]):
    vmap(row)(x)

map row(x: f32[n]): (total = sum(x), doubled = 2 * x)
"""
LIB = mt.loads(TEXT)


def test_the_program_is_right() -> None:
    assert check(Source("test.mto", TEXT)) == []


def test_records_are_named_tuples_in_python() -> None:
    result = LIB.moments(X)
    assert result.mean == pytest.approx(7 / 3)
    assert result.spread.high == 4
    assert result._fields == ("mean", "spread")
    assert result == LIB.moments.reference(X)
    assert LIB.width(result) == 3
    assert LIB.width({"spread": {"high": 5, "low": 1}, "mean": 2}) == 4
    assert LIB.width((0, (1, 7))) == 6


def test_parts_of_arguments() -> None:
    np.testing.assert_allclose(LIB.scaled((X, {"x": X, "by": 3.0})), 7 * X)
    np.testing.assert_allclose(LIB.scaled((X, {"x": X, "by": 3.0}), 1.0), 4 * X)
    np.testing.assert_allclose(LIB.scaled((X, (X, 0.0))), X)
    for wrong in [(X,), X, {"x": X}, (X, {"x": X, "of": 1})]:
        with pytest.raises(mt.ArgumentError, match="has the parts"):
            LIB.scaled(wrong)


def test_conditions_derivatives_and_vmap_keep_records() -> None:
    chosen = LIB.chosen(X)
    assert chosen.a == 7
    np.testing.assert_allclose(chosen.b, 2 * X)
    slope = LIB.slope(X)
    assert slope.value.error == 4
    np.testing.assert_allclose(slope.gradient, 2 * X)
    rows = LIB.rows(np.stack([X, X + 1]))
    np.testing.assert_allclose(rows.total, [7, 10])
    np.testing.assert_allclose(rows.doubled[1], 2 * X + 2)


def test_fields_are_matched_by_name() -> None:
    text = "map f(x: f32[n]) -> (a: f32, b: f32): (b = sum(x), a = max(x))"
    assert run_map(text, {"x": X}) == (4, 7)


def test_names_of_results() -> None:
    program = LIB.program
    types = {"x": mt.f32["n"]}
    names = {
        "moments": ["mean", "spread_low", "spread_high"],
        "row": ["total", "doubled"],
        "slope": ["value_loss", "value_error", "gradient"],
    }
    for name, expected in names.items():
        assert result_names(program.elaborate_map(name, types).result) == expected


def test_a_record_in_training_names_figures() -> None:
    text = """
module Line():
    param slope: f32 ~ zeros
    map (x: f32[n]) -> f32[n]: slope * x

train Fit(net = Line(), optimizer = SGD(lr=0.1)):
    loss(x: f32[n]) = (loss = mse(net(x), 2 * x), worst = max(abs(net(x) - 2 * x)))
"""
    found = mt.loads(text).Fit().evaluate(x=X)
    assert set(found) == {"loss", "loss.worst"}
    assert found["loss.worst"] == 8


def test_layout_and_tree() -> None:
    text = "map f(r: (a: f32[n], b: f32)) -> (c: f32):\n    (c = r.b + sum(r.a))\n"
    assert format_source(text.replace("c = r.b", "c=r.b").replace("a: f32", "a:f32")) == text
    program, diagnostics = parse(Source("test.mto", text))
    assert not diagnostics
    printed = print_tree(program)
    assert "TupleType names=[a, b]" in printed
    assert "TupleExpression names=[c]" in printed


def test_records_on_the_command_line(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "lib.mto").write_text(TEXT)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "by.npy", np.float32(3))
    files = [f"p.0={tmp_path}/x.npy", f"p.1.x={tmp_path}/x.npy", f"p.1.by={tmp_path}/by.npy"]
    inputs = [word for file in files for word in ("--input", file)]
    assert main(["run", f"{tmp_path}/lib.mto:scaled", *inputs, "--static", "k=2.0"]) == 0
    assert "7., 14., 28." in capsys.readouterr().out
    moments = ["run", f"{tmp_path}/lib.mto:moments", "--input", f"{tmp_path}/x.npy"]
    assert main([*moments, "--output", f"{tmp_path}/out.npz"]) == 0
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["spread.high"] == 4


def test_the_header_names_fields(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "lib.mto").write_text(TEXT)
    target = f"{tmp_path}/lib.mto:width"
    output = [f"{tmp_path}/{name}" for name in ("w.o", "w.h")]
    assert main(["build", target, "-o", output[0], "--header", output[1]]) == 0
    header = (tmp_path / "w.h").read_text()
    assert "const float *m_spread_high" in header
