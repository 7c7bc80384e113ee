"""The models of the speed table, in the language and in PyTorch, where the benchmarks have them."""

from __future__ import annotations

import sys
from pathlib import Path

MODELS = Path(__file__).parents[2] / "benchmarks" / "models"
sys.path.append(str(MODELS.parent))

from models.torch_models import MODELS as PEERS  # noqa: E402 (found from here on)

__all__ = ["MODELS", "PEERS"]
