"""JAX: jitted functions, whose buffers of parameters are donated to a training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        self.call = self._call_of(row)

    def _call_of(self, row: Row) -> Callable[[], Any]:
        """What does the row's work."""
        if row.training:
            zeros = {name: jnp.zeros_like(array) for name, array in self.params.items()}
            self.state = (zeros, {k: jnp.zeros_like(z) for k, z in zeros.items()}, jnp.float32(0))
            self.step = jax.jit(self._step, donate_argnums=(0, 1))
            return self._train
        if row.has_labels:
            with_gradient = row.kind == "gradient"
            loss = jax.jit(jax.value_and_grad(self._loss) if with_gradient else self._loss)
            return lambda: _value(jax.block_until_ready(loss(self.params, self.inputs, self.y)))
        forward = jax.jit(self.model)
        return lambda: forward(self.params, *self.inputs).block_until_ready()

    def _train(self) -> Any:
        self.params, self.state, loss = self.step(self.params, self.state, self.inputs, self.y)
        return np.float32(loss)

    def _loss(self, params: Any, inputs: Any, y: Any) -> Any:
        return loss_of(self.model(params, *inputs), y, self.binary)

    def _step(self, params: Any, state: Any, inputs: Any, y: Any) -> Any:
        loss, gradients = jax.value_and_grad(self._loss)(params, inputs, y)
        m, v, t = state
        updated = {k: adam_step(params[k], m[k], v[k], t + 1, g) for k, g in gradients.items()}
        new, m, v = ({k: each[i] for k, each in updated.items()} for i in range(3))
        return new, (m, v, t + 1), loss


def _value(result: Any) -> Any:
    """The loss of what may be a loss with its gradient."""
    return np.float32(result[0] if isinstance(result, tuple) else result)
