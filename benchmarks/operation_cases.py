"""Small programs beside the functions of PyTorch that do the same: the rows of `operations.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

__all__ = ["MEMORY_BOUND", "PROGRAMS", "SIZES", "WRITTEN", "AdamStep", "Case", "MemoryCase"]

SIZES = (16, 37, 64, 127, 256, 509, 512, 1000, 1024, 2048)
"""Of what is written in index notation; three are primes."""

Array = np.ndarray[Any, Any]
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Case:
    """A program in the language, as the body of a map, and a function of PyTorch.

    `library` is the same with a map of the standard library.
    """

    name: str
    shapes: Shapes
    body: str
    torch: Callable[..., Any]
    library: str = ""
    dtype: str = "f32"
    more: str = ""
    """Maps that the body calls."""

    size: int = 0
    """The n of its kind."""

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """Standard normal numbers for the parameters."""
        random = np.random.default_rng(0)
        dtype = {"f32": np.float32, "f64": np.float64}[self.dtype]
        return tuple(random.normal(size=shape).astype(dtype) for shape in self.shapes.values())

    def source(self) -> str:
        """Text with the map `written`, and perhaps `library`."""
        parameters = _declared(self.shapes, self.dtype)
        maps = [f"map written({parameters}):{_indented(self.body)}"]
        if self.library:
            maps.append(f"map library({parameters}): {self.library}")
        return "\n".join([*maps, self.more])

    def source_of_loss(self, result: Sequence[int]) -> str:
        """The map `loss` too: what `written` gives, of this shape, times a cotangent, summed."""
        parameters = _declared({**self.shapes, "cotangent": result}, self.dtype)
        value = f"written({', '.join(self.shapes)})"
        return f"{self.source()}\nmap loss({parameters}): sum({value} * cotangent)"


def _declared(shapes: Shapes, dtype: str) -> str:
    """Parameters of a map."""
    sizes = {name: ", ".join(map(str, shape)) for name, shape in shapes.items()}
    return ", ".join(f"{name}: {dtype}[{size}]" for name, size in sizes.items())


def _indented(body: str) -> str:
    lines = body.strip().splitlines()
    return "".join(f"\n    {line}" for line in lines)


# ---- what is written in index notation


def _product(n: int) -> Case:
    body = "[i, j] |-> sum[k](a[i, k] * b[k, j])"
    return Case("product", {"a": (n, n), "b": (n, n)}, body, torch.matmul, "a @ b")


def _products(n: int) -> Case:
    body = "[s, i, j] |-> sum[k](a[s, i, k] * b[s, k, j])"
    shapes = {"a": (4, n, n), "b": (4, n, n)}
    return Case("four products", shapes, body, torch.matmul, "a @ b")


def _depthwise(n: int) -> Case:
    return Case(
        "depthwise convolution",
        {"x": (1, 16, n + 2, n + 2), "w": (16, 1, 3, 3)},
        f"[b, c, i < {n}, j < {n}] |-> sum[r, s](x[b, c, i + r, j + s] * w[c, 0, r, s])",
        partial(F.conv2d, groups=16),
        "conv2d(x, w, groups=16)",
    )


def _causal(n: int) -> Case:
    return Case(
        "dilated causal convolution",
        {"x": (4, 64, n), "w": (64, 64, 3)},
        f"[b, o, t < {n}] |-> sum[c, r](w[o, c, r] * "
        "(if t + 4 * r >= 8 then x[b, c, t + 4 * r - 8] else 0.0))",
        lambda x, w: F.conv1d(F.pad(x, (8, 0)), w, dilation=4),
        f"conv1d(x, w, padding=8, dilation=4)[:, :, :{n}]",
    )


def _bilinear(n: int) -> Case:
    return Case(
        "bilinear form",
        {"x": (32, n), "w": (8, n, n), "y": (32, n)},
        "[b, o] |-> sum[i, j](x[b, i] * w[o, i, j] * y[b, j])",
        lambda x, w, y: F.bilinear(x, y, w),
    )


def _written() -> Iterator[Case]:
    for kind in (_product, _products, _depthwise, _causal, _bilinear):
        yield from (replace(kind(n), size=n) for n in SIZES)


WRITTEN: Sequence[Case] = tuple(_written())
"""Each kind at each of SIZES, kind after kind."""


# ---- what memory bounds


@dataclass(frozen=True)
class MemoryCase:
    """An operation on a matrix: its map, PyTorch's function that writes into given arrays, and how
    often each byte of the matrix is read or written."""

    name: str
    body: str
    result: str
    torch: Callable[[Any, Any], Any]
    passes: int = 2


def _layer_norm(x: torch.Tensor, out: torch.Tensor) -> Any:
    rows, columns = x.shape
    moments = torch.empty(2, rows, 1)
    scale, shift = torch.ones(columns), torch.zeros(columns)
    return torch.ops.aten.native_layer_norm.out(
        x, [columns], scale, shift, 1e-5, out0=out, out1=moments[0], out2=moments[1]
    )


@dataclass(frozen=True)
class AdamStep:
    """A step of Adam for one parameter, whose gradient is given."""

    name: str = "step of Adam"

    def source(self, n: int) -> str:
        """Training with a loss of which the input is the gradient."""
        return f"""
