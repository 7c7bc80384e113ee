"""mapsto, as a user calls it from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from speed_rows import MODELS, Row

import mapsto as mt
from mapsto.compiler import lowered
from mapsto.dsl.elaborated import Elaborated
from mapsto.lowering.buffers import BufferPlan
from mapsto.runtime.threads import set_threads

MODEL_FILES = Path(__file__).parents[1] / "models"


class Peer:
    """Nets of `benchmarks/models/*.mto`."""

    trains = True
    version = mt.__version__

    def __init__(self, row: Row, weights: Mapping[str, Any], folder: Path, threads: int) -> None:
        set_threads(threads)
        self.inputs = dict(row.inputs())
        library = mt.load(MODEL_FILES / f"{row.model}.mto")
        self.net = getattr(library, MODELS[row.model].module)(seed=0)
        types = {k: getattr(mt, _dtype(a))[a.shape] for k, a in self.inputs.items() if k != "y"}
        self.net.init(**types)
        for path, parameter in self.net.params.items():
            parameter[...] = weights[path]
        # As the peers that read ONNX models have it: weights are no arguments there.
        self.program: Any = self.net.freeze() if row.kind == "infer" else self.net
        self.arguments = tuple(self.inputs.values())
        if row.training:
            self.program = library.Step(net=self.net)
        elif row.has_labels:
            objective = library.objective
            self.program = mt.value_and_grad(objective) if row.kind == "gradient" else objective
            self.arguments = (self.net, *self.arguments)
        self.kind = row.kind

    def call(self) -> Any:
        """The scores, the loss, or a step on the batch."""
        if self.kind == "train":
            return np.float32(self.program.step(**self.inputs))
        result = self.program(*self.arguments)
        return result[0] if self.kind == "gradient" else result

    def details(self) -> dict[str, int]:
        """What the memory planner did for the compiled program."""
        program = self.program.compiled_step if self.kind == "train" else self.program
        types = {name: getattr(mt, _dtype(a))[a.shape] for name, a in self.inputs.items()}
        static = {"net": self.net} if self.kind in ("value", "gradient") else {}
        plan = plan_of(program.elaborate(types, static), program.options)
        return {"arena": int(plan.arena_bytes), "live": plan.live_bytes}  # type: ignore[arg-type]


def plan_of(elaborated: Elaborated, options: mt.Options) -> BufferPlan:
    """Where the tensors of a program are."""
    return lowered(elaborated, options).functions[elaborated.entry].plan


def _dtype(array: Any) -> str:
    return {"f": "f32", "i": "i32"}[array.dtype.kind]
