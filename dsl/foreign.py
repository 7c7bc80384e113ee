"""How this language says what has another name in NumPy, PyTorch and JAX, for hints."""

from __future__ import annotations

from collections.abc import Iterable

from mapsto.dsl.diagnostics import Help, nearest

__all__ = ["FRAMEWORKS", "hint"]

FRAMEWORKS = frozenset({"F", "jax", "jnp", "lax", "nn", "np", "numpy", "self", "tf", "torch"})
"""Prefixes that names have there."""

_NAMES = {
    "BCEWithLogitsLoss": "binary_cross_entropy",
    "BatchNorm1d": "BatchNorm",
    "BatchNorm2d": "BatchNorm",
    "BatchNorm3d": "BatchNorm",
    "CrossEntropyLoss": "cross_entropy",
    "Linear": "Dense",
    "MSELoss": "mse",
    "MultiheadAttention": "MultiHeadAttention",
    "TransformerEncoderLayer": "TransformerEncoderBlock",
    "amax": "max",
    "amin": "min",
    "bmm": "a @ b",
    "cat": "concat",
    "checkpoint": "remat",
    "clamp": "clip",
    "concatenate": "concat",
    "cond": "if condition then a else b",
    "detach": "stop_gradient",
    "double": "f64",
    "einsum": "[i, j] |-> sum[k](a[i, k] * b[k, j])",
    "float16": "f16",
    "float32": "f32",
    "float64": "f64",
    "bfloat16": "bf16",
    "fori_loop": "scan",
    "full_like": "full(x.shape, value)",
    "half": "f16",
    "int32": "i32",
    "int64": "i64",
    "long": "i64",
    "masked_fill": "where(mask, value, x)",
    "matmul": "a @ b",
    "mm": "a @ b",
    "mse_loss": "mse",
    "ones_like": "full(x.shape, 1.0)",
    "permute": "transpose",
    "power": "x ^ y",
    "rand": "uniform",
    "randn": "normal",
    "swish": "silu",
    "uint8": "u8",
    "unsqueeze": "expand_dims",
    "view": "reshape",
    "while_loop": "while",
    "zeros_like": "full(x.shape, 0.0)",
}

_ARGUMENTS = {
    "dim": "axis",
    "in_dims": "in_axes",
    "keepdim": "keepdims",
    "keep_dims": "keepdims",
    "out_dims": "out_axes",
}


def hint(
    name: str, candidates: Iterable[str], *, argument: bool = False
) -> tuple[Help | None, str | None]:
    """The help about a name without a meaning, and what it suggests; `candidates` have one."""
    names = list(candidates)
    replacement = (_ARGUMENTS if argument else _NAMES).get(name)
    if replacement is not None and (not replacement.isidentifier() or replacement in names):
        return Help.NAME_HERE, replacement
    suggestion = nearest(name, names)
    return (None if suggestion is None else Help.DID_YOU_MEAN), suggestion
