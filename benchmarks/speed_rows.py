"""The rows of the speed table: the work, its sizes, and the inputs that all peers get."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["EVERY", "GRADIENTS", "MODELS", "OPERATIONS", "ROWS", "Model", "Row"]

Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Model:
    """A model: its file and names in the language, and its inputs for a batch."""

    label: str
    module: str
    inputs: Callable[[np.random.Generator, int], Arrays]
    labels: Callable[[np.random.Generator, int], Any] | None = None
    binary: bool = False
    """Whether the labels are probabilities, and not classes."""


def _normal(*sizes: int) -> Callable[[np.random.Generator, int], Arrays]:
    return lambda random, n: {"x": random.normal(size=(n, *sizes)).astype(np.float32)}


def _ids(random: np.random.Generator, count: int, *shape: int) -> Any:
    return random.integers(0, count, shape).astype(np.int32)


def _pair(shape: Callable[[int], tuple[int, ...]]) -> Callable[[np.random.Generator, int], Arrays]:
    """Two arrays of the shape for a size."""
    return lambda r, n: {k: r.normal(size=shape(n)).astype(np.float32) for k in ("a", "b")}


MODELS: Mapping[str, Model] = {
    "mlp": Model("perceptron 784-512-512-10", "MLP", _normal(784), lambda r, n: _ids(r, 10, n)),
    "cnn": Model(
        "convolutions 28x28, 32 and 64 channels",
        "CNN",
        _normal(1, 28, 28),
        lambda r, n: _ids(r, 10, n),
    ),
    "gpt": Model(
        "GPT, 4 layers of 128, context 64",
        "GPT",
        lambda r, n: {"ids": _ids(r, 65, n, 64)},
        lambda r, n: _ids(r, 65, n, 64),
    ),
    "lstm": Model(
        "LSTM 40-256, 100 steps", "Reader", _normal(100, 40), lambda r, n: _ids(r, 10, n)
    ),
    "dlrm": Model(
        "DLRM, 8 tables of 10000x16",
        "DLRM",
        lambda r, n: {
            "dense": r.normal(size=(n, 13)).astype(np.float32),
            "ids": _ids(r, 10000, n, 8),
        },
        lambda r, n: r.uniform(size=n).astype(np.float32),
        binary=True,
    ),
    "resnet18": Model("ResNet-18, 224x224", "ResNet18", _normal(3, 224, 224)),
    "add": Model("the sum of two vectors", "Add", _pair(lambda n: (n,))),
    "product": Model("the product of two matrices", "Product", _pair(lambda n: (n, n))),
}


_KINDS = {
    "infer": "inference",
    "train": "training step",
    "value": "loss",
    "gradient": "loss and gradient",
}


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Its kind is inference, a training step with Adam, the loss alone, the loss with its gradient, or
    a single operation, of which `batch` is the size.
    """

    model: str
    batch: int
    kind: str = "infer"

    @property
    def training(self) -> bool:
        """Whether it is a training step."""
        return self.kind == "train"

    @property
    def has_labels(self) -> bool:
        """Whether there is a loss."""
        return self.kind in ("train", "value", "gradient")

    def suits(self, peer: str) -> bool:
        """Whether a peer can do it, and is of interest."""
        if self.model == "product":
            return peer in ("mapsto", "numpy", "pytorch")
        if peer == "numpy":
            return self.kind == "op"
        return not (self.has_labels and peer in ("onnxruntime", "openvino"))

    @property
    def key(self) -> str:
        """Its name in options and files: `infer-mlp-128`."""
        return f"{self.kind}-{self.model}-{self.batch}"

    @property
    def text(self) -> str:
        """Its name in the table."""
        label = MODELS[self.model].label
        if self.kind == "op":
            return f"{label}, n = {self.batch}"
        return f"{_KINDS[self.kind]}: {label}, batch {self.batch}"

    def inputs(self) -> Arrays:
        """The arrays that the model takes, by name; `y` are the labels of a loss."""
        random = np.random.default_rng(0)
        model = MODELS[self.model]
        found = dict(model.inputs(random, self.batch))
        if self.has_labels:
            assert model.labels is not None
            found["y"] = model.labels(random, self.batch)
        return found


_INFERENCE = {
    "mlp": (1, 128),
    "cnn": (1, 64),
    "gpt": (1, 12),
    "lstm": (1, 32),
    "dlrm": (1, 512),
    "resnet18": (1,),
}
_TRAINING = {"mlp": 128, "cnn": 64, "gpt": 12, "lstm": 32, "dlrm": 512}

ROWS: tuple[Row, ...] = (
    *(Row(model, batch) for model, batches in _INFERENCE.items() for batch in batches),
    *(Row(model, batch, kind="train") for model, batch in _TRAINING.items()),
)
"""The table."""

GRADIENTS: tuple[Row, ...] = tuple(
    Row(model, batch, kind) for model, batch in _TRAINING.items() for kind in ("value", "gradient")
)
"""What a gradient costs: each model's loss, alone and with its gradient by all parameters."""

SIZES = (16, 37, 64, 127, 256, 509, 512, 1000, 1024, 2048)

OPERATIONS: tuple[Row, ...] = (
    Row("add", 4, "op"),
    *(Row("product", n, "op") for n in SIZES),
)
"""What a call costs, and products written in index notation beside libraries."""

EVERY: tuple[Row, ...] = (*ROWS, *GRADIENTS, *OPERATIONS)
