"""PyTorch, eager and compiled, with its fused Adam."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models.torch_models import MODELS, loss_of, weights_by_path
from speed_rows import MODELS as ABOUT
from speed_rows import Row

__all__ = ["CompiledPeer", "Peer", "model_of"]

warnings.filterwarnings("ignore")


def model_of(row: Row) -> torch.nn.Module:
    """The model with the weights that every peer gets: those of a seed."""
    torch.manual_seed(0)
    return MODELS[row.model]().train(row.has_labels)


def tensors(row: Row) -> dict[str, torch.Tensor]:
    """The inputs; class indices are i64, as PyTorch wants them."""
    found = {name: torch.from_numpy(array) for name, array in row.inputs().items()}
    if "y" in found and not ABOUT[row.model].binary:
        found["y"] = found["y"].long()
    return found


class Peer:
    """PyTorch as it is."""

    trains = True
    version = torch.__version__

    def __init__(self, row: Row, weights: Mapping[str, Any], folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        model = model_of(row)
        own = weights_by_path(model)
        assert all(np.array_equal(array, weights[path]) for path, array in own.items())
        inputs = tensors(row)
        y = inputs.pop("y", None)
        arguments = tuple(inputs.values())
        if row.training:
            self.call = self._step(row, model, arguments, y)
        elif row.has_labels:
            self.call = self._loss(row, model, arguments, y)
        else:
            forward = self._compiled(model)
            self.call = torch.inference_mode()(lambda: forward(*arguments).numpy())

    def _compiled(self, function: Any) -> Any:
        return function

    def _loss_of_batch(self, row: Row, model: torch.nn.Module) -> Any:
        binary = ABOUT[row.model].binary
        return self._compiled(lambda *x: loss_of(model(*x[:-1]), x[-1], binary))

    def _step(self, row: Row, model: torch.nn.Module, arguments: Any, y: Any) -> Any:
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, 1e-3, fused=True)
        loss_of_batch = self._loss_of_batch(row, model)

        def step() -> Any:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of_batch(*arguments, y)
            loss.backward()
            optimizer.step()
            return np.float32(loss.item())

        return step

    def _loss(self, row: Row, model: torch.nn.Module, arguments: Any, y: Any) -> Any:
        loss_of_batch = self._loss_of_batch(row, model)
        if row.kind == "value":
            return torch.no_grad()(lambda: np.float32(loss_of_batch(*arguments, y).item()))

        def gradient() -> Any:
            model.zero_grad(set_to_none=True)
            loss = loss_of_batch(*arguments, y)
            loss.backward()
            return np.float32(loss.item())

        return gradient


class CompiledPeer(Peer):
    """torch.compile."""

    def _compiled(self, function: Any) -> Any:
        return torch.compile(function)
