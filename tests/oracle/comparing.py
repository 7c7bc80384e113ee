"""Maps and modules of the library beside their PyTorch counterparts: values, and gradients by
inputs and parameters of a sum weighted by random numbers, so that every element matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import mapsto as mt

Array = np.ndarray[Any, Any]
Shapes = Sequence[tuple[int, ...]]
Layout = Mapping[str, tuple[str, Callable[[Array], Array]]]
"""For each of our parameters the PyTorch parameter that it is, and how that is rearranged."""

TOLERANCE = {"f32": 1e-5, "f64": 1e-10}
NUMPY = {"f32": np.float32, "f64": np.float64}


def numbers(dtype: str, shape: Sequence[int], seed: int) -> Array:
    """Standard normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(NUMPY[dtype])


def inputs(shapes: Shapes, dtype: str) -> dict[str, Array]:
    """Arrays of these shapes, named a, b, c.."""
    pairs = zip("abcdef", shapes, strict=False)
    return {name: numbers(dtype, shape, i) for i, (name, shape) in enumerate(pairs)}


def assert_close(found: Array, expected: Any, dtype: str) -> None:
    """Equal to the tolerance of the dtype, relative to the greatest element."""
    wanted = expected.detach().numpy()
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    limit = TOLERANCE[dtype] * max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(found, wanted, rtol=TOLERANCE[dtype], atol=limit)


def declared(arrays: Mapping[str, Array]) -> str:
    """Parameters of a map that take these arrays."""
    types = {name: mt.ir.TensorType(mt.ir.DType.of(a.dtype), a.shape) for name, a in arrays.items()}
    return ", ".join(f"{name}: {type}" for name, type in types.items())


def compare_map(text: str, shapes: Shapes, theirs: Callable[..., Any], dtype: str = "f64") -> None:
    """A map applied in `text` to arrays named a, b, c of these shapes."""
    import torch

    arrays = {
        n: numbers(dtype, s, i) for i, (n, s) in enumerate(zip("abcdef", shapes, strict=False))
    }
    inner = [torch.tensor(array, requires_grad=True) for array in arrays.values()]
    outer = theirs(*inner)
    u = numbers(dtype, outer.shape, 9)
    (outer * torch.tensor(u)).sum().backward()
    by = ", ".join(map(str, range(len(arrays))))
    lib = mt.loads(
        f"map weighted({declared(arrays | {'u': u})}) -> {dtype}:\n    sum({text} * u)\n\n"
        f"map both({declared(arrays | {'u': u})}):\n"
        f"    ({text}, grad(weighted, [{by}])({', '.join(arrays)}, u))\n"
    )
    value, slopes = lib.both(*arrays.values(), u)
    assert_close(value, outer, dtype)
    for slope, tensor in zip(slopes, inner, strict=True):
        assert_close(slope, tensor.grad, dtype)


def compare_module(
    layer: str,
    theirs: Any,
    shapes: Shapes,
    layout: Layout,
    dtype: str = "f64",
    call: Callable[..., Any] | None = None,
    text: str = "",
) -> None:
    """A module made as in `layer` on inputs of these shapes; `call` is how PyTorch's is applied."""
    import torch

    theirs = theirs.to(torch.float64 if dtype == "f64" else torch.float32)
    theirs.zero_grad()
    arrays = {
        n: numbers(dtype, s, i) for i, (n, s) in enumerate(zip("abcdef", shapes, strict=False))
    }
    inner = [torch.tensor(array, requires_grad=True) for array in arrays.values()]
    outer = (call or theirs)(*inner)
    u = numbers(dtype, outer.shape, 9)
    (outer * torch.tensor(u)).sum().backward()
    names = ", ".join(arrays)
    lib = mt.loads(
        f"{text}\nmodule Net():\n    inner = {layer}\n\n"
        f"    map ({declared(arrays)}): inner({names})\n\n"
        f"map weighted(net: module, {declared(arrays | {'u': u})}) -> {dtype}:\n"
        f"    sum(net({names}) * u)\n"
    )
    net = lib.Net(seed=1)
    net(*arrays.values())
    parameters = dict(theirs.named_parameters())
    for name, (source, arrange) in layout.items():
        net.params[f"inner.{name}"][...] = arrange(parameters[source].detach().numpy())
    assert_close(net(*arrays.values()), outer, dtype)
    by_params, *by_inputs = mt.grad(lib.weighted, tuple(range(len(arrays) + 1)))(
        net, *arrays.values(), u
    )
    for name, (source, arrange) in layout.items():
        found = by_params[f"inner.{name}"]
        assert_close(found, torch.tensor(arrange(parameters[source].grad.numpy())), dtype)
    for slope, tensor in zip(by_inputs, inner, strict=True):
        assert_close(slope, tensor.grad, dtype)
