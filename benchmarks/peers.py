"""The same models in PyTorch, for timing side by side and for checking results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn import functional

__all__ = ["TorchMLP"]


class TorchMLP:
    """A multi-layer perceptron with relu between its layers, trained with Adam."""

    def __init__(self, sizes: Sequence[int], parameters: Mapping[str, Any]) -> None:
        layers: list[torch.nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise(sizes)):
            layer = torch.nn.Linear(inputs, outputs)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(parameters[f"layers.{index}.w"].T.copy()))
                layer.bias.copy_(torch.from_numpy(parameters[f"layers.{index}.b"].copy()))
            layers += [layer, torch.nn.ReLU()]
        self.net = torch.nn.Sequential(*layers[:-1])
        self.optimizer = torch.optim.Adam(self.net.parameters(), 1e-3, fused=True)

    def forward(self, x: Any) -> Callable[[], Any]:
        """The inference call on a fixed batch."""
        batch = torch.from_numpy(x)

        def run() -> Any:
            with torch.inference_mode():
                return self.net(batch)

        return run

    def step(self, x: Any, y: Any) -> Callable[[], float]:
        """The training step on a fixed batch."""
        batch, labels = torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))

        def run() -> float:
            self.optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(self.net(batch), labels)
            loss.backward()
            self.optimizer.step()
            return float(loss)

        return run
