"""Whether a step may write a result over an operand: an update in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mapsto.ir.core import Block, Operation, Trait, Value
from mapsto.ir.dataflow import is_identity
from mapsto.ir.ops.control import Kernel
from mapsto.ir.ops.updates import DynamicUpdate
from mapsto.ir.stages import Read, Stage, find_stages
from mapsto.lowering.kernel_space import KernelSpace, kernel_space
from mapsto.lowering.kernel_work import Division
from mapsto.lowering.kernels import heavy_contraction, weighted_sums
from mapsto.lowering.stage_loops import PassPlan, plan_passes

__all__ = ["KernelSharing", "PairSharing", "Sharing"]


class Sharing(Protocol):
    """Answers for one step."""

    def may_share(self, operand: int, result: int) -> bool:
        """Whether the result may be written to the memory of the operand while it is computed."""


@dataclass(frozen=True, slots=True)
class PairSharing:
    """Of an op that is lowered on its own: the pairs (operand, result) that may share memory."""

    pairs: frozenset[tuple[int, int]] = frozenset()

    def may_share(self, operand: int, result: int) -> bool:
        """Whether the two are such a pair."""
        return (operand, result) in self.pairs


class KernelSharing:
    """Of a kernel, whose plan is made once; `division` is that with which it is lowered."""

    def __init__(self, kernel: Kernel, division: Division) -> None:
        self.block: Block = kernel.regions[0].block
        self.stages = find_stages(self.block)
        self.heavy = heavy_contraction(self.stages)
        self.weighted = weighted_sums(self.block, self.stages)
        self.is_whole = any(s.op is not None and s.op.has(Trait.WHOLE) for s in self.stages)
        self.division = division
        self._rows: _Rows | None = None

    def may_share(self, operand: int, result: int) -> bool:
        """Whether the result may be written to the memory of the operand while it is computed.

        The types must agree, and each element of the operand must have been read for the last
        time, by the same task, when the element of the result is written.
        """
        source, target = self.block.arguments[operand], self.block.returned[result]
        if source.type != target.type:
            return False
        if self.is_whole:
            return self._is_updated(source)
        if source is target:
            return True
        readers = [(s, read) for s in self.stages for read in s.reads if read.value is source]
        if self.weighted is not None:
            inside = self.weighted.inside
            return all(s.value not in inside and is_identity(r.place) for s, r in readers)
        if self.heavy is not None and not all(
            s.op is not self.heavy and is_identity(read.place) for s, read in readers
        ):
            return False
        # Contractions without a schedule for the target are lowered as rows too.
        if self._rows is None:
            space = kernel_space(self.stages, self.division.least_lanes)
            self._rows = _Rows(space, plan_passes(space))
        return all(self._rows.is_safe(target, stage, read) for stage, read in readers)

    def _is_updated(self, source: Value) -> bool:
        """Whether the kernel only replaces elements of the operand."""
        users = [op for op in self.block.operations for value in op.operands if value is source]
        return len(users) == 1 and _updates(users[0], source)


@dataclass(frozen=True, slots=True)
class _Rows:
    space: KernelSpace
    plan: PassPlan

    def is_safe(self, target: Value, reader: Stage, read: Read) -> bool:
        """Whether a read of the operand comes before the write of the target to the same place."""
        writer = next(s for s in self.space.stages if s.value is target)
        first, second = self._pass_of(reader), self._pass_of(writer)
        if first > second or not self._same_row(writer, reader, read):
            return False
        if first < second:
            return True
        pairs = zip(self.space.inner_dims(writer), self.space.inner_dims(reader), strict=True)
        here = all(d < writer.rank and _is_at(read, d, own) for d, own in pairs)
        return here and not self.plan.passes[first].separate

    def _pass_of(self, stage: Stage) -> int:
        return next(i for i, p in enumerate(self.plan.passes) if stage in p.stages)

    def _same_row(self, writer: Stage, reader: Stage, read: Read) -> bool:
        axes = self.space.alignment.axes
        written = axes[self.space.stages.index(writer)]
        own = axes[self.space.stages.index(reader)]
        return all(_is_at(read, axis, d) for axis, d in zip(written, own, strict=True))


def _is_at(read: Read, axis: int, dim: int) -> bool:
    expr = read.place[axis]
    return expr is not None and expr.single == dim


def _updates(op: Operation, source: Value) -> bool:
    return isinstance(op, DynamicUpdate) and op.operands[0] is source
