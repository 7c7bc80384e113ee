"""Weights of a module of PyTorch for the same module of the language."""

from typing import Any

import torch

__all__ = ["copy_weights"]

LEAVES = {
    "weight": ("w", "scale", "table"),
    "bias": ("b", "shift"),
    "weight_ih_l0": ("ahead.0.w",),
    "weight_hh_l0": ("ahead.0.u",),
    "bias_ih_l0": ("ahead.0.b",),
    "weight_ih_l0_reverse": ("back.0.w",),
    "weight_hh_l0_reverse": ("back.0.u",),
    "bias_ih_l0_reverse": ("back.0.b",),
}
"""What a parameter of PyTorch may be called here."""


def copy_weights(source: torch.nn.Module, net: Any) -> None:
    """Gives the net the parameters of PyTorch's; matrices of linear layers are transposed."""
    left = set(net.params)
    trained = ((n, p) for n, p in source.named_parameters() if p.requires_grad)
    for name, tensor in trained:
        prefix, _, leaf = name.rpartition(".")
        names = [f"{prefix}.{own}".lstrip(".") for own in LEAVES.get(leaf, (leaf,))]
        path = next(path for path in names if path in net.params)
        array = tensor.detach().numpy()
        is_linear = array.ndim == 2 and path.endswith((".w", ".u"))
        net.params[path][...] = array.T if is_linear else array
        left.discard(path)
    assert not left, f"without a counterpart: {sorted(left)}"