module Weights():
    param w: f32[{n}] ~ zeros
    map (g: f32[{n}]) -> f32: sum(w * g)

train Step(net = Weights(), optimizer = Adam(lr=1e-3)):
    loss(g: f32[{n}]) = net(g)
"""

    def peer(self, gradient: torch.Tensor) -> Callable[[], torch.Tensor]:
        """PyTorch's fused step; gives the parameter."""
        w, m, v = (torch.zeros_like(gradient) for _ in range(3))
        count = torch.zeros(())
        settings = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8}

        @torch.inference_mode()
        def step() -> torch.Tensor:
            count.add_(1)
            torch._fused_adam_(
                [w], [gradient], [m], [v], [], [count], amsgrad=False, maximize=False, **settings
            )
            return w

        return step


MEMORY_BOUND: Sequence[MemoryCase | AdamStep] = (
    MemoryCase("softmax", "softmax(x)", "n, m", lambda x, out: torch.softmax(x, -1, out=out)),
    MemoryCase(
        "layer norm", "layer_norm(x, [j < {m}] |-> 1.0, [j < {m}] |-> 0.0)", "n, m", _layer_norm
    ),
    MemoryCase("gelu", "gelu(x)", "n, m", lambda x, out: torch.ops.aten.gelu.out(x, out=out)),
    MemoryCase("transpose", "transpose(x)", "m, n", lambda x, out: out.copy_(x.t())),
    MemoryCase("sum of rows", "sum(x, axis=1)", "n", lambda x, out: torch.sum(x, 1, out=out), 1),
    MemoryCase("sum of columns", "sum(x, axis=0)", "m", lambda x, out: torch.sum(x, 0, out=out), 1),
    AdamStep(),
)


# ---- programs that no other table has


def _convolution(name: str, x: Sequence[int], w: Sequence[int], **settings: int) -> Case:
    rank = len(x) - 2
    arguments = "".join(f", {key}={value}" for key, value in settings.items())
    function = getattr(F, f"conv{rank}d")
    return Case(
        name, {"x": x, "w": w}, f"conv{rank}d(x, w{arguments})", partial(function, **settings)
    )


def _transposed(name: str, x: Sequence[int], w: Sequence[int], **settings: int) -> Case:
    arguments = "".join(f", {key}={value}" for key, value in settings.items())
    body = f"conv_transpose2d(x, w{arguments})"
    return Case(name, {"x": x, "w": w}, body, partial(F.conv_transpose2d, **settings))


def _batch_norm(*shape: int) -> Case:
    places = ["n", "c", "i", "j"][: len(shape)]
    index, summed = ", ".join(places), ", ".join(p for p in places if p != "c")
    return Case(
        f"batch norm in training, {_sizes(shape)}",
        {"x": shape, "scale": shape[1:2], "shift": shape[1:2]},
        f"let center = [c] |-> mean[{summed}](x[{index}])\n"
        f"let variance = [c] |-> mean[{summed}]((x[{index}] - center[c])^2)\n"
        f"[{index}] |-> (x[{index}] - center[c]) / sqrt(variance[c] + 1e-5) * scale[c] + shift[c]",
        lambda x, scale, shift: F.batch_norm(x, None, None, scale, shift, training=True),
    )


def _attention(*shape: int, causal: bool = False) -> Case:
    name = f"attention, {_sizes(shape)}"
    return Case(
        f"causal {name}" if causal else name,
        {"q": shape, "k": shape, "v": shape},
        f"attention(q, k, v, causal={str(causal).lower()})",
        partial(F.scaled_dot_product_attention, is_causal=causal),
    )


