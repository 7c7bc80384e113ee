"""Training the same perceptron from the same weights on the same batches, here and in PyTorch."""

from collections.abc import Callable

import numpy as np
import pytest

import mapsto as mt

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

STEPS = 100

PROGRAM = """
module MLP(hidden: int):
    layers = [Dense(hidden, relu), Dense(hidden, tanh), Dense(10)]

    map (x: f32[n, d]) -> f32[n, 10]:
        chain(layers)(x)

train Classifier(net = MLP(48), optimizer = Adam(lr=1e-3)):
    loss(x: f32[n, d], y: i32[n]) = cross_entropy(net(x), y)
"""

OPTIMIZERS = {
    "Adam": ({"lr": 1e-3}, lambda p: torch.optim.Adam(p, lr=1e-3)),
    "AdamW": (
        {"lr": 1e-3, "weight_decay": 0.05},
        lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.05),
    ),
    "SGD": ({"lr": 0.05}, lambda p: torch.optim.SGD(p, lr=0.05)),
    "SGD momentum": (
        {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3},
        lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=1e-3),
    ),
}
Factory = Callable[[list["torch.Tensor"]], "torch.optim.Optimizer"]


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(7)
    means = random.normal(size=(10, 20))
    result = []
    for _ in range(STEPS):
        y = random.integers(0, 10, 32)
        x = means[y] + 0.7 * random.normal(size=(32, 20))
        result.append((x.astype(np.float32), y.astype(np.int32)))
    return result


def train_torch(start: dict[str, np.ndarray], make: Factory) -> tuple[dict, list[float]]:
    weights = {path: torch.tensor(a, requires_grad=True) for path, a in start.items()}
    optimizer = make(list(weights.values()))
    activations = (torch.relu, torch.tanh, lambda y: y)
    losses = []
    for x, y in batches():
        outer = torch.tensor(x)
        for i, activation in enumerate(activations):
            outer = activation(outer @ weights[f"layers.{i}.w"] + weights[f"layers.{i}.b"])
        loss = torch.nn.functional.cross_entropy(outer, torch.tensor(y, dtype=torch.int64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {path: w.detach().numpy() for path, w in weights.items()}, losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_hundred_steps(name: str) -> None:
    configuration, make = OPTIMIZERS[name]
    lib = mt.loads(PROGRAM)
    net = lib.MLP(48, seed=5).init(x=mt.f32[None, 20])
    start = {path: array.copy() for path, array in net.params.items()}
    expected, expected_losses = train_torch(start, make)
    optimizer = getattr(lib, name.split()[0])(**configuration)
    run = lib.Classifier(net=net, optimizer=optimizer)
    losses = [run.step(x=x, y=y) for x, y in batches()]
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    assert losses[-1] < losses[0] / 2
    for path, array in net.params.items():
        moved = np.linalg.norm(expected[path] - start[path])
        assert moved > 0.01, f"{path} was not trained"
        error = np.linalg.norm(array - expected[path]) / np.linalg.norm(expected[path])
        assert error < 1e-4, path
        np.testing.assert_allclose(array, expected[path], rtol=1e-4, atol=1e-4)
