"""Exact values of the vector math functions, to more precision than is measured."""

import math
from collections.abc import Callable, Mapping

import mpmath
import numpy as np
from kernels import Array, available_machines, function_kernel

from mapsto.lowering.llvm.types import DOUBLE

Reference = Callable[..., Array]


def _sigmoid(x: Array) -> Array:
    decay = np.exp(-np.abs(x))
    return np.where(x < 0, decay, 1) / (1 + decay)


_NUMPY: Mapping[str, Reference] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sin": np.sin,
    "cos": np.cos,
    "pow": np.power,
}


def reference_f64(name: str) -> Reference:
    """The function in f64, to measure f32: NumPy's, or for erf our own, which `ulp.py` measures."""
    if name != "erf":
        return _NUMPY[name]
    kernel = function_kernel("erf", DOUBLE, next(iter(available_machines().values())))

    def erf(x: Array) -> Array:
        result = np.empty_like(x)
        kernel(x, result)
        return result

    return erf


def reference_extended(name: str) -> Reference:
    """The function in NumPy's extended precision, to measure f64; for erf by mpmath."""
    if name != "erf":
        function = _NUMPY[name]
        return lambda *x: function(*(argument.astype(np.longdouble) for argument in x))
    return _erf_extended


def _erf_extended(x: Array) -> Array:
    mpmath.mp.prec = 100
    result = np.empty(x.size, np.longdouble)
    for index, value in enumerate(x.tolist()):
        exact = mpmath.erf(value)
        high = float(exact)
        low = float(exact - high) if math.isfinite(high) else 0.0
        result[index] = np.longdouble(high) + np.longdouble(low)
    return result
