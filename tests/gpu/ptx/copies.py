"""Decoders of asynchronous copies (`cp.async`); see `queue` for what they mean."""

from __future__ import annotations

import numpy as np

from ptx.accesses import resolve
from ptx.decoding import Context, Execute, Opcode, address, decoder, source
from ptx.errors import InvalidProgram
from ptx.memory import check_alignment
from ptx.state import Lanes, State
from ptx.syntax import Immediate, Instruction
from ptx.types import TYPES

Array = np.ndarray


@decoder("cp")
def _cp(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    if not opcode.has("async"):
        raise opcode.unknown()
    if opcode.has("commit_group"):
        opcode.done()
        return lambda state, lanes: state.copies.commit(state.indices(lanes))
    if opcode.has("wait_all"):
        opcode.done()
        return _waiting(-1)
    if opcode.has("wait_group"):
        opcode.done()
        return _waiting(_literal(instruction, 0))
    return _copy(opcode, instruction, context)


def _waiting(open_groups: int) -> Execute:
    return lambda state, lanes: state.copies.wait(state.indices(lanes), open_groups, state.access)


def _literal(instruction: Instruction, index: int) -> int:
    operand = instruction.operands[index]
    if not isinstance(operand, Immediate):
        raise InvalidProgram(f"operand {index} of {instruction.opcode} is no literal")
    return operand.value


def _copy(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    """`cp.async.{ca,cg}.shared.global [to], [from], size{, how many bytes are not zeros}`."""
    level = opcode.take("ca", "cg")
    opcode.drop("shared", "shared::cta")
    opcode.drop("global", "L2::64B", "L2::128B", "L2::256B")
    opcode.done()
    size = _literal(instruction, 2)
    if size not in ({16} if level == "cg" else {4, 8, 16}):
        raise InvalidProgram(f"{instruction.opcode} of {size} bytes")
    to, origin = (address(x, context) for x in instruction.operands[:2])
    given = instruction.operands[3:]
    length = source(given[0], TYPES["u32"], context) if given else None

    def execute(state: State, lanes: Lanes) -> None:
        access = state.access(lanes)
        _, offsets = resolve(state, lanes, "shared", to(state, lanes), size, access)
        wanted = np.full(len(offsets), size, np.uint32)
        if length is not None:
            wanted[:] = length(state, lanes)
        values = _read(state, lanes, origin(state, lanes), size, wanted)
        state.copies.issue(state.indices(lanes), offsets, values, state.access)

    return execute


def _read(state: State, lanes: Lanes, addresses: Array, size: int, wanted: Array) -> Array:
    """Rows of bytes, zero from `wanted` on; where none are wanted, nothing is read."""
    check_alignment(addresses, size, state.access(lanes))
    rows = np.zeros((len(addresses), size), np.uint8)
    for length in np.unique(wanted):
        if length == 0:
            continue
        chosen = np.flatnonzero(wanted == length)
        some = state.indices(lanes)[chosen]
        access = state.access(some)
        memory, offsets = resolve(state, some, "global", addresses[chosen], 1, access)
        last = addresses[chosen] + np.uint64(length - 1)
        resolve(state, some, "global", last, 1, access)
        width = 4 if length in (4, 8, 16) else 1
        count = int(length) // width if width == 4 else 1
        parts = [
            memory.load(offsets + i, width, count, access).view(np.uint8)
            for i in range(0, int(length), width * count)
        ]
        rows[chosen, :length] = np.concatenate(parts, axis=1)
    return rows
