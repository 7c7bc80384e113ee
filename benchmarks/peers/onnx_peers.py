"""ONNX Runtime and OpenVINO, on the model that PyTorch exports; they do not train here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from speed_rows import Row

__all__ = ["OpenVinoPeer", "RuntimePeer"]


class _OnnxPeer:
    """A model in a file; it is read and compiled at the first call."""

    trains = False

    def __init__(self, row: Row, weights: Mapping[str, Any], folder: Path, threads: int) -> None:
        self.path = str(folder / "model.onnx")
        self.threads = threads
        self.inputs = list(row.inputs().values())

    def call(self) -> Any:
        """The scores."""
        return self._run(self.inputs)

    @cached_property
    def _run(self) -> Any:
        raise NotImplementedError


class RuntimePeer(_OnnxPeer):
    """ONNX Runtime with its CPU provider."""

    version = version("onnxruntime")

    @cached_property
    def _run(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = onnxruntime.InferenceSession(self.path, options, ["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]
        return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))[0]


class OpenVinoPeer(_OnnxPeer):
    """OpenVINO, told to answer quickly."""

    version = version("openvino")

    @cached_property
    def _run(self) -> Any:
        import openvino

        hints = {"INFERENCE_NUM_THREADS": self.threads, "PERFORMANCE_HINT": "LATENCY"}
        request = openvino.compile_model(self.path, "CPU", hints).create_infer_request()
        return lambda inputs: request.infer(inputs)[0]
