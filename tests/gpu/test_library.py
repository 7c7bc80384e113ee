"""The library on the simulated device, as on the CPU: values of maps on arrays, steps of every
optimizer, and every layer, activation and loss with the gradients by all inputs and parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from loss_cases import CASES, differentiable, inputs
from loss_cases import program as loss_program
from test_layers import MAPS, MODULES, RECURRENT, Shapes
from test_optimizers import OPTIMIZERS
from test_standard_library import MAPS as VALUES

import mapsto as mt

SLOW = pytest.mark.slow
QUICK = {"softmax(a, axis=0)", "MultiHeadAttention(8, 4, groups=2)", "cross_entropy(x, y)"}
TOLERANCE = 2e-5

PROGRAM = """
module Net():
    inner = {layer}

    map ({inputs}): {body}

map weighted(net: module, {inputs}) -> f32:
    let y = net({names})
    sum(sin(y) * y)

map slopes(net: module, {inputs}):
    (net({names}), value_and_grad(weighted, [{by}])(net, {names}))
"""


def cases(table: Iterable[str]) -> list[Any]:
    """The names of a table, the first of each, all but few of which are slow."""
    return [
        pytest.param(text, marks=[] if text in QUICK else SLOW) for text in dict.fromkeys(table)
    ]


def leaves(result: Any) -> list[np.ndarray]:
    """The arrays of a result."""
    if isinstance(result, dict):
        return [array for key in sorted(result) for array in leaves(result[key])]
    if isinstance(result, tuple | list):
        return [array for part in result for array in leaves(part)]
    return [np.asarray(result)]


def agree(found: Any, expected: Any) -> None:
    pairs = list(zip(leaves(found), leaves(expected), strict=True))
    assert pairs
    for left, right in pairs:
        scale = max(1.0, float(np.max(np.abs(right), initial=0)))
        np.testing.assert_allclose(left, right, rtol=0, atol=TOLERANCE * scale)


def check_layer(layer: str, body: str, shapes: Shapes) -> None:
    random = np.random.default_rng(7)
    given = {
        name: random.normal(size=shape).astype(np.float32)
        for name, shape in zip("abcdef", shapes, strict=False)
    }
    names = ", ".join(given)
    text = PROGRAM.format(
        layer=layer,
        body=body.format(names=names),
        names=names,
        inputs=", ".join(f"{n}: f32[{', '.join(map(str, x.shape))}]" for n, x in given.items()),
        by=", ".join(map(str, range(len(given) + 1))),
    )
    lib = mt.loads(text.replace("f64", "f32"))
    results = []
    for device in ("cpu", "gpusim"):
        net = lib.Net(seed=3).to(device)
        results.append(lib.slopes(net, *given.values()))
    agree(results[1], results[0])


def shapes_of(text: str, table: Sequence[tuple[str, Shapes]]) -> Shapes:
    return next(shapes for name, shapes in table if name == text)


@pytest.mark.parametrize("text", cases(text for text, _ in MAPS))
def test_map(text: str) -> None:
    check_layer("0", text, shapes_of(text, MAPS))


@pytest.mark.parametrize("text", cases(text for text, _ in MODULES))
def test_module(text: str) -> None:
    check_layer(text, "inner({names})", shapes_of(text, MODULES))


@pytest.mark.parametrize("text", cases(text for text, _ in RECURRENT))
def test_recurrent_module(text: str) -> None:
    check_layer(text, "inner({names})[0]", shapes_of(text, RECURRENT))


@pytest.mark.parametrize("text", cases(CASES))
def test_loss(text: str) -> None:
    given = inputs(text)
    arrays = [x.astype(np.float32) if x.dtype.kind == "f" else x for x in given.values()]
    names = ", ".join(given)
    program = loss_program(text, "f32")
    head = program.partition("(")[2].rpartition(") -> ")[0]
    by = ", ".join(map(str, differentiable(text)))
    program += f"\nmap slopes({head}): value_and_grad(value, [{by}])({names})"
    lib = mt.loads(program)
    agree(lib.slopes.to("gpusim")(*arrays), lib.slopes(*arrays))


@pytest.mark.parametrize("text", cases(text for text, *_ in VALUES))
def test_values(text: str) -> None:
    given = next(arguments for name, arguments, _ in VALUES if name == text)
    dtypes = {"f": "f64", "i": "i32"}
    head = ", ".join(
        f"{name}: {dtypes[x.dtype.kind]}[{', '.join(map(str, x.shape))}]"
        for name, x in given.items()
    )
    lib = mt.loads(f"map value({head}): {text}")
    agree(lib.value.to("gpusim")(*given.values()), lib.value(*given.values()))


FIT = """
map error(net: module, x: f32[n, 4], y: f32[n, 3]) -> f32: mse(net(x), y)

train Fit(net = Dense(3, tanh), optimizer = {optimizer}):
    loss(x: f32[n, 4], y: f32[n, 3]) = error(net, x, y)
"""


@pytest.mark.parametrize("text", cases(OPTIMIZERS))
def test_optimizer(text: str) -> None:
    random, lib = np.random.default_rng(3), mt.loads(FIT.format(optimizer=text))
    batch = {"x": random.normal(size=(6, 4)), "y": random.normal(size=(6, 3))}
    batch = {name: array.astype(np.float32) for name, array in batch.items()}
    runs = [lib.Fit(seed=1).to(device) for device in ("cpu", "gpusim")]
    for _ in range(3):
        for run in runs:
            run.step(**batch)
    expected, found = (dict(run.arrays) for run in runs)
    assert expected.keys() == found.keys()
    agree(found, expected)
