"""Kernels of the tensor IR to loop functions.

A kernel is one of four kinds: a heavy contraction with its epilogue, which has a schedule of its
own (`contractions`); weighted sums, where the target has one (`weighted_access`); an op that is
computed as a whole (`whole_kernels`); or rows of elementwise ops and reductions (`row_kernels`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mapsto.ir.affine import AffineMap
from mapsto.ir.core import Attribute, Block, Operation, Trait, Value
from mapsto.ir.dims import Dim, DimExpression, symbols
from mapsto.ir.epilogue import column_blocks, is_epilogue
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.control import Kernel
from mapsto.ir.ops.indexing import ArgMax, ArgMin, Gather, Scatter
from mapsto.ir.ops.updates import DynamicUpdate
from mapsto.ir.product_sums import SumsTogether, find_sums_together
from mapsto.ir.stages import Stage, find_stages, is_heavy
from mapsto.ir.types import DType, TensorType
from mapsto.lowering.contraction_access import KernelAccess
from mapsto.lowering.contraction_layout import Packing
from mapsto.lowering.element_rules import ELEMENT_RULES
from mapsto.lowering.indexed import IndexedEmitter
from mapsto.lowering.kernel_space import kernel_space, plain_space
from mapsto.lowering.loop_walk import free_names
from mapsto.lowering.loops import Allocate, Buffer, LoopFunction, Space, Statement
from mapsto.lowering.row_kernels import RowKernel
from mapsto.lowering.scheduling import Scheduling
from mapsto.lowering.weighted_access import sums_access
from mapsto.lowering.whole_kernels import WHOLE_KERNELS

__all__ = [
    "STAGE_OPS",
    "LoweredKernel",
    "has_errors",
    "heavy_contraction",
    "kernel_sizes",
    "lower_kernel",
    "weighted_sums",
]


STAGE_OPS: tuple[type[Operation], ...] = (Contract, ArgMax, ArgMin, *WHOLE_KERNELS)
"""The ops whose elements take a loop; the rows of all others are in `ELEMENT_RULES`."""


@dataclass(frozen=True, slots=True)
class LoweredKernel:
    """The loop function of a kernel, and those that run ahead of a loop around it.

    The buffers of a kernel are the operands `x0, x1, ..`, the results `y0, y1, ..`, where something
    is checked the error code, and what each function that ran `ahead` has written.  Those take the
    operands that they read, then their result.
    """

    loops: LoopFunction
    ahead: tuple[LoopFunction, ...] = ()


def lower_kernel(
    kernel: Kernel,
    scheduling: Scheduling,
    shared: frozenset[str] = frozenset(),
    invariant: frozenset[str] = frozenset(),
) -> LoweredKernel:
    """The loop functions of a kernel, without names yet.

    `shared` are the names of buffers that may be the same memory as another one; `invariant` those
    of operands that stay the same while a loop runs the kernel again.
    """
    block = kernel.regions[0].block
    stages = find_stages(block)
    lowered = (
        _lower_whole(block, stages, scheduling, shared)
        or _lower_weighted(block, stages, scheduling, shared)
        or _lower_contraction(block, stages, scheduling, shared, invariant)
        or _lower_parts(block, stages, scheduling, shared, invariant)
        or _lower_rows(block, stages, scheduling, shared)
    )
    frame, body, packings = lowered
    sizes = kernel_sizes(block)
    buffers = (*frame.buffers, *(packing.buffer for packing in packings))
    ahead = tuple(_function_of(packing, frame, sizes) for packing in packings)
    return LoweredKernel(LoopFunction("", buffers, sizes, tuple(body)), ahead)


def _function_of(packing: Packing, frame: _Frame, sizes: tuple[str, ...]) -> LoopFunction:
    used = free_names(packing.body)
    read = {buffer.name for buffer in used.buffers}
    buffers = [*(buffer for buffer in frame.buffers if buffer.name in read), packing.buffer]
    symbols = frozenset().union(*(_attribute_sizes(buffer.shape) for buffer in buffers))
    needed = [name for name in sizes if name in symbols or f"${name}" in used.indices]
    return LoopFunction("", tuple(buffers), tuple(needed), packing.body)


def has_errors(block: Block) -> bool:
    """Whether the kernel of this body checks something and may fail."""
    return any(isinstance(op, Gather | Scatter | DynamicUpdate) for op in block.operations)


def kernel_sizes(block: Block) -> tuple[str, ...]:
    """The symbolic sizes on which a kernel depends, sorted."""
    names: set[str] = set()
    for value in (*block.arguments, *(r for op in block.operations for r in op.results)):
        names |= value.type.symbols
    for op in block.operations:
        for attribute in op.attributes.values():
            names |= _attribute_sizes(attribute)
    return tuple(sorted(names))


def _attribute_sizes(attribute: Attribute) -> frozenset[str]:
    match attribute:
        case DimExpression():
            return symbols(attribute)
        case TensorType() | AffineMap():
            return attribute.symbols
        case tuple():
            return frozenset().union(*map(_attribute_sizes, attribute))
    return frozenset()


class _Frame:
    """The buffers of a kernel and the emitter of its elements."""

    def __init__(
        self, block: Block, shared: frozenset[str], shape: Callable[[Value], tuple[Dim, ...]]
    ) -> None:
        def buffer(value: Value, name: str) -> Buffer:
            return Buffer(name, value.dtype, shape(value), may_alias=name in shared)

        inputs = {value: buffer(value, f"x{i}") for i, value in enumerate(block.arguments)}
        results = [buffer(value, f"y{i}") for i, value in enumerate(block.returned)]
        self.outputs: dict[Value, list[Buffer]] = {}
        for value, result in zip(block.returned, results, strict=True):
            self.outputs.setdefault(value, []).append(result)
        errors = [Buffer("error", DType.I32, (1,))] if has_errors(block) else []
        self.buffers = (*inputs.values(), *results, *errors)
        self.emitter = IndexedEmitter(block, inputs, ELEMENT_RULES, errors[0] if errors else None)


_Lowered = tuple[_Frame, Sequence[Statement], Sequence[Packing]]


def _lower_whole(
    block: Block, stages: Sequence[Stage], scheduling: Scheduling, shared: frozenset[str]
) -> _Lowered | None:
    op = next((s.op for s in stages if s.op is not None and s.op.has(Trait.WHOLE)), None)
    if op is None:
        return None
    frame = _Frame(block, shared, lambda value: value.shape)
    output = frame.outputs[op.result][0]
    body = WHOLE_KERNELS[type(op)](op, frame.emitter, output, scheduling.division)
    return frame, body, ()


def _lower_weighted(
    block: Block, stages: Sequence[Stage], scheduling: Scheduling, shared: frozenset[str]
) -> _Lowered | None:
    found = weighted_sums(block, stages)
    if found is None or scheduling.weighted is None or not scheduling.weighted.takes(found):
        return None
    frame = _Frame(block, shared, lambda value: value.shape)
    behind = [s.value for s in stages if s.value not in found.inside or s.op is found.sums]
    access = sums_access(found, frame.emitter, behind, frame.outputs)
    return frame, scheduling.weighted.lower(access), ()


def _lower_contraction(
    block: Block,
    stages: Sequence[Stage],
    scheduling: Scheduling,
    shared: frozenset[str],
    invariant: frozenset[str],
) -> _Lowered | None:
    op = heavy_contraction(stages)
    if op is None:
        return None
    frame = _Frame(block, shared, lambda value: value.shape)
    epilogue = [stage.value for stage in stages]
    blocks = _blocks(op, stages)
    access = KernelAccess(op, frame.emitter, epilogue, frame.outputs, blocks)
    lowered = scheduling.contraction(op, access, invariant)
    return None if lowered is None else (frame, lowered.body, lowered.packings)


def _blocks(op: Contract, stages: Sequence[Stage]) -> int:
    """For how many blocks of columns the result of the contraction is taken."""
    return column_blocks(next(s for s in stages if s.op is op), stages)


def _lower_parts(
    block: Block,
    stages: Sequence[Stage],
    scheduling: Scheduling,
    shared: frozenset[str],
    invariant: frozenset[str],
) -> _Lowered | None:
    """A contraction that is used by blocks of columns, where no tile has them together: all of it,
    then what is behind it as rows."""
    op = heavy_contraction(stages)
    if op is None or _blocks(op, stages) == 1:
        return None
    frame = _Frame(block, shared, lambda value: value.shape)
    product = Buffer("product", op.result.dtype, op.result.shape, Space.LOCAL)
    written = frame.outputs.get(op.result, [product])
    access = KernelAccess(op, frame.emitter, [op.result], {op.result: written})
    lowered = scheduling.contraction(op, access, invariant)
    if lowered is None:
        return None
    frame.emitter.keep(op.result, written[0])
    behind = plain_space([stage for stage in stages if stage.op is not op])
    rows = RowKernel(behind, frame.emitter, frame.outputs, scheduling.division).body()
    allocate = [] if op.result in frame.outputs else [Allocate(product)]
    return frame, (*allocate, *lowered.body, *scheduling.rows(rows)), lowered.packings


def _lower_rows(
    block: Block, stages: Sequence[Stage], scheduling: Scheduling, shared: frozenset[str]
) -> _Lowered:
    division = scheduling.division
    space = kernel_space(stages, division.least_lanes)
    frame = _Frame(block, shared, space.shape)
    rows = RowKernel(space, frame.emitter, frame.outputs, division)
    return frame, scheduling.rows(rows.body()), ()


def weighted_sums(block: Block, stages: Sequence[Stage]) -> SumsTogether | None:
    """The weighted sums of a kernel in which all other stages use each sum where it is."""
    for found in find_sums_together(block):
        others = [stage for stage in stages if stage.value not in found.inside]
        if all(found.takes(others[:number], other) for number, other in enumerate(others)):
            return found
    return None


def heavy_contraction(stages: Sequence[Stage]) -> Contract | None:
    """The contraction of a kernel in which all other stages use its result element by element, or
    by blocks."""
    heavy = [s for s in stages if s.op is not None and is_heavy(s.op)]
    if len(heavy) != 1:
        return None
    (first,), op = heavy, heavy[0].op
    assert isinstance(op, Contract)
    others = [stage for stage in stages if stage is not first]
    return op if all(is_epilogue(first, others, stage) for stage in others) else None
