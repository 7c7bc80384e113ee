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
        self.run = library.Step(net=self.net) if row.training else None
        self.arguments = tuple(self.inputs.values())

    def call(self) -> Any:
        """A step on the batch, or the scores."""
        if self.run is not None:
            return np.float32(self.run.step(**self.inputs))
        return self.net(*self.arguments)

    def details(self) -> dict[str, int]:
        """What the memory planner did for the compiled program."""
        compilable = self.net if self.run is None else self.run.compiled_step
        types = {name: getattr(mt, _dtype(a))[a.shape] for name, a in self.inputs.items()}
        plan = plan_of(compilable.elaborate(types, {}), compilable.options)
        return {"arena": int(plan.arena_bytes), "live": plan.live_bytes}  # type: ignore[arg-type]


def plan_of(elaborated: Elaborated, options: mt.Options) -> BufferPlan:
    """Where the tensors of a program are."""
    return lowered(elaborated, options).functions[elaborated.entry].plan


def _dtype(array: Any) -> str:
    return {"f": "f32", "i": "i32"}[array.dtype.kind]
