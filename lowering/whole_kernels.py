"""The table of ops that are computed as a whole, each by a kernel of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mapsto.ir.core import Operation
from mapsto.ir.ops.indexing import ScatterAdd, ScatterMax, ScatterMin
from mapsto.ir.ops.sequences import ArgSort, Cumulative, Recurrence
from mapsto.ir.ops.updates import DynamicUpdate
from mapsto.lowering.indexed import IndexedEmitter
from mapsto.lowering.kernel_work import Division
from mapsto.lowering.loops import Buffer, Statement
from mapsto.lowering.scan_kernels import cumulative_body, recurrence_body
from mapsto.lowering.scatter_kernels import scatter_body
from mapsto.lowering.sort_kernels import argsort_body
from mapsto.lowering.update_kernels import update_body

__all__ = ["WHOLE_KERNELS"]

WholeKernel = Callable[[Any, IndexedEmitter, Buffer, Division], tuple[Statement, ...]]
"""From the op to the statements that compute its result into the buffer, divided as asked."""

WHOLE_KERNELS: Mapping[type[Operation], WholeKernel] = {
    ArgSort: argsort_body,
    Cumulative: cumulative_body,
    DynamicUpdate: update_body,
    Recurrence: recurrence_body,
    ScatterAdd: scatter_body,
    ScatterMax: scatter_body,
    ScatterMin: scatter_body,
}
