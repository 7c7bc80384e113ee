"""A program compiled for any batch gives the bits of the one compiled for the batch at hand."""

from __future__ import annotations

import numpy as np
import pytest

import mapsto as mt
from mapsto.compiler import compile_native

SOURCE = '''
module Net(hidden: int = 24):
    """Contractions, activations and a softmax over rows."""
    layers = [Dense(hidden, gelu), Dense(hidden, tanh), Dense(7)]

    map (x: f32[n, 20]) -> f32[n, 7]:
        softmax(chain(layers)(x))

map normalized(x: f32[n, 20]) -> f32[n, 20]:
    [n, d] |-> (x[n, d] - mean[k](x[n, k])) / sqrt(mean[k](x[n, k]^2) + 1e-5)

map columns(x: f32[n, 20]) -> f32[20]:
    sum(x, axis=0)

map elementwise(x: f32[n, 20]) -> f32[n]:
    let y = [n] |-> x[n, 3]
    exp(y) * log(abs(y)) + sigmoid(y) * tanh(y)

map total(x: f32[n, 20]) -> f32:
    sum(x * x)
'''

BATCHES = (1, 2, 3, 5, 7, 16, 29, 64, 100, 1000)


@pytest.mark.parametrize("name", ["Net", "normalized", "columns", "elementwise", "total"])
def test_any_batch_gives_the_same_bits(name: str) -> None:
    library = mt.loads(SOURCE)
    x = np.random.default_rng(0).normal(size=(max(BATCHES), 20)).astype(np.float32)
    function = library.Net(seed=1) if name == "Net" else getattr(library, name)
    function(x[:2])
    elaborated = function.elaborate({"x": mt.f32["n", 20]}, {})
    slots = (*elaborated.parameters, *elaborated.states)
    arrays = function.storage_for(slots) if name == "Net" else {}
    any_batch = compile_native(elaborated, function.options, arrays)
    for batch in BATCHES:
        for start in range(0, min(len(x) - batch, 40) + 1, 4):
            part = x[start : start + batch]
            expected, found = function(part), any_batch(part)
            assert expected.tobytes() == found.tobytes(), f"batch {batch}"
