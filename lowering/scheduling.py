"""How a target wants kernels computed: what `lower_kernel` leaves to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mapsto.ir.core import Function
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.product_sums import TakesSums
from mapsto.lowering.contraction_problem import OperandAccess
from mapsto.lowering.contractions import LoweredContraction
from mapsto.lowering.kernel_work import Division
from mapsto.lowering.loops import Statement
from mapsto.lowering.weighted_access import SumsAccess

__all__ = ["ContractionLowering", "Scheduling", "SumsScheduling"]

ContractionLowering = Callable[[Contract, OperandAccess, frozenset[str]], LoweredContraction | None]
"""From a contraction, how its kernel reads and stores, and the names of the buffers that stay the
same while a loop runs the kernel again, to its statements; None where rows are to be lowered."""


RowRewriting = Callable[[Sequence[Statement]], Sequence[Statement]]
"""From the statements of a kernel of rows to others that do the same."""


FunctionRewriting = Callable[[Function], Function]
"""From a function whose ops are not grouped into kernels yet to one that does the same."""


def _as_it_is(function: Function) -> Function:
    return function


def _as_they_are(body: Sequence[Statement]) -> Sequence[Statement]:
    return body


@dataclass(frozen=True, slots=True)
class SumsScheduling:
    """Of sums that are weighted: whether they have a kernel together, and its statements."""

    takes: TakesSums
    lower: Callable[[SumsAccess], Sequence[Statement]]


@dataclass(frozen=True, slots=True)
class Scheduling:
    """How work is divided into tasks, how heavy contractions are computed, what is made of the
    loops of rows, how weighted sums are computed, where that is one kernel, and what is made of a
    function before its ops are grouped into kernels."""

    division: Division
    contraction: ContractionLowering
    rows: RowRewriting = _as_they_are
    weighted: SumsScheduling | None = None
    arrange: FunctionRewriting = _as_it_is