def _own_attention(*shape: int) -> Case:
    """With a bias by distance (Press et al., "Train short, test long", 2021)."""
    n, distance = shape[2], torch.arange(shape[2])
    bias = -0.1 * (distance[:, None] - distance[None]).abs().float()
    return Case(
        f"attention written by hand with a bias by distance, {_sizes(shape)}",
        {"q": shape, "k": shape, "v": shape},
        f"let s = [b, h, i, j] |-> sum[d](q[b, h, i, d] * k[b, h, j, d]) / sqrt({shape[3]}.0)\n"
        "let z = [b, h, i, j] |-> s[b, h, i, j] - 0.1 * cast(abs(i - j), f32)\n"
        "let top = [b, h, i] |-> max[j](z[b, h, i, j])\n"
        "let e = [b, h, i, j] |-> exp(z[b, h, i, j] - top[b, h, i])\n"
        "let total = [b, h, i] |-> sum[j](e[b, h, i, j])\n"
        "[b, h, i, d] |-> sum[j](e[b, h, i, j] * v[b, h, j, d]) / total[b, h, i]",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=bias[:n, :n]),
    )


def _rows(name: str, body: str, function: Callable[..., Any], *shape: int) -> Case:
    return Case(f"{name}, {_sizes(shape)}", {"x": shape}, body, function)


def _norm_of_rows(*shape: int) -> Case:
    return Case(
        f"layer norm, {_sizes(shape)}",
        {"x": shape, "scale": shape[1:], "shift": shape[1:]},
        "layer_norm(x, scale, shift)",
        lambda x, scale, shift: F.layer_norm(x, scale.shape, scale, shift),
    )


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _matrices(name: str, a: Sequence[int], b: Sequence[int], text: str, dtype: str) -> Case:
    operands, _, result = text.partition("->")
    left, right = operands.split(",")
    (inner,) = set(left) & set(right) - set(result)
    sum_of = f"sum[{inner}](a[{', '.join(left)}] * b[{', '.join(right)}])"
    body = f"[{', '.join(result)}] |-> {sum_of}"
    return Case(name, {"a": a, "b": b}, body, partial(torch.einsum, text), dtype=dtype)


def _product_of(n: int, k: int, m: int, dtype: str = "f32") -> Case:
    name = f"product, {_sizes((n, k, m))}, {dtype}"
    return _matrices(name, (n, k), (k, m), "ik,kj->ij", dtype)


