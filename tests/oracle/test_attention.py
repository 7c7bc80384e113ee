"""Attention, positions and the blocks of transformers: values and gradients as PyTorch's with the
same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import Layout, compare_map, compare_module

import mapsto as mt

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

F = torch.nn.functional
nn = torch.nn

QKV = [(2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 5)]


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_attention(dtype: str) -> None:
    compare_map("attention(a, b, c)", QKV, F.scaled_dot_product_attention, dtype)


def test_causal_attention() -> None:
    def theirs(q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    compare_map("attention(a, b, c, causal=true)", [QKV[0]] * 3, theirs)


def test_a_causal_query_that_is_last_sees_all_keys() -> None:
    def theirs(q: Any, k: Any, v: Any) -> Any:
        mask = torch.ones(4, 6, dtype=torch.bool).tril(2)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    compare_map("attention(a, b, c, causal=true)", QKV, theirs)


def test_attention_with_a_mask() -> None:
    def theirs(q: Any, k: Any, v: Any) -> Any:
        band = (torch.arange(4)[:, None] - torch.arange(6)).abs() <= 1
        return F.scaled_dot_product_attention(q, k, v, attn_mask=band)

    band = "abs(expand_dims(iota(4), 1) - iota(6)) <= 1"
    compare_map(f"attention(a, b, c, mask={band})", QKV, theirs)


def test_grouped_attention() -> None:
    def theirs(q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    shapes = [(2, 6, 4, 5), (2, 3, 6, 5), (2, 3, 6, 5)]
    compare_map("grouped_attention(a, b, c)", shapes, theirs)


def rotate(x: Any) -> Any:
    """The complex product with exp(i * angle) at each position."""
    half = x.shape[-1] // 2
    speed = 10000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
    angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * speed
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(
        torch.ones_like(angle), angle
    )
    return torch.cat([turned.real, turned.imag], -1)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_rotary(dtype: str) -> None:
    compare_map("rotary(a)", [(2, 3, 5, 8)], rotate, dtype)


def test_heads() -> None:
    compare_map("split_heads(a, 3)", [(2, 4, 6)], lambda x: x.view(2, 4, 3, 2).transpose(1, 2))
    compare_map("join_heads(a)", [(2, 3, 4, 2)], lambda x: x.transpose(1, 2).reshape(2, 4, 6))


def attention_layout(ours: str, theirs: str, width: int) -> Layout:
    """The three projections are rows of one matrix there."""
    layout: dict[str, Any] = {}
    for i, name in enumerate(("query", "key", "value")):
        rows = slice(i * width, (i + 1) * width)
        weight, bias = f"{theirs}in_proj_weight", f"{theirs}in_proj_bias"
        layout[f"{ours}{name}.w"] = (weight, lambda w, rows=rows: w[rows].T)
        layout[f"{ours}{name}.b"] = (bias, lambda b, rows=rows: b[rows])
    layout[f"{ours}output.w"] = (f"{theirs}out_proj.weight", np.transpose)
    layout[f"{ours}output.b"] = (f"{theirs}out_proj.bias", np.asarray)
    return layout


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_self_attention(dtype: str) -> None:
    theirs = nn.MultiheadAttention(6, 2, batch_first=True)
    layout = attention_layout("", "", 6)
    module = "MultiHeadAttention(6, 2)"
    compare_module(module, theirs, [(2, 4, 6)], layout, dtype, lambda x: theirs(x, x, x)[0])


def test_cross_attention_of_causal_heads() -> None:
    theirs = nn.MultiheadAttention(6, 3, batch_first=True)
    mask = torch.ones(4, 5, dtype=torch.bool).triu(2)

    def call(x: Any, memory: Any) -> Any:
        return theirs(x, memory, memory, attn_mask=mask)[0]

    shapes = [(2, 4, 6), (2, 5, 6)]
    layout = attention_layout("", "", 6)
    compare_module("MultiHeadAttention(6, 3, causal=true)", theirs, shapes, layout, call=call)


TEXT = """
module Padded():
    attention = MultiHeadAttention(6, 2)

    map (x: f64[n, t, 6]) -> f64[n, t, 6]:
        attention(x, mask=keys_mask([n < 2, j < 4] |-> j < 3 - n))
