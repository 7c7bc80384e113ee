"""How a target wants kernels computed: what `lower_kernel` leaves to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mapsto.ir.ops.contraction import Contract
from mapsto.lowering.contraction_problem import OperandAccess
from mapsto.lowering.contractions import LoweredContraction
from mapsto.lowering.kernel_work import Division

__all__ = ["ContractionLowering", "Scheduling"]

ContractionLowering = Callable[[Contract, OperandAccess, frozenset[str]], LoweredContraction | None]
"""From a contraction, how its kernel reads and stores, and the names of the buffers that stay the
same while a loop runs the kernel again, to its statements; None where rows are to be lowered."""


@dataclass(frozen=True, slots=True)
class Scheduling:
    """How work is divided into tasks, and how heavy contractions are computed."""

    division: Division
    contraction: ContractionLowering
