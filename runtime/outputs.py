"""Arrays that a caller gives for results: whether a program can write to them, and if not why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mapsto.ir.types import DType, TensorType
from mapsto.runtime.arrays import Array, check_arrays
from mapsto.runtime.errors import ArgumentError
from mapsto.runtime.signature import Signature, TensorSpec

__all__ = ["check_outputs"]


def check_outputs(
    signature: Signature,
    arguments: Sequence[Array],
    bound: Sequence[Array],
    outputs: Sequence[object],
) -> list[Array]:
    """The outputs, for arguments of these shapes.

    Raises ArgumentError where one is no dense writeable array of the result's type, or shares
    memory with another array that the program reads or writes.
    """
    specs = signature.results
    if len(outputs) != len(specs):
        raise ArgumentError(f"expected {len(specs)} arrays for results, found {len(outputs)}")
    sizes = check_arrays(signature.inputs, arguments)
    others = list(_named(signature, arguments, bound))
    found: list[Array] = []
    for spec, output in zip(specs, outputs, strict=True):
        wanted = spec.type.substitute(sizes)
        array = _writeable(spec, wanted, output)
        for name, other in others:
            if np.may_share_memory(array, other):
                raise ArgumentError(f"the array for {spec.name} shares memory with {name}")
        others.append((f"that for {spec.name}", array))
        found.append(array)
    return found


def _named(
    signature: Signature, arguments: Sequence[Array], bound: Sequence[Array]
) -> Iterator[tuple[str, Array]]:
    for spec, array in zip(signature.inputs, arguments, strict=True):
        yield f"the argument {spec.name}", array
    for spec, array in zip(signature.bound, bound, strict=True):
        yield f"the parameter {spec.name}", array


def _writeable(spec: TensorSpec, wanted: TensorType, output: object) -> Array:
    if type(output) is not np.ndarray:
        raise ArgumentError(
            f"expected a NumPy array for {spec.name}: {wanted}, found {type(output).__name__}"
        )
    dtype = DType.of(output.dtype) if output.dtype.isnative else None
    if dtype is not wanted.dtype or output.shape != wanted.shape:
        shape = ", ".join(map(str, output.shape))
        raise ArgumentError(
            f"expected an array for {spec.name}: {wanted}, found {dtype or output.dtype}[{shape}]"
        )
    flags = output.flags
    if not (flags.c_contiguous and flags.aligned and flags.writeable):
        raise ArgumentError(f"expected a dense, aligned, writeable array for {spec.name}: {wanted}")
    return output
