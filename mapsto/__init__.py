"""mapsto: a language for neural networks and an optimizing compiler for it.

import mapsto as mt

lib = mt.load("digits.mto")
net = lib.MLP(hidden=256, seed=0)
y = net(x)
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

_HERE = Path(__file__).parent
if not (_HERE / "ir").is_dir():
    # A checkout: the folders that are installed as subpackages lie beside this one.
    __path__.append(str(_HERE.parent))

if TYPE_CHECKING:
    from mapsto import ir
    from mapsto.artifacts import build
    from mapsto.callables import Map
    from mapsto.compiler import Options
    from mapsto.dsl.library import DiagnosticsError
    from mapsto.instances import Instance
    from mapsto.ir.errors import (
        AssertionFailed,
        IRError,
        MissingDerivative,
        MissingLowering,
        PassError,
    )
    from mapsto.ir.passes.base import Pass
    from mapsto.ir.rewriting import Rewriter, rewrite
    from mapsto.library import Library, load, loads
    from mapsto.lowering.cpu.machine import Machine
    from mapsto.lowering.element_rules import scalar_rule
    from mapsto.placement import device_put, devices
    from mapsto.runtime.dataset import windows
    from mapsto.runtime.errors import (
        ArgumentError,
        ArtifactError,
        CheckpointError,
        DataError,
        DeviceError,
        ExecutionError,
        LinkerNotFound,
        TrainingError,
        TrainingInterrupted,
    )
    from mapsto.runtime.history import Epoch, Evaluation, History
    from mapsto.runtime.threads import set_threads, threads
    from mapsto.specs import bf16, bool_, f16, f32, f64, i8, i16, i32, i64, u8, u32
    from mapsto.trainer import Trainer
    from mapsto.transforms import (
        eval_mode,
        grad,
        hessian,
        jvp,
        remat,
        train_mode,
        value_and_grad,
        vmap,
    )
    from mapsto.updates import update

    __version__: str

_HOMES = {
    "mapsto.artifacts": ("build",),
    "mapsto.callables": ("Map",),
    "mapsto.compiler": ("Options",),
    "mapsto.dsl.library": ("DiagnosticsError",),
    "mapsto.instances": ("Instance",),
    "mapsto.ir.errors": (
        "AssertionFailed",
        "IRError",
        "MissingDerivative",
        "MissingLowering",
        "PassError",
    ),
    "mapsto.ir.passes.base": ("Pass",),
    "mapsto.ir.rewriting": ("Rewriter", "rewrite"),
    "mapsto.library": ("Library", "load", "loads"),
    "mapsto.lowering.cpu.machine": ("Machine",),
    "mapsto.lowering.element_rules": ("scalar_rule",),
    "mapsto.placement": ("device_put", "devices"),
    "mapsto.runtime.dataset": ("windows",),
    "mapsto.runtime.errors": (
        "ArgumentError",
        "ArtifactError",
        "CheckpointError",
        "DataError",
        "DeviceError",
        "ExecutionError",
        "LinkerNotFound",
        "TrainingError",
        "TrainingInterrupted",
    ),
    "mapsto.runtime.history": ("Epoch", "Evaluation", "History"),
    "mapsto.runtime.threads": ("set_threads", "threads"),
    "mapsto.specs": ("bf16", "bool_", "f16", "f32", "f64", "i8", "i16", "i32", "i64", "u8", "u32"),
    "mapsto.trainer": ("Trainer",),
    "mapsto.updates": ("update",),
    "mapsto.transforms": (
        "eval_mode",
        "grad",
        "hessian",
        "jvp",
        "remat",
        "train_mode",
        "value_and_grad",
        "vmap",
    ),
}
"""Where each name is defined.  A name is imported when it is first used: `mapsto check` does not
wait for the compiler."""

__all__ = [
    "ArgumentError",
    "ArtifactError",
    "AssertionFailed",
    "CheckpointError",
    "DataError",
    "DeviceError",
    "DiagnosticsError",
    "Epoch",
    "Evaluation",
    "ExecutionError",
    "History",
    "IRError",
    "Instance",
    "Library",
    "LinkerNotFound",
    "Machine",
    "Map",
    "MissingDerivative",
    "MissingLowering",
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
    "build",
    "device_put",
    "devices",
    "eval_mode",
    "f16",
    "f32",
    "f64",
    "grad",
    "hessian",
    "i8",
    "i16",
    "i32",
    "i64",
    "ir",
    "jvp",
    "load",
    "loads",
    "remat",
    "rewrite",
    "scalar_rule",
    "set_threads",
    "threads",
    "train_mode",
    "u8",
    "u32",
    "update",
    "value_and_grad",
    "vmap",
    "windows",
]

if not TYPE_CHECKING:  # a type checker takes the names from above, and no others

    def __getattr__(name: str) -> Any:
        """Imports a public name, once."""
        if name == "__version__":
            value: Any = import_module("importlib.metadata").version("mapsto")
        elif name == "ir":
            value = import_module("mapsto.ir")
        else:
            home = next((home for home, names in _HOMES.items() if name in names), None)
            if home is None:
                raise AttributeError(f"module 'mapsto' has no attribute {name!r}")
            value = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
