"""The plan of a function for programs that launch its kernels themselves: a list of steps on named
buffers, which can be written as JSON.

The walk of `walk.py` runs on numbers that stand for the buffers instead of addresses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mapsto.ir.core import Array, Value
from mapsto.ir.types import TensorType
from mapsto.lowering.gpu.program import GpuProgram
from mapsto.lowering.literals import literal_array
from mapsto.lowering.lowered import KernelCall, LoweredFunction
from mapsto.runtime.devices import host_steps  # noqa: F401  fills the table of rules
from mapsto.runtime.devices.device import Command, Copy, Device, DeviceKernel, Fill, Launch
from mapsto.runtime.devices.executable import (
    is_checked,
    launches_of,
    literals_of,
    scratch_bytes_of,
)
from mapsto.runtime.devices.walk import Walk, needs_host
from mapsto.runtime.errors import ArtifactError
from mapsto.runtime.signature import Argument, Signature, TensorSpec

__all__ = ["FunctionPlan", "commands_of", "kernel_facts", "plan_of"]

_SHIFT = 48
"""A number that stands for an address has the buffer above these bits, the offset below."""

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class FunctionPlan:
    """A function as steps; `constants` are arrays that have to be on the device, by name."""

    facts: Json
    constants: Mapping[str, Array]


def kernel_facts(program: GpuProgram) -> Json:
    """What has to be known of each kernel to launch it."""
    return {
        kernel.name: {
            "block": list(kernel.block),
            "static_shared_bytes": kernel.shared_bytes - kernel.dynamic_bytes,
            "dynamic_shared_bytes": kernel.dynamic_bytes,
        }
        for kernel in program.launches
    }


def plan_of(
    program: GpuProgram, entry: str, signature: Signature, updated: Sequence[str]
) -> FunctionPlan:
    """The steps of an entry for its sizes; `updated` names the arguments that it writes.

    Raises ArtifactError where a size is open, or the host has to decide something on the way.
    """
    return _plan(program, entry, signature).plan(updated)


def commands_of(
    program: GpuProgram, entry: str, signature: Signature
) -> tuple[Sequence[Command], int]:
    """The commands of an entry, with numbers for addresses, and the bytes of its workspace.

    Raises ArtifactError as `plan_of` does.
    """
    walk = _plan(program, entry, signature).walk()
    return walk.commands, walk.arena_bytes(program.functions[entry])


def _plan(program: GpuProgram, entry: str, signature: Signature) -> _Plan:
    lowered = program.functions[entry]
    if signature.symbols:
        name = signature.symbols[0]
        raise ArtifactError(f"{entry}: code for a GPU has fixed sizes: give --static {name}=N")
    if needs_host(lowered):
        raise ArtifactError(
            f"{entry}: `while`, `if`, `print` and `assert` on tensors need the host on the way;"
            " run such a program with --device"
        )
    return _Plan(program, lowered, signature)


class _Plan:
    """Writes the launches with numbers for addresses."""

    def __init__(self, program: GpuProgram, lowered: LoweredFunction, signature: Signature) -> None:
        self.program = program
        self.lowered = lowered
        self.signature = signature
        self.names: list[str] = []
        self._kernels = {
            k.name: DeviceKernel(k.name, None, k.block, k.dynamic_bytes) for k in program.launches
        }
        self.arguments = [self._new(a.spec.name) for a in signature.arguments]
        self.results = [self._new(spec.name) for spec in signature.results]
        self.workspace, self.error = self._new("workspace"), self._new("error")
        literals = literals_of(lowered)
        self._literals = {v: self._new(f"constant.{i}") for i, v in enumerate(literals)}

    @property
    def device(self) -> Device:
        """None is there: nothing is run."""
        raise AssertionError("a plan is not run")

    def walk(self) -> Walk:
        """The walk through the function, with its commands."""
        walk = Walk(self, {})
        walk.run(self.lowered, [*self.arguments, *self.results], self.workspace)
        return walk

    def plan(self, updated: Sequence[str]) -> FunctionPlan:
        """All of it."""
        walk = self.walk()
        facts = {
            "arguments": [_argument(a, updated) for a in self.signature.arguments],
            "results": [_buffer(spec) for spec in self.signature.results],
            "constants": [_constant(self._name(n), v) for v, n in self._literals.items()],
            "workspace_bytes": walk.arena_bytes(self.lowered),
            "error_word": is_checked(self.lowered),
            "steps": [self._step(command) for command in walk.commands],
        }
        constants = {self._name(n): literal_array(value) for value, n in self._literals.items()}
        return FunctionPlan(facts, constants)

    def launches(
        self, call: KernelCall, pointers: Sequence[int], sizes: Mapping[str, int], scratch: int
    ) -> Sequence[Command]:
        """The launches of a kernel."""
        words = [*pointers, self.error] if call.checked else pointers
        assert not sizes, "sizes are fixed"
        return launches_of(self.program, self._kernels, call, words, sizes, scratch)

    def scratch_bytes(self, call: KernelCall, sizes: Mapping[str, int]) -> int:
        """The memory that a kernel needs beside its buffers."""
        return scratch_bytes_of(self.program, call, sizes)

    def literal(self, value: Value) -> int:
        """The number that stands for a constant."""
        return self._literals[value]

    def raise_errors(self) -> None:
        """Nothing was run."""

    def _new(self, name: str) -> int:
        """A number for a buffer; names that are taken get a stroke."""
        while name in self.names:
            name += "_"
        self.names.append(name)
        return len(self.names) << _SHIFT

    def _name(self, number: int) -> str:
        return self.names[(number >> _SHIFT) - 1]

    def _place(self, number: int) -> Json:
        offset = number & ((1 << _SHIFT) - 1)
        found: dict[str, object] = {"buffer": self._name(number)}
        return {**found, "offset": offset} if offset else found

    def _step(self, command: Command) -> Json:
        match command:
            case Launch(kernel, grid, words):
                passed = [self._place(word) for word in words]
                return {"kernel": kernel.name, "grid": list(grid), "arguments": passed}
            case Copy(target, source, count):
                to, origin = self._place(target), self._place(source)
                return {"copy": {"to": to, "from": origin, "bytes": count}}
            case Fill(target, count):
                return {"zero": {"to": self._place(target), "bytes": count}}


def _buffer(spec: TensorSpec) -> dict[str, object]:
    type_: TensorType = spec.type
    count = type_.elements * type_.dtype.bytes
    shape = list(type_.shape)
    return {"name": spec.name, "dtype": str(type_.dtype), "shape": shape, "bytes": count}


def _constant(name: str, value: Value) -> Json:
    array = literal_array(value)
    found = {"name": name, "dtype": str(value.dtype), "shape": list(array.shape)}
    return {**found, "bytes": array.nbytes}


def _argument(argument: Argument, updated: Sequence[str]) -> Json:
    found = _buffer(argument.spec)
    kind = "parameter" if argument.bound else "input"
    return {**found, "kind": kind, "updated": argument.spec.name in updated}
