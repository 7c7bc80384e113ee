"""The ops, one file a family; importing this package registers all of them."""

from mapsto.ir.ops import (
    contraction,
    control,
    custom,
    effects,
    elementwise,
    flow,
    functions,
    indexing,
    logic,
    partition,
    random,
    remat,
    sequences,
    shaping,
    updates,
)

__all__ = [
    "contraction",
    "control",
    "custom",
    "effects",
    "elementwise",
    "flow",
    "functions",
    "indexing",
    "logic",
    "partition",
    "random",
    "remat",
    "sequences",
    "shaping",
    "updates",
]
