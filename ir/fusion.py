"""Fusion: the ops of a function grouped into kernels.

Each stage (see `stages`) joins the kernel of a stage that it reads, or that reads the same memory,
where the two have an index space in common and it pays; what is cheap is computed anew inside each
kernel that needs it.  A heavy contraction has a kernel of its own, with the ops that use its result
element by element, or by blocks of columns (`epilogue`); sums that are weighted by exponentials
(`weighted_sums`) or by what is computed from products (`product_sums`) have one together, where the
target wants that.  Ops that are lowered on their own (loops
and branches, effects, what needs whole tensors) stand between the kernels; the bodies of their
regions are fused as functions are.  Afterwards a function's body has only kernels, such ops, other
views of buffers (reshapes), constant arrays and the `return`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mapsto.ir.alignment import align
from mapsto.ir.bodies import alias_pairs, body_functions
from mapsto.ir.core import Block, Function, Operation, Region, Trait, Value
from mapsto.ir.epilogue import is_epilogue, reads_results
from mapsto.ir.fusion_units import buffer_of, together
from mapsto.ir.levels import EXPANDED, check_level
from mapsto.ir.ops.control import Kernel, Return
from mapsto.ir.product_sums import SumsTogether, TakesSums, find_sums_together
from mapsto.ir.stages import Stage, estimate, find_stages, is_external, is_heavy, is_literal
from mapsto.ir.substitution import Values, copy_operation

__all__ = ["Cluster", "buffer_of", "fuse_function"]

SMALL_WORK = 32_768
"""Below so many elements a kernel runs on one thread anyway; above, it needs outer indices."""

LEAST_ROWS = 8
"""So many outer indices are enough for large work where rows are contiguous."""

LEAST_COLUMNS = 256
"""So many where the outer indices are columns, which are handled in vectors."""


@dataclass(slots=True, eq=False)
class Cluster:
    """Stages that share a kernel; `weighted` are the sums that all of the first ones compute."""

    stages: list[Stage]
    weighted: SumsTogether | None = None

    @property
    def first(self) -> Stage:
        """The stage that began the cluster; the heavy contraction of one with that."""
        return self.stages[0]

    @property
    def stands_alone(self) -> bool:
        """Whether nothing joins: the op has no order of rows, or one of its own."""
        return self.first.op is not None and self.first.op.has(Trait.WHOLE)


@dataclass(frozen=True, slots=True, eq=False)
class Apart:
    """An op that is lowered on its own; `previous` is the op with effects before it, if both have
    some."""

    op: Operation
    previous: Apart | None


Step = Cluster | Apart
"""What is executed as one."""


def fuse_function(function: Function, takes_sums: TakesSums | None = None) -> Function:
    """The function with its ops grouped into kernels.

    Raises VerifyError where a call or a request for a derivative is left.
    """
    check_level(function, EXPANDED)
    return _fused(function, takes_sums)


def _fused(function: Function, takes_sums: TakesSums | None) -> Function:
    fusion = _Fusion(function.block, takes_sums)
    fusion.group()
    return function.with_block(_Writer(function, fusion).write())


class _Fusion:
    def __init__(self, block: Block, takes_sums: TakesSums | None) -> None:
        self.takes_sums = takes_sums
        self.numbers = {op: number for number, op in enumerate(block.operations)}
        stages = [s for s in find_stages(block) if s.op is not None]
        found = [] if takes_sums is None else find_sums_together(block)
        chosen = [sums for sums in found if takes_sums is not None and takes_sums(sums)]
        self.units = together(stages, chosen)
        self.clusters: list[Cluster] = []
        self.apart = list(_ops_apart(block))
        self.home: dict[Value, Step] = {r: step for step in self.apart for r in step.op.results}
        self._reading: dict[Value, dict[Cluster, None]] = {}

    def group(self) -> None:
        """Puts every stage into a cluster."""
        for unit in self.units:
            if unit.weighted is not None:
                self.clusters.append(Cluster([], unit.weighted))
                for stage in unit.stages:
                    self._put(stage, self.clusters[-1])
                continue
            (stage,) = unit.stages
            dependencies = self._homes(_bases(stage))
            for cluster in self._candidates(stage):
                others = dependencies - {cluster}
                if _joins(cluster, stage) and not self._any_depends(others, cluster):
                    self._put(stage, cluster)
                    break
            else:
                self.clusters.append(Cluster([]))
                self._put(stage, self.clusters[-1])

    def _put(self, stage: Stage, cluster: Cluster) -> None:
        cluster.stages.append(stage)
        self.home[stage.value] = cluster
        for read in stage.reads:
            if read.value is not None:
                self._reading.setdefault(read.value, {})[cluster] = None

    @property
    def steps(self) -> list[Step]:
        """Everything that is executed, in the order of the ops; of a cluster the last counts."""
        return sorted((*self.clusters, *self.apart), key=self._last)

    def _last(self, step: Step) -> int:
        if isinstance(step, Apart):
            return self.numbers[step.op]
        return max(self.numbers[s.op] for s in step.stages if s.op is not None)

    def readers(self) -> dict[Value, set[Step]]:
        """For each value in memory, the steps that read it or a view of it."""
        found: dict[Value, set[Step]] = {}
        for step in self.steps:
            for base in _memory_read(step):
                found.setdefault(base, set()).add(step)
        return found

    def _candidates(self, stage: Stage) -> Iterable[Cluster]:
        """The clusters that a stage may join, the best first: those of heavy contractions, those it
        reads, then those that read the same memory."""
        if stage.op is None or is_heavy(stage.op) or stage.op.has(Trait.WHOLE):
            return []
        read = [r.value for r in stage.reads if r.value is not None]
        homes = [self.home.get(value) for value in read]
        producers = [cluster for cluster in homes if isinstance(cluster, Cluster)]
        heavy = [c for c in producers if _is_contraction(c)]
        wide = [v for v in read if estimate(v.shape) > 1] or read
        siblings = [cluster for v in wide for cluster in reversed(self._reading.get(v, {}))]
        alike = [c for c in reversed(self.clusters) if c.first.rank == 0] if stage.rank == 0 else []
        return dict.fromkeys([*heavy, *reversed(producers), *siblings, *alike])

    def _homes(self, bases: Iterable[Value]) -> set[Step]:
        return {self.home[base] for base in bases if base in self.home}

    def _any_depends(self, steps: Iterable[Step], target: Step) -> bool:
        """Whether any of the steps needs results of the target, directly or not."""
        pending, seen = list(steps), set(steps)
        while pending:
            step = pending.pop()
            if step is target:
                return True
            new = self.dependencies(step) - seen
            seen |= new
            pending.extend(new)
        return False

    def dependencies(self, step: Step) -> set[Step]:
        """The steps whose results a step reads, or after whose effects its own come."""
        found = self._homes(_memory_read(step)) - {step}
        if isinstance(step, Apart) and step.previous is not None:
            found.add(step.previous)
        return found


def _ops_apart(block: Block) -> Iterator[Apart]:
    previous: Apart | None = None
    for op in block.operations:
        if op.has(Trait.APART):
            effects = op.has_effect
            step = Apart(op, previous if effects else None)
            previous = step if effects else previous
            yield step


def _memory_read(step: Step) -> set[Value]:
    """The values in whose memory a step reads."""
    if isinstance(step, Apart):
        return {buffer_of(value) for value in step.op.operands}
    return {base for stage in step.stages for base in _bases(stage)}


def _bases(stage: Stage) -> set[Value]:
    """The values in whose memory a stage reads."""
    return {buffer_of(read.value) for read in stage.reads if read.value is not None}


def _is_contraction(cluster: Cluster) -> bool:
    return cluster.first.op is not None and is_heavy(cluster.first.op)


def _joins_weighted(weighted: SumsTogether, cluster: Cluster, stage: Stage) -> bool:
    """Whether the stage uses nothing but the sums of its own place, and the total of its row."""
    behind = [s for s in cluster.stages if s.value not in weighted.inside]
    return weighted.takes(behind, stage)


def _joins(cluster: Cluster, stage: Stage) -> bool:
    """Whether the stage may and should be computed in the cluster's kernel."""
    inside = {s.value for s in cluster.stages}
    views = [r.value for r in stage.reads if r.value is not None and r.value not in inside]
    if cluster.stands_alone or any(buffer_of(v) in inside for v in views):
        return False
    if cluster.weighted is not None:
        return _joins_weighted(cluster.weighted, cluster, stage)
    if _is_contraction(cluster):
        behind = [s for s in cluster.stages if s is not cluster.first]
        return reads_results(inside, stage) and is_epilogue(cluster.first, behind, stage)
    return _share_rows([*cluster.stages, stage])


