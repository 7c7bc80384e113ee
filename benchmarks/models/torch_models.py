"""The models of the speed table in PyTorch.

Parameters have the paths that they have in the language, but for the projections of attention,
which are one matrix here, as is usual.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["MODELS", "loss_of", "weights_by_path"]


class MLP(nn.Module):
    """Two hidden layers with relu."""

    def __init__(self, sizes: tuple[int, ...] = (784, 512, 512, 10)) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class CNN(nn.Module):
    """Two convolutions that keep the size, each with relu and pooling, and two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.hidden, self.head = nn.Linear(64 * 7 * 7, 128), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        return self.head(F.relu(self.hidden(x.flatten(1))))


class Block(nn.Module):
    """A block of a transformer, norms first."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention = nn.ModuleDict({"qkv": nn.Linear(d, 3 * d), "output": nn.Linear(d, d)})
        self.feed_forward = nn.ModuleDict({"up": nn.Linear(d, 4 * d), "down": nn.Linear(4 * d, d)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, d = x.shape
        qkv = self.attention["qkv"](self.norm1(x)).split(d, 2)
        q, k, v = (y.view(n, t, self.heads, d // self.heads).transpose(1, 2) for y in qkv)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention["output"](y.transpose(1, 2).reshape(n, t, d))
        up = F.gelu(self.feed_forward["up"](self.norm2(x)), approximate="tanh")
        return x + self.feed_forward["down"](up)


class GPT(nn.Module):
    """A transformer that predicts the next character."""

    def __init__(
        self, vocabulary: int = 65, context: int = 64, d: int = 128, layers: int = 4, heads: int = 4
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, d), nn.Embedding(context, d)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, vocabulary, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Reader(nn.Module):
    """An LSTM, and scores from its last state.  Of its two biases, which are added, the second
    stays at zero, so that there is one to train as elsewhere."""

    def __init__(self, inputs: int = 40, units: int = 256, classes: int = 10) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, units, batch_first=True)
        self.lstm.bias_hh_l0.requires_grad_(False).zero_()
        self.head = nn.Linear(units, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class DLRM(nn.Module):
    """13 numbers and 8 categories, inner products of their vectors, a perceptron on top."""

    def __init__(self, rows: int = 10000, d: int = 16, count: int = 8) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(rows, d) for _ in range(count))
        self.bottom = nn.ModuleList([nn.Linear(13, 64), nn.Linear(64, d)])
        pairs = count * (count + 1) // 2
        self.top = nn.ModuleList([nn.Linear(d + pairs, 64), nn.Linear(64, 1)])
        self.register_buffer("pairs", torch.tril_indices(count + 1, count + 1, -1))

    def forward(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bottom[1](F.relu(self.bottom[0](dense))))
        z = torch.stack([x] + [table(ids[:, i]) for i, table in enumerate(self.tables)], 1)
        products = torch.bmm(z, z.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.top[1](F.relu(self.top[0](torch.cat([x, products], 1))))[:, 0]


class Residual(nn.Module):
    """Two convolutions beside a shortcut, which is a convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.first_norm, self.second_norm = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return F.relu(y + (self.shortcut_norm(self.shortcut(x)) if self.shortcut else x))


class ResNet18(nn.Module):
    """Eight residual blocks."""

    def __init__(self, width: int = 64, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        widths = [width * 2 ** (i // 2) for i in range(8)]
        strides = [2 if i in (2, 4, 6) else 1 for i in range(8)]
        triples = zip([width, *widths], widths, strides, strict=False)
        self.blocks = nn.ModuleList(Residual(a, b, stride) for a, b, stride in triples)
        self.head = nn.Linear(8 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.stem_norm(self.stem(x))), 3, 2, 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Add(nn.Module):
    """The sum of two arrays."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b


class Product(nn.Module):
    """The product of two matrices."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b


MODELS: Mapping[str, type[nn.Module]] = {
    "add": Add,
    "product": Product,
    "mlp": MLP,
    "cnn": CNN,
    "gpt": GPT,
    "lstm": Reader,
    "dlrm": DLRM,
    "resnet18": ResNet18,
}


def loss_of(scores: torch.Tensor, y: torch.Tensor, binary: bool) -> torch.Tensor:
    """The mean cross entropy."""
    if binary:
        return F.binary_cross_entropy_with_logits(scores, y)
    return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))


# ---- weights


_LEAVES = {
    "weight_ih_l0": "ahead.0.w",
    "weight_hh_l0": "ahead.0.u",
    "bias_ih_l0": "ahead.0.b",
    "bias": "b",
}


def weights_by_path(model: nn.Module) -> dict[str, Any]:
    """The parameters by their paths in the language and in its layout: a matrix takes rows."""
    found: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            owner, _, leaf = name.rpartition(".")
            path = f"{owner}.{_leaf(model.get_submodule(owner), leaf)}"
            found[path] = _in_layout(path, parameter.detach().numpy())
    return _with_projections(found)


def _leaf(owner: nn.Module, leaf: str) -> str:
    if isinstance(owner, nn.LayerNorm | nn.BatchNorm2d):
        return {"weight": "scale", "bias": "shift"}[leaf]
    if isinstance(owner, nn.Embedding):
        return "table"
    return _LEAVES.get(leaf, "w")


def _in_layout(path: str, array: Any) -> Any:
    is_matrix = array.ndim == 2 and path.endswith((".w", ".u"))
    return np.ascontiguousarray(array.T if is_matrix else array)


def _with_projections(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Besides with a matrix and a bias for each of query, key and value."""
    found = dict(weights)
    for path, array in weights.items():
        if "attention.qkv" not in path:
            continue
        for name, part in zip(("query", "key", "value"), np.split(array, 3, axis=-1), strict=True):
            found[path.replace("qkv", name)] = np.ascontiguousarray(part)
    return found
