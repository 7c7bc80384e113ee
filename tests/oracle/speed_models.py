"""The models of the speed table, in the language and in PyTorch, where the benchmarks have them."""

from __future__ import annotations

from pathlib import Path

from models.torch_models import MODELS as PEERS

MODELS = Path(__file__).parents[2] / "benchmarks" / "models"

__all__ = ["MODELS", "PEERS"]
