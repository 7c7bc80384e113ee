"""mapsto: a language for neural networks and an optimizing compiler for it.

import mapsto as mt

lib = mt.load("digits.mto")
net = lib.MLP(hidden=256, seed=0)
y = net(x)
"""

from importlib.metadata import version

from mapsto import ir
from mapsto.callables import Map
from mapsto.compiler import Options
from mapsto.dsl.library import DiagnosticsError
from mapsto.instances import Instance
from mapsto.ir.errors import IRError, MissingDerivative, PassError
from mapsto.ir.passes.base import Pass
from mapsto.ir.rewriting import Rewriter, rewrite
from mapsto.library import Library, load, loads
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.element_rules import scalar_rule
from mapsto.runtime.dataset import DataError
from mapsto.runtime.errors import (
    ArgumentError,
    ArtifactError,
    CheckpointError,
    ExecutionError,
    LinkerNotFound,
)
from mapsto.runtime.threads import set_threads, threads
from mapsto.runtime.training import Epoch, History, TrainingError, TrainingInterrupted
from mapsto.specs import bf16, bool_, f16, f32, f64, i8, i16, i32, i64, u8, u32
from mapsto.trainer import Trainer
from mapsto.transforms import grad, jvp, value_and_grad, vmap

__version__ = version("mapsto")

__all__ = [
    "ArgumentError",
    "ArtifactError",
    "CheckpointError",
    "DataError",
    "DiagnosticsError",
    "Epoch",
    "ExecutionError",
    "History",
    "IRError",
    "Instance",
    "Library",
    "LinkerNotFound",
    "Machine",
    "Map",
    "MissingDerivative",
    "Options",
    "Pass",
    "PassError",
    "Rewriter",
    "Trainer",
    "TrainingError",
    "TrainingInterrupted",
    "__version__",
    "bf16",
    "bool_",
    "f16",
    "f32",
    "f64",
    "grad",
    "i8",
    "i16",
    "i32",
    "i64",
    "ir",
    "jvp",
    "load",
    "loads",
    "rewrite",
    "scalar_rule",
    "set_threads",
    "threads",
    "u8",
    "u32",
    "value_and_grad",
    "vmap",
]
