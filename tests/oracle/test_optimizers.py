"""Fifty steps of each optimizer from the same start as PyTorch's, in f32 and f64."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import mapsto as mt
from mapsto.dsl.library import library_files

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

STEPS = 50
TOLERANCE = {"f32": 2e-5, "f64": 1e-10}
NUMPY = {"f32": np.float32, "f64": np.float64}
MATRIX, VECTOR = (6, 4), (5,)

Configuration = Mapping[str, Any]
Update = Callable[[Any, Any], Any]


def torch_optimizer(name: str, **configuration: Any) -> Callable[[Any], Update]:
    """An optimizer of PyTorch as a function of a parameter and its gradient."""

    def make(p: Any) -> Update:
        weights = p.clone().requires_grad_()
        optimizer = getattr(torch.optim, name)([weights], **configuration)

        def update(p: Any, g: Any) -> Any:
            weights.grad = g.clone()
            optimizer.step()
            return weights.detach()

        return update

    return make


def lion(p: Any) -> Update:
    m = torch.zeros_like(p)

    def update(p: Any, g: Any) -> Any:
        direction = torch.sign(0.9 * m + 0.1 * g)
        m.mul_(0.99).add_(0.01 * g)
        return p - 0.05 * (direction + 0.1 * p)

    return update


def lamb(p: Any) -> Update:
    m, v, t = torch.zeros_like(p), torch.zeros_like(p), 0

    def update(p: Any, g: Any) -> Any:
        nonlocal t
        t += 1
        m.mul_(0.9).add_(0.1 * g)
        v.mul_(0.999).add_(0.001 * g**2)
        r = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-6) + 0.1 * p
        return p - 0.05 * p.norm() / r.norm() * r

    return update


def muon(p: Any) -> Update:
    """PyTorch iterates in bf16, this one in the type of the parameter."""
    m = torch.zeros_like(p)

    def orthogonal(x: Any) -> Any:
        x = x.T if x.shape[0] > x.shape[1] else x
        x = x / x.norm()
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
        return x

    def update(p: Any, g: Any) -> Any:
        m.mul_(0.95).add_(0.05 * g)
        direction = orthogonal(0.05 * g + 0.95 * m)
        direction = direction.T if direction.shape != p.shape else direction
        ratio = max(1, p.shape[1] / p.shape[0]) ** 0.5
        return p * (1 - 0.05 * 0.1) - 0.05 * ratio * direction

    return update


CASES: list[tuple[str, Configuration, tuple[int, ...], Callable[[Any], Update]]] = [
    ("Frozen", {}, MATRIX, lambda p: lambda p, g: p),
    ("SGD", {"lr": 0.1}, MATRIX, torch_optimizer("SGD", lr=0.1)),
    (
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
        MATRIX,
        torch_optimizer("SGD", lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.1),
    ),
    (
        "SGD",
        {"lr": 0.05, "momentum": 0.9, "nesterov": True},
        MATRIX,
        torch_optimizer("SGD", lr=0.05, momentum=0.9, nesterov=True),
    ),
    (
        "Adagrad",
        {"lr": 0.1, "lr_decay": 0.01, "initial": 0.2, "weight_decay": 0.1},
        MATRIX,
        torch_optimizer(
            "Adagrad", lr=0.1, lr_decay=0.01, initial_accumulator_value=0.2, weight_decay=0.1
        ),
    ),
    (
        "Adadelta",
        {"lr": 1.0, "weight_decay": 0.1},
        MATRIX,
        torch_optimizer("Adadelta", lr=1.0, weight_decay=0.1),
    ),
    (
        "RMSprop",
        {"lr": 0.05, "weight_decay": 0.1},
        MATRIX,
        torch_optimizer("RMSprop", lr=0.05, weight_decay=0.1),
    ),
    (
        "RMSprop",
        {"lr": 0.02, "centered": True, "momentum": 0.8},
        MATRIX,
        torch_optimizer("RMSprop", lr=0.02, centered=True, momentum=0.8),
    ),
    ("Adam", {"lr": 0.1}, MATRIX, torch_optimizer("Adam", lr=0.1)),
    (
        "Adam",
        {"lr": 0.1, "beta1": 0.8, "beta2": 0.9, "weight_decay": 0.1, "amsgrad": True},
        MATRIX,
        torch_optimizer("Adam", lr=0.1, betas=(0.8, 0.9), weight_decay=0.1, amsgrad=True),
    ),
    (
        "AdamW",
        {"lr": 0.1, "weight_decay": 0.2},
        MATRIX,
        torch_optimizer("AdamW", lr=0.1, weight_decay=0.2),
    ),
    (
        "AdamW",
        {"lr": 0.1, "amsgrad": True},
        VECTOR,
        torch_optimizer("AdamW", lr=0.1, amsgrad=True),
    ),
    (
        "Adamax",
        {"lr": 0.1, "weight_decay": 0.1},
        MATRIX,
        torch_optimizer("Adamax", lr=0.1, weight_decay=0.1),
    ),
    (
        "NAdam",
        {"lr": 0.1, "weight_decay": 0.1},
        MATRIX,
        torch_optimizer("NAdam", lr=0.1, weight_decay=0.1),
    ),
    (
        "RAdam",
        {"lr": 0.1, "weight_decay": 0.1},
        MATRIX,
        torch_optimizer("RAdam", lr=0.1, weight_decay=0.1),
    ),
    ("Lion", {"lr": 0.05, "weight_decay": 0.1}, MATRIX, lion),
    ("LAMB", {"lr": 0.05, "weight_decay": 0.1}, MATRIX, lamb),
    (
        "Adafactor",
        {"lr": 0.1, "eps1": 1e-7, "weight_decay": 0.1},
        MATRIX,
        torch_optimizer("Adafactor", lr=0.1, eps=(1e-7, 1e-3), weight_decay=0.1),
    ),
    (
        "Adafactor",
        {"lr": 0.1, "eps1": 1e-7, "clip": 1.5},
        VECTOR,
        torch_optimizer("Adafactor", lr=0.1, eps=(1e-7, 1e-3), d=1.5),
    ),
    ("Muon", {"lr": 0.05}, MATRIX, muon),
    ("Muon", {"lr": 0.05}, MATRIX[::-1], muon),
    ("Muon", {}, VECTOR, torch_optimizer("AdamW")),
]


@pytest.fixture
def dtype(request: pytest.FixtureRequest) -> Iterator[str]:
    """A dtype, in which PyTorch keeps its scalars too (NAdam's product of momenta)."""
    before = torch.get_default_dtype()
    torch.set_default_dtype({"f32": torch.float32, "f64": torch.float64}[request.param])
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize("dtype", sorted(TOLERANCE), indirect=True)
@pytest.mark.parametrize(("name", "configuration", "shape", "make"), CASES)
def test_fifty_steps(
    name: str,
    configuration: Configuration,
    shape: tuple[int, ...],
    make: Callable[[Any], Update],
    dtype: str,
) -> None:
    """The gradients are those of a quadratic, with noise."""
    random = np.random.default_rng(2)
    start, target = (random.normal(size=shape).astype(NUMPY[dtype]) for _ in range(2))
    optimizer = getattr(mt.loads(""), name)(**configuration)
    ours, theirs = start, torch.tensor(start)
    update = make(theirs)
    for _ in range(STEPS):
        noise = 0.3 * random.normal(size=shape).astype(NUMPY[dtype])
        ours = optimizer(ours, ours - target + noise)
        theirs = update(theirs, theirs - torch.tensor(target) + torch.tensor(noise))
        limit = TOLERANCE[dtype]
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=limit, atol=limit)
    moves = name != "Frozen"
    assert (np.abs(ours - start).max() > 0.01) == moves


def test_the_step_of_muon_is_that_of_pytorch() -> None:
    """To the precision of bf16; rows and columns are the other way round there."""
    random = np.random.default_rng(0)
    p, g = (random.normal(size=MATRIX).astype(np.float32) for _ in range(2))
    found = mt.loads("").Muon(lr=0.1)(p, g)
    update = torch_optimizer("Muon", lr=0.1)(torch.tensor(p.T.copy()))
    expected = update(None, torch.tensor(g.T.copy())).numpy().T
    np.testing.assert_allclose(found, expected, atol=0.1 * 0.03)


def test_all_optimizers_are_compared() -> None:
    defined = re.findall(r"^module (\w+)", library_files()["optim"], re.MULTILINE)
    parts = {"Average", "FactoredAverage"}
    assert set(defined) - parts == {name for name, *_ in CASES}
