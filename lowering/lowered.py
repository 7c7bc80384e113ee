"""Functions as steps on tensors in memory: what the last stage writes as LLVM IR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mapsto.ir.bodies import alias_pairs
from mapsto.ir.core import Function, Operation
from mapsto.ir.dims import Dim
from mapsto.ir.types import TensorType
from mapsto.lowering.buffers import Ahead, Argument, BufferPlan, Place, is_step
from mapsto.lowering.loops import LoopFunction

__all__ = ["ApartCall", "BodyPreparation", "Call", "EntryPoint", "KernelCall", "LoweredFunction"]


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """The interface of an entry function, in the order of its buffers.

    `arguments` are names and types; `results` the types of the results that alias no argument;
    `sizes` the named sizes in the order of its `dims` array.
    """

    name: str
    arguments: tuple[tuple[str, TensorType], ...]
    results: tuple[TensorType, ...]
    sizes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KernelCall:
    """A kernel and where its operands and results are; `checked`: it may set an error code;
    `ahead`: what was prepared for it ahead of a loop."""

    loops: LoopFunction
    places: tuple[Place, ...]
    checked: bool = False
    ahead: tuple[Ahead, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ApartCall:
    """An op that is lowered on its own, where its operands and results are, and the functions of
    its regions, whose named sizes are those of the function that the op is in.

    `ahead`: where what a body prepares is, if that is done ahead of the function around the op.
    """

    op: Operation
    places: tuple[Place, ...]
    bodies: tuple[LoweredFunction, ...]
    ahead: tuple[Ahead | None, ...] = ()


Call = KernelCall | ApartCall
"""A step."""


@dataclass(frozen=True, slots=True, eq=False)
class BodyPreparation:
    """What the body of an op prepares, done ahead of the function that the op is in: where the
    arguments of the body that it reads are, by their numbers, and the memory that it fills."""

    body: LoweredFunction
    arguments: Mapping[int, Place]
    target: Ahead


@dataclass(frozen=True, slots=True, eq=False)
class LoweredFunction:
    """A function as steps in memory: the fused function, where its tensors are, and the steps."""

    function: Function
    entry: EntryPoint
    plan: BufferPlan
    calls: tuple[Call, ...]
    preparation: tuple[KernelCall | BodyPreparation, ...] = ()
    """What is done ahead of a loop whose body the function is, or of all calls of a program."""
    prepared_bytes: Dim = 0
    """The memory that the preparation fills; a program fills a known number of bytes."""

    @property
    def prepared_from(self) -> frozenset[int]:
        """The numbers of the arguments that the preparation reads."""
        read = [
            tuple(step.arguments.values()) if isinstance(step, BodyPreparation) else step.places
            for step in self.preparation
        ]
        return frozenset(p.number for places in read for p in places if isinstance(p, Argument))

    @property
    def prepares_by_size(self) -> bool:
        """Whether what is prepared depends on named sizes."""
        return not isinstance(self.prepared_bytes, int) or any(
            step.body.prepares_by_size if isinstance(step, BodyPreparation) else step.loops.sizes
            for step in self.preparation
        )

    @property
    def result_places(self) -> dict[int, int]:
        """Where, among its buffers, each result is that aliases no argument."""
        aliased = {result for result, _ in alias_pairs(self.function)}
        free = [i for i in range(len(self.function.results)) if i not in aliased]
        return {result: len(self.entry.arguments) + i for i, result in enumerate(free)}

    def exchanged(self, carried: int) -> list[int]:
        """Of the first `carried` results, which a loop carries, those that are not written over an
        argument: they have two buffers."""
        places = self.result_places
        return [number for number in range(carried) if number in places]

    @property
    def steps(self) -> list[Operation]:
        """The ops that the calls execute, in their order."""
        return [op for op in self.function.block.operations if is_step(op)]

    @property
    def kernel_calls(self) -> list[KernelCall]:
        """The calls of kernels, but for those in bodies."""
        return [call for call in self.calls if isinstance(call, KernelCall)]

    @property
    def bodies(self) -> list[LoweredFunction]:
        """The functions of the regions of all ops in it."""
        return [b for call in self.calls if isinstance(call, ApartCall) for b in call.bodies]
