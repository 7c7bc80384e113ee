"""The models of the speed table in JAX: functions of parameters by path and of the inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax, nn

__all__ = ["MODELS", "adam_step", "loss_of"]

Params = Mapping[str, Any]


def dense(p: Params, name: str, x: Any) -> Any:
    """A dense layer."""
    return x @ p[f"{name}.w"] + p[f"{name}.b"]


def mlp(p: Params, x: Any) -> Any:
    """Two hidden layers with relu."""
    for i in range(2):
        x = nn.relu(dense(p, f"layers.{i}", x))
    return dense(p, "layers.2", x)


def conv(p: Params, name: str, x: Any, stride: int = 1, pad: int = 1) -> Any:
    """A convolution."""
    layout = ("NCHW", "OIHW", "NCHW")
    padding = [(pad, pad)] * 2
    return lax.conv_general_dilated(
        x, p[f"{name}.w"], (stride, stride), padding, dimension_numbers=layout
    )


def max_pool(x: Any, size: int, stride: int, pad: int = 0) -> Any:
    """The greatest of each window."""
    window, strides = (1, 1, size, size), (1, 1, stride, stride)
    padding = [(0, 0), (0, 0), (pad, pad), (pad, pad)]
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)


def cnn(p: Params, x: Any) -> Any:
    """Two convolutions with pooling, and two dense layers."""
    for name in ("first", "second"):
        x = max_pool(nn.relu(conv(p, name, x) + p[f"{name}.b"][:, None, None]), 2, 2)
    return dense(p, "head", nn.relu(dense(p, "hidden", x.reshape(x.shape[0], -1))))


def layer_norm(p: Params, name: str, x: Any) -> Any:
    """Along the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    standard = centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return standard * p[f"{name}.scale"] + p[f"{name}.shift"]


def attention(p: Params, name: str, x: Any, heads: int) -> Any:
    """Causal self-attention, its projections as one product."""
    n, t, d = x.shape
    qkv = jnp.split(dense(p, f"{name}.qkv", x), 3, -1)
    q, k, v = (y.reshape(n, t, heads, d // heads).transpose(0, 2, 1, 3) for y in qkv)
    seen = jnp.tril(jnp.ones((t, t), bool))
    scores = jnp.where(seen, q @ k.swapaxes(-1, -2) / math.sqrt(d // heads), -1e30)
    y = (nn.softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(n, t, d)
    return dense(p, f"{name}.output", y)


def gpt(p: Params, ids: Any) -> Any:
    """A transformer of four blocks."""
    x = p["tokens.table"][ids] + p["positions.table"][: ids.shape[1]]
    for i in range(4):
        block = f"blocks.{i}"
        x = x + attention(p, f"{block}.attention", layer_norm(p, f"{block}.norm1", x), 4)
        up = nn.gelu(dense(p, f"{block}.feed_forward.up", layer_norm(p, f"{block}.norm2", x)))
        x = x + dense(p, f"{block}.feed_forward.down", up)
    return layer_norm(p, "norm", x) @ p["head.w"]


def lstm(p: Params, x: Any) -> Any:
    """An LSTM, and scores from its last state."""
    layer = "lstm.ahead.0"
    u = p[f"{layer}.u"]
    inputs = (x @ p[f"{layer}.w"] + p[f"{layer}.b"]).swapaxes(0, 1)

    def cell(state: Any, given: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(given + h @ u, 4, -1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
        return (nn.sigmoid(o) * jnp.tanh(c), c), None

    zeros = jnp.zeros((x.shape[0], u.shape[0]))
    (h, _), _ = lax.scan(cell, (zeros, zeros), inputs)
    return dense(p, "head", h)


_PAIRS = np.tril_indices(9, -1)


def dlrm(p: Params, dense_inputs: Any, ids: Any) -> Any:
    """Inner products of vectors of categories, a perceptron on top."""
    x = nn.relu(dense(p, "bottom.1", nn.relu(dense(p, "bottom.0", dense_inputs))))
    z = jnp.stack([x] + [p[f"tables.{i}.table"][ids[:, i]] for i in range(8)], 1)
    products = (z @ z.swapaxes(1, 2))[:, _PAIRS[0], _PAIRS[1]]
    top = nn.relu(dense(p, "top.0", jnp.concatenate([x, products], 1)))
    return dense(p, "top.1", top)[:, 0]


def norm(p: Params, name: str, x: Any) -> Any:
    """A batch norm with the statistics that it starts with: mean 0, variance 1."""
    scale = p[f"{name}.scale"] / math.sqrt(1 + 1e-5)
    return x * scale[:, None, None] + p[f"{name}.shift"][:, None, None]


def resnet18(p: Params, x: Any) -> Any:
    """Eight residual blocks."""
    x = max_pool(nn.relu(norm(p, "stem_norm", conv(p, "stem", x, 2, 3))), 3, 2, 1)
    for i in range(8):
        block, stride = f"blocks.{i}", 2 if i in (2, 4, 6) else 1
        y = nn.relu(norm(p, f"{block}.first_norm", conv(p, f"{block}.first", x, stride)))
        y = norm(p, f"{block}.second_norm", conv(p, f"{block}.second", y))
        if f"{block}.shortcut.w" in p:
            x = norm(p, f"{block}.shortcut_norm", conv(p, f"{block}.shortcut", x, stride, 0))
        x = nn.relu(y + x)
    return dense(p, "head", x.mean((2, 3)))


MODELS: Mapping[str, Callable[..., Any]] = {
    "add": lambda p, a, b: a + b,
    "product": lambda p, a, b: a @ b,
    "mlp": mlp,
    "cnn": cnn,
    "gpt": gpt,
    "lstm": lstm,
    "dlrm": dlrm,
    "resnet18": resnet18,
}


def loss_of(scores: Any, y: Any, binary: bool) -> Any:
    """The mean cross entropy."""
    if binary:
        return (jnp.maximum(scores, 0) - scores * y + jnp.log1p(jnp.exp(-abs(scores)))).mean()
    logs = nn.log_softmax(scores.reshape(-1, scores.shape[-1]))
    return -jnp.take_along_axis(logs, y.reshape(-1, 1), 1).mean()


def adam_step(p: Any, m: Any, v: Any, t: Any, g: Any) -> Any:
    """One parameter's update by Adam with lr 1e-3; also the new moments."""
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    step = 1e-3 * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return p - step, m, v