"""


def test_padding_mask() -> None:
    theirs = nn.MultiheadAttention(6, 2, batch_first=True)
    padding = torch.tensor([[False, False, False, True], [False, False, True, True]])

    def call(x: Any) -> Any:
        return theirs(x, x, x, key_padding_mask=padding)[0]

    layout = attention_layout("attention.", "", 6)
    compare_module("Padded()", theirs, [(2, 4, 6)], layout, call=call, text=TEXT)


def block_layout(norms: int, attentions: dict[str, str]) -> Layout:
    layout: dict[str, Any] = {}
    for ours, theirs in attentions.items():
        layout |= attention_layout(f"{ours}.", f"{theirs}.", 6)
    for ours, theirs in (("up", "linear1"), ("down", "linear2")):
        layout[f"feed_forward.{ours}.w"] = (f"{theirs}.weight", np.transpose)
        layout[f"feed_forward.{ours}.b"] = (f"{theirs}.bias", np.asarray)
    for i in range(1, norms + 1):
        layout[f"norm{i}.scale"] = (f"norm{i}.weight", np.asarray)
        layout[f"norm{i}.shift"] = (f"norm{i}.bias", np.asarray)
    return layout


@pytest.mark.parametrize("pre_norm", [True, False])
def test_encoder_block(pre_norm: bool) -> None:
    theirs = nn.TransformerEncoderLayer(
        6, 2, 9, dropout=0, activation="gelu", batch_first=True, norm_first=pre_norm
    )
    text = f"TransformerEncoderBlock(6, 2, 9, gelu, pre_norm={str(pre_norm).lower()})"
    compare_module(text, theirs, [(2, 4, 6)], block_layout(2, {"attention": "self_attn"}))


@pytest.mark.parametrize("pre_norm", [True, False])
def test_decoder_block(pre_norm: bool) -> None:
    theirs = nn.TransformerDecoderLayer(6, 2, 9, dropout=0, batch_first=True, norm_first=pre_norm)
    mask = torch.ones(4, 4, dtype=torch.bool).triu(1)

    def call(x: Any, memory: Any) -> Any:
        return theirs(x, memory, tgt_mask=mask)

    text = f"TransformerDecoderBlock(6, 2, 9, pre_norm={str(pre_norm).lower()})"
    layout = block_layout(3, {"attention": "self_attn", "cross": "multihead_attn"})
    compare_module(text, theirs, [(2, 4, 6), (2, 5, 6)], layout, call=call)


def test_feed_forward_and_learned_positions() -> None:
    theirs = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    layout = {
        f"{ours}.{name}": (f"{index}.{source}", arrange)
        for ours, index in (("up", 0), ("down", 2))
        for name, source, arrange in (("w", "weight", np.transpose), ("b", "bias", np.asarray))
    }
    compare_module("FeedForward(3, 6)", theirs, [(2, 5, 4)], layout)
    table = nn.Embedding(8, 4)
    layout = {"table": ("weight", np.asarray)}
    rows = torch.arange(5)
    compare_module(
        "LearnedPositions(8)", table, [(2, 5, 4)], layout, call=lambda x: x + table(rows)
    )


def test_sinusoidal_positions() -> None:
    found = mt.loads("map f() -> f64[7, 6]: sinusoidal_positions(7, 6, f64)").f()
    rate = 10000.0 ** (-np.arange(0, 6, 2) / 6)
    angle = np.arange(7)[:, None] * rate
    expected = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(7, 6)
    np.testing.assert_allclose(found, expected, atol=1e-12)
