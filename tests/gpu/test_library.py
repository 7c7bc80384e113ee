"""The library on each device, as on the CPU: values of maps on arrays, steps of every optimizer,
and every layer, activation and loss with the gradients by all inputs and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from devices import on_devices
from loss_cases import CASES, differentiable, inputs
from loss_cases import program as loss_program
from test_layers import MAPS, MODULES, RECURRENT, Shapes
from test_optimizers import OPTIMIZERS
from test_standard_library import MAPS as VALUES

import mapsto as mt

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


def check_layer(layer: str, body: str, shapes: Shapes, device: str) -> None:
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
    expected, found = (
        lib.slopes(lib.Net(seed=3).to(place), *given.values()) for place in ("cpu", device)
    )
    agree(found, expected)


def shapes_of(text: str, table: Sequence[tuple[str, Shapes]]) -> Shapes:
    return next(shapes for name, shapes in table if name == text)


@on_devices((text for text, _ in MAPS))
def test_map(name: str, device: str) -> None:
    check_layer("0", name, shapes_of(name, MAPS), device)


@on_devices((text for text, _ in MODULES))
def test_module(name: str, device: str) -> None:
    check_layer(name, "inner({names})", shapes_of(name, MODULES), device)


@on_devices((text for text, _ in RECURRENT))
def test_recurrent_module(name: str, device: str) -> None:
    check_layer(name, "inner({names})[0]", shapes_of(name, RECURRENT), device)


@on_devices(CASES)
def test_loss(name: str, device: str) -> None:
    given = inputs(name)
    arrays = [x.astype(np.float32) if x.dtype.kind == "f" else x for x in given.values()]
    names = ", ".join(given)
    program = loss_program(name, "f32")
    head = program.partition("(")[2].rpartition(") -> ")[0]
    by = ", ".join(map(str, differentiable(name)))
    program += f"\nmap slopes({head}): value_and_grad(value, [{by}])({names})"
    lib = mt.loads(program)
    agree(lib.slopes.to(device)(*arrays), lib.slopes(*arrays))


@on_devices((text for text, *_ in VALUES))
def test_values(name: str, device: str) -> None:
    given = next(arguments for text, arguments, _ in VALUES if text == name)
    dtypes = {"f": "f64", "i": "i32"}
    head = ", ".join(
        f"{argument}: {dtypes[x.dtype.kind]}[{', '.join(map(str, x.shape))}]"
        for argument, x in given.items()
    )
    lib = mt.loads(f"map value({head}): {name}")
    agree(lib.value.to(device)(*given.values()), lib.value(*given.values()))


FIT = """
map error(net: module, x: f32[n, 4], y: f32[n, 3]) -> f32: mse(net(x), y)

train Fit(net = Dense(3, tanh), optimizer = {optimizer}):
    loss(x: f32[n, 4], y: f32[n, 3]) = error(net, x, y)
"""


@on_devices(OPTIMIZERS)
def test_optimizer(name: str, device: str) -> None:
    random, lib = np.random.default_rng(3), mt.loads(FIT.format(optimizer=name))
    batch = {"x": random.normal(size=(6, 4)), "y": random.normal(size=(6, 3))}
    batch = {key: array.astype(np.float32) for key, array in batch.items()}
    runs = [lib.Fit(seed=1).to(place) for place in ("cpu", device)]
    for _ in range(3):
        for run in runs:
            run.step(**batch)
    expected, found = (dict(run.arrays) for run in runs)
    assert expected.keys() == found.keys()
    agree(found, expected)
