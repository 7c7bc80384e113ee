"""The standard library against NumPy: every map, layer, loss, optimizer and initializer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_cases import ARRAY_CASES
from elaborating import Array, call_module, initial_slots, run_map, type_of

from mapsto.dsl import syntax
from mapsto.dsl.builtins import builtins
from mapsto.dsl.checking import check
from mapsto.dsl.library import library_file, library_files, library_scope
from mapsto.dsl.parser import parse
from mapsto.dsl.program import Program
from mapsto.dsl.source import Source
from mapsto.dsl.tree_printer import print_tree

rng = np.random.default_rng(5)
X = rng.normal(size=(4, 6)) * 3
Y = np.array([5, 0, 2, 2], np.int32)
TARGET = rng.normal(size=(4, 6))
PROBABILITY = rng.uniform(size=(4, 6))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


erf = np.vectorize(math.erf)

MAPS: list[tuple[str, dict[str, Any], Callable[..., Any]]] = [
    ("relu(x)", {"x": X}, lambda x: np.maximum(x, 0)),
    ("leaky_relu(x)", {"x": X}, lambda x: np.where(x > 0, x, 0.01 * x)),
    ("leaky_relu(x, slope=0.2)", {"x": X}, lambda x: np.where(x > 0, x, 0.2 * x)),
    ("gelu(x)", {"x": X}, lambda x: x / 2 * (1 + erf(x / math.sqrt(2)))),
    (
        "gelu_tanh(x)",
        {"x": X},
        lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    ("silu(x)", {"x": X}, lambda x: x * sigmoid(x)),
    ("softplus(x)", {"x": X}, lambda x: np.log1p(np.exp(x))),
    ("elu(x)", {"x": X}, lambda x: np.where(x > 0, x, np.expm1(x))),
    ("softmax(x)", {"x": X}, softmax),
    ("log_softmax(x)", {"x": X}, lambda x: np.log(softmax(x))),
    ("softmax(1000 * x)", {"x": X}, lambda x: softmax(1000 * x)),
    ("cross_entropy(x, y)", {"x": X, "y": Y}, lambda x, y: -np.log(softmax(x))[range(4), y].mean()),
    ("mse(x, t)", {"x": X, "t": TARGET}, lambda x, t: ((x - t) ** 2).mean()),
    ("mae(x, t)", {"x": X, "t": TARGET}, lambda x, t: np.abs(x - t).mean()),
    (
        "binary_cross_entropy(x, p)",
        {"x": X, "p": PROBABILITY},
        lambda x, p: -(p * np.log(sigmoid(x)) + (1 - p) * np.log(sigmoid(-x))).mean(),
    ),
    ("accuracy(x, y)", {"x": X, "y": Y}, lambda x, y: np.float32((x.argmax(-1) == y).mean())),
    ("square(x)", {"x": X}, lambda x: x * x),
    ("clip(x, -1, 2)", {"x": X}, lambda x: np.clip(x, -1, 2)),
    ("logsumexp(x)", {"x": X}, lambda x: np.log(np.exp(x).sum(-1))),
    ("one_hot(y, 6)", {"y": Y}, lambda y: np.eye(6, dtype=np.float32)[y]),
    ("dot(x[0], x[1])", {"x": X}, lambda x: x[0] @ x[1]),
    ("norm(x)", {"x": X}, np.linalg.norm),
    ("atan(x)", {"x": X}, np.arctan),
    ("x * pi", {"x": X}, lambda x: x * math.pi),
    *ARRAY_CASES,
]


@pytest.mark.parametrize(("text", "arguments", "reference"), MAPS, ids=[m[0] for m in MAPS])
def test_map(text: str, arguments: dict[str, Any], reference: Callable[..., Any]) -> None:
    dtypes = {"f": "f64", "i": "i32"}
    parameters = ", ".join(
        f"{name}: {dtypes[value.dtype.kind]}[{', '.join(f'{name}{i}' for i in range(value.ndim))}]"
        for name, value in arguments.items()
    )
    result = run_map(f"map f({parameters}): {text}", arguments)
    np.testing.assert_allclose(result, reference(*arguments.values()), rtol=1e-10, atol=1e-15)


def library_names() -> set[str]:
    return {
        name
        for file in library_files()
        for name, definition in library_file(file).definitions.items()
        if isinstance(definition, syntax.MapDefinition | syntax.ModuleDefinition)
    }


def test_a_definition_on_its_own_is_what_it_is_in_its_file() -> None:
    """Definitions of the library are parsed one by one."""
    for file, text in library_files().items():
        whole, diagnostics = parse(Source(file, text))
        parts = [*library_file(file).definitions.values()]
        assert not diagnostics
        assert [print_tree(part) for part in parts] == [print_tree(d) for d in whole.definitions]


def test_every_definition_has_documentation() -> None:
    for file in library_files():
        for definition in library_file(file).definitions.values():
            if isinstance(definition, syntax.MapDefinition | syntax.ModuleDefinition):
                assert definition.docstring is not None, definition.name


def test_every_definition_is_tested() -> None:
    """Each name stands in a test of its own beside this file."""
    files = Path(__file__).parent.glob("*.py")
    words = {word for file in files for word in re.findall(r"\w+", file.read_text())}
    assert library_names() - words == set()


def test_every_name_is_in_scope_without_import() -> None:
    assert library_names() <= set(library_scope().own_names())


@pytest.mark.parametrize("file", sorted(library_files()))
def test_every_file_is_right_for_all_sizes_and_dtypes(file: str) -> None:
    assert check(Source(file, library_files()[file])) == []


def test_relu_keeps_nan_and_has_no_slope_at_zero() -> None:
    source = "map g(v: f64[n]) -> f64: sum(relu(v))\nmap f(x: f64[n]): (relu(x), grad(g)(x))"
    value, slope = run_map(source, {"x": np.array([np.nan, 0.0, -1.0, 2.0])})
    np.testing.assert_array_equal(value, [np.nan, 0, 0, 2])
    np.testing.assert_array_equal(slope[1:], [0, 0, 1])


def test_cross_entropy_of_large_scores_is_finite() -> None:
    source = (
        "map g(x: f64[n, c], y: i32[n]) -> f64: cross_entropy(x, y)\n"
        "map f(x: f64[n, c], y: i32[n]): value_and_grad(g)(x, y)"
    )
    x = np.array([[1e4, -1e4, 0.0]])
    value, slope = run_map(source, {"x": x, "y": np.array([1], np.int32)})
    np.testing.assert_allclose(value, 2e4)
    np.testing.assert_allclose(slope, [[1, -1, 0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dense(dtype: type) -> None:
    instance = Program.loads("").instantiate("Dense", {"units": 3})
    x = X.astype(dtype)
    result = call_module(instance, x=x)
    slots = initial_slots(instance)
    assert {path: value.shape for path, value in slots.items()} == {"w": (6, 3), "b": (3,)}
    np.testing.assert_allclose(result, x @ slots["w"] + slots["b"], rtol=1e-5)
    assert result.dtype == dtype


def adam(p: Array, gradients: list[Array], decay: float = 0.0) -> Array:
    m = v = np.zeros_like(p)
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        p = p * (1 - 0.1 * decay)
        p = p - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return p


def sgd(p: Array, gradients: list[Array], momentum: float = 0.0, decay: float = 0.0) -> Array:
    v = np.zeros_like(p)
    for g in gradients:
        v = momentum * v + g + decay * p
        p = p - 0.1 * v
    return p


OPTIMIZERS: dict[str, list[tuple[dict[str, float], Callable[..., Array]]]] = {
    "SGD": [
        ({}, sgd),
        ({"momentum": 0.9}, lambda p, g: sgd(p, g, 0.9)),
        ({"momentum": 0.5, "weight_decay": 0.1}, lambda p, g: sgd(p, g, 0.5, 0.1)),
    ],
    "Adam": [({}, adam)],
    "AdamW": [({"weight_decay": 0.1}, lambda p, g: adam(p, g, 0.1))],
}
RUNS = [(name, *run) for name, runs in OPTIMIZERS.items() for run in runs]


@pytest.mark.parametrize(("name", "options", "reference"), RUNS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_optimizer(
    name: str, options: dict[str, float], reference: Callable[..., Array], dtype: type
) -> None:
    from elaborating import run_slots

    instance = Program.loads("").instantiate(name, {"lr": 0.1, **options})
    p = X.astype(dtype)
    gradients = [rng.normal(size=X.shape).astype(dtype) for _ in range(4)]
    elaborated = instance.elaborate("", {"p": type_of(p), "g": type_of(p)})
    slots = initial_slots(instance)
    result = p
    for gradient in gradients:
        result = run_slots(elaborated, slots, {"p": result, "g": gradient})
    assert result.dtype == dtype
    tolerance = 1e-4 if dtype is np.float32 else 1e-10
    np.testing.assert_allclose(result, reference(p, gradients), rtol=tolerance, atol=1e-6)


def test_a_label_that_is_no_class_makes_the_loss_nan() -> None:
    import mapsto as mt

    scores = np.zeros((3, 10), np.float32)
    loss = mt.loads("").cross_entropy
    assert loss(scores, np.array([0, 9, 5], np.int32)) == pytest.approx(np.log(10))
    for wrong in (-1, 10):
        assert np.isnan(loss(scores, np.array([0, wrong, 5], np.int32)))


def test_each_name_is_defined_in_one_file() -> None:
    names = [name for file in library_files() for name in library_file(file).definitions]
    taken = [*names, *builtins()]
    assert not {name for name in taken if taken.count(name) > 1}