def _share_rows(stages: Sequence[Stage]) -> bool:
    """Whether one kernel for the stages is better than two."""
    outer = align(stages)
    rows, work = estimate(outer.outer), max(estimate(stage.extents) for stage in stages)
    loops = {stage.extents for stage in stages if not stage.is_map}
    if all(len(outer.outer) == s.rank for s in stages) and (work <= SMALL_WORK or len(loops) < 2):
        return True
    widest = max(range(len(stages)), key=lambda i: len(stages[i].extents))
    by_rows = sorted(outer.axes[widest]) == list(range(len(outer.outer)))
    if not outer.outer or not (by_rows or any(not s.is_map for s in stages)):
        return False
    return work <= SMALL_WORK or rows >= (LEAST_ROWS if by_rows else LEAST_COLUMNS)


class _Writer:
    """Writes the steps, clusters as kernels; what updates an argument in place comes late."""

    def __init__(self, function: Function, fusion: _Fusion) -> None:
        self.function = function
        self.fusion = fusion
        old = function.block
        self.block = Block([a.type for a in old.arguments], [a.hint for a in old.arguments])
        self.values: Values = dict(zip(old.arguments, self.block.arguments, strict=True))
        self.aliases = dict(alias_pairs(function))
        self.readers = fusion.readers()
        self.returned = {buffer_of(value) for value in function.results}
        self.spare: dict[Value, list[Value]] = {}
        """More copies of values that are returned several times, by value in the new body."""

    def write(self) -> Block:
        """The new body."""
        for step in self._order():
            if isinstance(step, Cluster):
                self._write_cluster(step)
            else:
                self._write_apart(step.op)
        returned = self._returned()
        self.block.operations.append(Return(returned))
        return self.block

    def _order(self) -> list[Step]:
        """Dependencies first; who reads an argument before who updates it, where that is possible;
        else as the ops were."""
        steps = self.fusion.steps
        after = {step: self.fusion.dependencies(step) for step in steps}
        for step, readers in self._update_constraints():
            for reader in readers - {step}:
                if not _reaches(after, reader, step):
                    after[step].add(reader)
        return list(_topological(steps, after))

    def _update_constraints(self) -> Iterator[tuple[Step, set[Step]]]:
        """Each step that updates an argument in place, with the steps that read that."""
        fusion = self.fusion
        for number, argument in self.aliases.items():
            base = buffer_of(self.function.results[number])
            old = self.function.arguments[argument]
            if base not in fusion.home:
                continue
            yield fusion.home[base], self.readers.get(old, set())

    def _write_apart(self, op: Operation) -> None:
        """The op on its operands in memory, the bodies of its regions fused."""
        for operand in op.operands:
            self._outside(operand)
        takes = self.fusion.takes_sums
        bodies = [_fused(body, takes).block for body in body_functions(op)]
        operands = [self.values[value] for value in op.operands]
        written = op.rebuilt(operands, [Region(block) for block in bodies])
        self.block.operations.append(written)
        for old, new in zip(op.results, written.results, strict=True):
            new.hint = old.hint
            self.values[old] = new

    def _write_cluster(self, cluster: Cluster) -> None:
        ops, inputs = _cone(cluster, self.fusion.home)
        operands = [self._outside(value) for value in inputs]
        inner = Block([value.type for value in inputs], [value.hint for value in inputs])
        values: Values = dict(zip(inputs, inner.arguments, strict=True))
        inner.operations.extend(copy_operation(op, values, {}) for op in ops)
        results = [s.value for s in cluster.stages if self._is_needed(s.value, cluster)]
        if not cluster.stands_alone:
            times = Counter(self.function.results)
            results += [value for value in results for _ in range(times[value] - 1)]
        inner.operations.append(Return([values[value] for value in results]))
        first = cluster.first.op
        location = None if first is None else first.location
        kernel = Kernel(operands, {}, [Region(inner)], location)
        self.block.operations.append(kernel)
        for value, result in zip(results, kernel.results, strict=True):
            result.hint = value.hint
            if value in self.values:
                self.spare.setdefault(self.values[value], []).append(result)
            else:
                self.values[value] = result

    def _is_needed(self, value: Value, cluster: Cluster) -> bool:
        """Whether anything outside of its kernel uses the value."""
        return value in self.returned or bool(self.readers.get(value, set()) - {cluster})

    def _outside(self, value: Value) -> Value:
        """A value in the new body; views and constant arrays are written when first needed."""
        found = self.values.get(value)
        if found is not None:
            return found
        op = value.owner
        assert isinstance(op, Operation), "an argument of another function"
        for operand in op.operands:
            self._outside(operand)
        self.block.operations.append(copy_operation(op, self.values, {}))
        return self.values[value]

    def _returned(self) -> list[Value]:
        """The results, each in memory of its own: copies of arguments and of what is returned
        twice."""
        taken: set[Value] = set()
        results: list[Value] = []
        for number, old in enumerate(self.function.results):
            value = self._outside(old)
            base = buffer_of(value)
            stays = base is self._aliased(number)
            if not stays and (base in taken or not _is_computed(base)):
                value = self._another(value, base)
            taken.add(base)
            results.append(value)
        return results

    def _aliased(self, number: int) -> Value | None:
        argument = self.aliases.get(number)
        return None if argument is None else self.block.arguments[argument]

    def _another(self, value: Value, base: Value) -> Value:
        """The value in memory of its own: the kernel wrote it twice, or a kernel copies it."""
        spare = self.spare.get(base)
        if value is base and spare:
            return spare.pop()
        inner = Block([value.type])
        inner.operations.append(Return(inner.arguments))
        kernel = Kernel([value], {}, [Region(inner)])
        self.block.operations.append(kernel)
        return kernel.results[0]