def _scan_of_convolutions(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    h = torch.zeros_like(x[0])
    for step in x:
        h = torch.tanh(F.conv2d(h, 0.1 * w, padding=1) + step)
    return h


PROGRAMS: Sequence[Case] = (
    _product_of(97, 97, 97),
    _product_of(1, 1000, 1000),
    _product_of(3, 1000, 37),
    _product_of(1000, 1000, 3),
    _product_of(1000, 3, 1000),
    _product_of(255, 257, 253, "f64"),
    _matrices(
        "product with a transposed matrix, one row", (1, 1000), (1000, 1000), "ik,jk->ij", "f32"
    ),
    _matrices("512 products of 16 x 16", (512, 16, 16), (512, 16, 16), "sik,skj->sij", "f32"),
    _matrices("8 products of 256 x 256", (8, 256, 256), (8, 256, 256), "sik,skj->sij", "f32"),
    _convolution(
        "convolution 3x3, 64 channels, 56 pixels", (3, 64, 56, 56), (64, 64, 3, 3), padding=1
    ),
    _convolution(
        "convolution 3x3, 37 channels, 37 pixels", (3, 37, 37, 37), (37, 37, 3, 3), padding=1
    ),
    _convolution(
        "convolution 3x3, stride 2", (3, 64, 56, 56), (128, 64, 3, 3), padding=1, stride=2
    ),
    _convolution(
        "convolution 7x7, stride 2, 224 pixels",
        (1, 3, 224, 224),
        (64, 3, 7, 7),
        padding=3,
        stride=2,
    ),
    _convolution("convolution 1x1", (3, 128, 28, 28), (256, 128, 1, 1)),
    _convolution("convolution 1x1, stride 2", (3, 128, 28, 28), (256, 128, 1, 1), stride=2),
    _convolution(
        "convolution 3x3, dilation 2", (3, 32, 40, 40), (32, 32, 3, 3), padding=2, dilation=2
    ),
    _convolution("patches of 16, 224 pixels", (3, 3, 224, 224), (192, 3, 16, 16), stride=16),
    _convolution("depthwise 3x3, 56 pixels", (3, 64, 56, 56), (64, 1, 3, 3), padding=1, groups=64),
    _convolution(
        "depthwise 3x3, stride 2", (3, 64, 56, 56), (64, 1, 3, 3), padding=1, stride=2, groups=64
    ),
    _convolution(
        "depthwise 5x5, 14 pixels", (3, 256, 14, 14), (256, 1, 5, 5), padding=2, groups=256
    ),
    _convolution("eight groups 3x3", (3, 64, 28, 28), (64, 8, 3, 3), padding=1, groups=8),
    _convolution("convolution of a sequence, window 9", (3, 80, 500), (256, 80, 9), padding=4),
    _convolution("convolution of volumes", (2, 16, 16, 28, 28), (32, 16, 3, 3, 3), padding=1),
    _transposed("transposed 2x2, stride 2", (3, 64, 28, 28), (64, 32, 2, 2), stride=2),
    _transposed("transposed 4x4, stride 2", (3, 64, 14, 14), (64, 32, 4, 4), stride=2, padding=1),
    Case(
        "twenty convolutions in a scan",
        {"x": (20, 3, 16, 28, 28), "w": (16, 16, 3, 3)},
        "scan(partial(step, w), 0.0 * x[0], x)[0]",
        _scan_of_convolutions,
        more="map step(w: f32[16, 16, 3, 3], h: f32[3, 16, 28, 28], x: f32[3, 16, 28, 28]):\n"
        "    (tanh(conv2d(h, 0.1 * w, padding=1) + x), 0.0)",
    ),
    _rows("softmax", "softmax(x)", partial(torch.softmax, dim=-1), 512, 256),
    _rows("softmax", "softmax(x)", partial(torch.softmax, dim=-1), 37, 1000),
    _rows("softmax of columns", "softmax(x, axis=0)", partial(torch.softmax, dim=0), 512, 256),
    _norm_of_rows(512, 256),
    _norm_of_rows(37, 1000),
    _rows("gelu", "gelu(x)", F.gelu, 512, 256),
    _batch_norm(32, 64, 28, 28),
    _batch_norm(3, 256, 7, 7),
    _batch_norm(128, 512),
    Case(
        "group norm, 3 x 64 x 28 x 28",
        {"x": (3, 64, 28, 28), "scale": (64,), "shift": (64,)},
        "group_norm(x, 8, scale, shift)",
        lambda x, scale, shift: F.group_norm(x, 8, scale, shift),
    ),
    _rows("max pool 2x2", "max_pool2d(x, 2)", partial(F.max_pool2d, kernel_size=2), 16, 64, 28, 28),
    _rows(
        "max pool 3x3, stride 2",
        "max_pool2d(x, 3, stride=2, padding=1)",
        partial(F.max_pool2d, kernel_size=3, stride=2, padding=1),
        *(1, 64, 112, 112),
    ),
    _rows(
        "average pool 3x3",
        "avg_pool2d(x, 3, stride=1, padding=1)",
        partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1),
        *(4, 64, 28, 28),
    ),
    _rows(
        "mean of pixels", "mean(x, axis=[2, 3])", partial(torch.mean, dim=(2, 3)), 16, 256, 14, 14
    ),
    _rows(
        "images twice the size",
        "upsample_nearest(x, 2)",
        partial(F.interpolate, scale_factor=2),
        *(4, 64, 28, 28),
    ),
    _rows(
        "channels last",
        "transpose(x, [0, 2, 3, 1])",
        lambda x: x.permute(0, 2, 3, 1).contiguous(),
        *(16, 64, 28, 28),
    ),
    _rows("running sums", "cumsum(x, axis=1)", partial(torch.cumsum, dim=1), 1000, 1000),
    Case(
        "squared distances, 300 and 300 points of 64",
        {"x": (300, 64), "y": (300, 64)},
        "[i, j] |-> sum[k]((x[i, k] - y[j, k])^2)",
        lambda x, y: (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * x @ y.T,
    ),
    _attention(12, 4, 64, 32, causal=True),
    _attention(1, 8, 512, 64),
    _attention(1, 8, 512, 64, causal=True),
    _attention(3, 3, 197, 64),
    _attention(1, 4, 2048, 64, causal=True),
    _own_attention(2, 4, 256, 32),
)
