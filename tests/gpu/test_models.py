"""The ladder of models on each device: results, gradients and training steps against the CPU."""

from __future__ import annotations

from devices import on_devices
from ladder import MODELS, check


@on_devices(MODELS)
def test_models(name: str, device: str) -> None:
    check(name, device)