def _is_computed(value: Value) -> bool:
    return isinstance(value.owner, Operation) and not is_literal(value)


def _cone(cluster: Cluster, home: Mapping[Value, Step]) -> tuple[list[Operation], list[Value]]:
    """The ops of a kernel, operands first, and the values that it reads from memory."""
    ops: dict[Operation, None] = {}
    inputs: dict[Value, None] = {}

    def visit(value: Value) -> None:
        op = value.owner
        if is_external(value) or home.get(value, cluster) is not cluster:
            inputs[value] = None
        elif isinstance(op, Operation) and op not in ops:
            for operand in op.operands:
                visit(operand)
            ops[op] = None

    for stage in cluster.stages:
        visit(stage.value)
    return list(ops), list(inputs)


def _topological(steps: Sequence[Step], after: dict[Step, set[Step]]) -> Iterator[Step]:
    waiting, done = list(steps), set[Step]()
    while waiting:
        ready = next(c for c in waiting if after[c] <= done)
        waiting.remove(ready)
        done.add(ready)
        yield ready


def _reaches(after: dict[Step, set[Step]], start: Step, goal: Step) -> bool:
    pending, seen = [start], {start}
    while pending:
        step = pending.pop()
        if step is goal:
            return True
        new = after[step] - seen
        seen |= new
        pending.extend(new)
    return False
