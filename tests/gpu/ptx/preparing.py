"""From parsed kernels to decoded ones: functions of instructions, places of variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptx import accesses, arithmetic, bits, copies, matrices, warps
from ptx.decoding import Context, Execute, Layout, Read, decode, source, target
from ptx.errors import InvalidProgram, PtxError, UnknownInstruction
from ptx.memory import VARIABLES_BASE
from ptx.state import Lanes, State
from ptx.syntax import Instruction, Kernel, Name, Program, Variable
from ptx.types import TYPES, type_named

Array = np.ndarray

FAMILIES = (accesses, arithmetic, bits, copies, matrices, warps)
"""Imported for the decoders that they register."""

_SHARED_GAP = 64
_BARRIERS = ("bar", "barrier")


@dataclass(frozen=True)
class Step:
    """A decoded instruction.  `guard`: reads which threads execute it; `meeting`: the mask of those
    that execute it together."""

    instruction: Instruction
    action: str
    execute: Execute | None = None
    guard: Read | None = None
    meeting: Read | None = None
    targets: tuple[int, ...] = ()
    index: Read | None = None


@dataclass
class Launchable:
    """A kernel, decoded, with the places of its variables."""

    kernel: Kernel
    steps: list[Step]
    widths: dict[str, int]
    shared: list[tuple[int, int]]
    dynamic_start: int | None
    local_size: int
    granules: dict[str, int]
    constants: bytes
    counts: Array
    """How often threads executed each step, in all launches."""


def prepare(program: Program, name: str) -> Launchable:
    """Decodes a kernel; UnknownInstruction and InvalidProgram name the line."""
    kernel = program.kernels[name]
    places: dict[str, tuple[str, int]] = {}
    widths = {name: type_named(kind).bits for name, kind in kernel.registers.items()}
    constants = _place_constants(program, places)
    shared, dynamic = _place_shared([*program.variables, *kernel.variables], places)
    local_size = _place("local", kernel.variables, places)
    _place("param", kernel.parameters, places)
    context = Context(kernel, Layout(places), widths)
    steps = [_located_step(x, context) for x in kernel.instructions]
    return Launchable(
        kernel,
        steps,
        widths,
        shared,
        dynamic,
        local_size,
        _granules(kernel),
        constants,
        np.zeros(len(steps), np.int64),
    )


def _place(space: str, variables: Sequence[Variable], places: dict[str, tuple[str, int]]) -> int:
    """Lays out variables of a space one after another; the end."""
    end = 0
    for item in variables:
        if item.space == space:
            end = -(-end // item.alignment) * item.alignment
            places[item.name] = (space, end)
            end += item.size
    return end


def _place_constants(program: Program, places: dict[str, tuple[str, int]]) -> bytes:
    """Constants, and global variables with contents, which are read as such."""
    contents = b""
    for item in program.variables:
        if item.space not in ("const", "global"):
            continue
        if item.space == "global" and item.contents is None:
            raise InvalidProgram(f"a global variable without contents: {item.name}")
        start = -(-len(contents) // item.alignment) * item.alignment
        base = VARIABLES_BASE if item.space == "global" else 0
        places[item.name] = (item.space, base + start)
        data = item.contents or b"\0" * item.size
        contents = contents.ljust(start, b"\0") + data
    return contents


def _place_shared(
    variables: Sequence[Variable], places: dict[str, tuple[str, int]]
) -> tuple[list[tuple[int, int]], int | None]:
    """Shared variables, with gaps that no access may touch; where the dynamic ones begin."""
    ranges, end, dynamic = [], 0, None
    for item in sorted((x for x in variables if x.space == "shared"), key=lambda x: x.external):
        start = -(-end // max(item.alignment, 16)) * max(item.alignment, 16)
        if item.external:
            dynamic = start if dynamic is None else dynamic
            start = dynamic
        else:
            ranges.append((start, start + item.size))
            end = start + item.size + _SHARED_GAP
        places[item.name] = ("shared", start)
    return ranges, dynamic


def _granules(kernel: Kernel) -> dict[str, int]:
    """The smallest access to each space."""
    sizes = {"global": 8, "shared": 8, "local": 8}
    for instruction in kernel.instructions:
        name, *rest = instruction.opcode.split(".")
        if name not in ("ld", "st", "atom", "red", "cp", "ldmatrix", "stmatrix", "ldu"):
            continue
        kinds = [TYPES[word] for word in rest if word in TYPES]
        size = kinds[-1].size if kinds else 4
        named = [space for space in sizes if space in rest or f"{space}::cta" in rest]
        for space in named or sizes:
            sizes[space] = min(sizes[space], size)
    return sizes


def _located_step(instruction: Instruction, context: Context) -> Step:
    try:
        return _step(instruction, context)
    except PtxError as error:
        raise with_place(context.kernel, instruction, error) from None


def with_place(kernel: Kernel, instruction: Instruction, error: PtxError) -> PtxError:
    """The error with the instruction that it is about."""
    where = f"{kernel.name}, line {instruction.line}: `{instruction.text}`"
    return type(error)(f"{where}: {error}")


def _step(instruction: Instruction, context: Context) -> Step:
    name, *rest = instruction.opcode.split(".")
    guard = source(instruction.guard, TYPES["pred"], context) if instruction.guard else None
    if name in ("bra", "brx"):
        return _branch(name, instruction, guard, context)
    if name in ("ret", "exit"):
        return Step(instruction, "exit", guard=guard)
    if name == "trap":
        return Step(instruction, "trap", guard=guard)
    if name in _BARRIERS and rest[0] == "warp":
        meeting = warps.meeting(instruction, context)
        return Step(instruction, "warp barrier", guard=guard, meeting=meeting)
    if name in _BARRIERS:
        return _barrier(instruction, guard, context)
    execute = decode(instruction, context)
    return Step(instruction, "run", execute, guard, warps.meeting(instruction, context))


def _branch(name: str, instruction: Instruction, guard: Read | None, context: Context) -> Step:
    *index, label = instruction.operands
    assert isinstance(label, Name)
    labels = context.kernel.labels
    if name == "bra":
        if label.name not in labels:
            raise InvalidProgram(f"no label {label.name}")
        return Step(instruction, "branch", guard=guard, targets=(labels[label.name],))
    targets = tuple(labels[x] for x in context.kernel.tables[label.name])
    read = source(index[0], TYPES["u32"], context)
    return Step(instruction, "branch by index", guard=guard, targets=targets, index=read)


def _barrier(instruction: Instruction, guard: Read | None, context: Context) -> Step:
    """`bar.sync` and `bar.red` of whole blocks."""
    words = [x for x in instruction.opcode.split(".")[1:] if x not in ("cta", "aligned")]
    if words == ["sync"]:
        if len(instruction.operands) > 1:
            raise UnknownInstruction("a barrier of a part of the block")
        return Step(instruction, "barrier", guard=guard)
    if words[0] != "red" or len(instruction.operands) > 3:
        raise UnknownInstruction(instruction.opcode)
    return Step(instruction, "barrier", _barrier_reduction(words, instruction, context), guard)


def _barrier_reduction(words: list[str], instruction: Instruction, context: Context) -> Execute:
    _, name, kind_name = words
    kind = type_named(kind_name)
    write = target(instruction.operands[0], kind, context)
    read = source(instruction.operands[-1], TYPES["pred"], context)

    def execute(state: State, lanes: Lanes) -> None:
        votes = np.zeros(state.blocks, np.int64)
        chosen = np.broadcast_to(read(state, lanes), state.block[lanes].shape)
        np.add.at(votes, state.block[lanes], chosen)
        counts = votes[state.block[lanes]]
        results = {"popc": counts, "or": counts > 0, "and": counts == state.threads}
        write(state, lanes, results[name].astype(kind.dtype))

    return execute
