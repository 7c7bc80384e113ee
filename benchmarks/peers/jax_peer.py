"""JAX: jitted functions, whose buffers of parameters are donated to a training step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from models.jax_models import MODELS, adam_step, loss_of
from speed_rows import MODELS as ABOUT
from speed_rows import Row


class Peer:
    """XLA on the CPU."""

    trains = True
    version = jax.__version__

    def __init__(self, row: Row, weights: Mapping[str, Any], folder: Path, threads: int) -> None:
        parts = (".query.", ".key.", ".value.")
        own = {k: a for k, a in weights.items() if not any(part in k for part in parts)}
        self.params = jax.device_put(own)
        inputs = jax.device_put(dict(row.inputs()))
        self.y = inputs.pop("y", None)
        self.inputs = tuple(inputs.values())
        self.model = MODELS[row.model]
        self.binary = ABOUT[row.model].binary
        if row.training:
            zeros = {name: jnp.zeros_like(array) for name, array in self.params.items()}
            self.state = (zeros, {k: jnp.zeros_like(z) for k, z in zeros.items()}, jnp.float32(0))
            self.step = jax.jit(self._step, donate_argnums=(0, 1))
        else:
            self.forward = jax.jit(self.model)

    def call(self) -> Any:
        """A step on the batch, or the scores."""
        if self.y is None:
            return self.forward(self.params, *self.inputs).block_until_ready()
        self.params, self.state, loss = self.step(self.params, self.state, self.inputs, self.y)
        return np.float32(loss)

    def _step(self, params: Any, state: Any, inputs: Any, y: Any) -> Any:
        def loss_of_batch(p: Any) -> Any:
            return loss_of(self.model(p, *inputs), y, self.binary)

        loss, gradients = jax.value_and_grad(loss_of_batch)(params)
        m, v, t = state
        updated = {k: adam_step(params[k], m[k], v[k], t + 1, g) for k, g in gradients.items()}
        new, m, v = ({k: each[i] for k, each in updated.items()} for i in range(3))
        return new, (m, v, t + 1), loss
