"""The peers of the speed table, each a class of a module that a process of its own imports.

A peer has `version`, and is made of a row, the weights by path and the number of threads; `call`
does the row's work once and gives its result: scores, or the loss before a training step.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["PEERS", "installed", "peer_class"]

PEERS: Mapping[str, tuple[str, str, str]] = {
    "mapsto": ("mapsto", "mapsto_peer", "Peer"),
    "pytorch": ("PyTorch", "torch_peer", "Peer"),
    "torch.compile": ("torch.compile", "torch_peer", "CompiledPeer"),
    "jax": ("JAX", "jax_peer", "Peer"),
    "onnxruntime": ("ONNX Runtime", "onnx_peers", "RuntimePeer"),
    "openvino": ("OpenVINO", "onnx_peers", "OpenVinoPeer"),
    "numpy": ("NumPy", "numpy_peer", "Peer"),
}
"""By name in options: the name in the table, the module here, the class in it."""

_PACKAGES = {"pytorch": "torch", "torch.compile": "torch"}


def installed(name: str) -> bool:
    """Whether what a peer needs is installed."""
    return find_spec(_PACKAGES.get(name, name)) is not None


def peer_class(name: str) -> Any:
    """The class of a peer, whose module is imported with all that it measures."""
    _, module, attribute = PEERS[name]
    return getattr(import_module(f"peers.{module}"), attribute)
