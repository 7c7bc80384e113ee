"""Whether any thread of a block says yes, known to all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mapsto.ir.types import DType
from mapsto.lowering.gpu.contraction_panels import THREAD
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.indices import variable
from mapsto.lowering.loops import (
    Allocate,
    Barrier,
    Buffer,
    For,
    If,
    Let,
    LoopKind,
    Reduce,
    Ref,
    Shuffle,
    Space,
    Statement,
    Store,
    compare,
    constant,
)

__all__ = ["Vote"]

_NO, _YES = constant(0, DType.I32), constant(1, DType.I32)


@dataclass(frozen=True, slots=True)
class Vote:
    """The vote of so many threads of a target.  Where threads read each other's registers, each
    warp has one slot of shared memory, else each thread."""

    name: str
    threads: int
    target: GpuTarget

    @property
    def result(self) -> Buffer:
        """The register with the vote of all, 0 or 1; 0 before they have voted."""
        return Buffer(self.name, DType.I32, (), Space.REGISTER)

    @property
    def _own(self) -> Buffer:
        """The thread's vote."""
        return Buffer(f"{self.name}_own", DType.I32, (), Space.REGISTER)

    @property
    def slots(self) -> Buffer:
        """The shared memory that this takes."""
        return Buffer(f"{self.name}_slots", DType.I32, (self.threads // self._each,), Space.SHARED)

    @property
    def say_yes(self) -> Statement:
        """The thread's vote is yes."""
        return self._own.store((), _YES)

    @property
    def _each(self) -> int:
        return self.target.warp if self.target.has_shuffle else 1

    def begin(self) -> list[Statement]:
        """Declares the vote; it is no."""
        both = (self.result, self._own)
        return [*map(Allocate, both), *(register.store((), _NO) for register in both)]

    def cast(self) -> Iterator[Statement]:
        """The votes of all threads, together; with a barrier."""
        lane = self._each // 2
        while lane:
            name = f"{self.name}{lane}"
            yield Let(name, Shuffle(self._own[()], lane))
            yield Reduce("max", self._own, (), Ref(name, DType.I32))
            lane //= 2
        thread, slot = variable(THREAD), variable("slot")
        tell = Store(self.slots, (thread // self._each,), self._own[()])
        first = compare("eq", thread % self._each, 0)
        yield tell if self._each == 1 else If(first, (tell,))
        yield Barrier()
        others = Reduce("max", self.result, (), self.slots[slot])
        yield For("slot", 0, self.threads // self._each, (others,), LoopKind.UNROLL)
