"""Instructions that the threads of a warp execute together: shuffles, votes, reductions, matches.

`meeting` says which threads take part; the machine lets the instruction run when all of them are
there.
"""

from __future__ import annotations

import numpy as np

from ptx.decoding import Context, Execute, Opcode, Read, decoder, source, target
from ptx.errors import Divergence, Uninitialized
from ptx.state import WARP, Lanes, State
from ptx.syntax import Instruction, Pair, Sink
from ptx.types import TYPES

Array = np.ndarray

_WORD = TYPES["b32"]
_PREDICATE = TYPES["pred"]

WARP_WIDE = ("shfl", "vote", "redux", "match", "elect", "mma", "ldmatrix", "stmatrix")
"""And `bar.warp.sync`."""


def meeting(instruction: Instruction, context: Context) -> Read | None:
    """The mask of the lanes that execute an instruction together; None for one that each executes
    alone.  `.aligned` instructions take the whole warp."""
    name, *rest = instruction.opcode.split(".")
    if name in ("mma", "ldmatrix", "stmatrix"):
        everyone = np.array([0xFFFFFFFF], np.uint32)
        return lambda state, lanes: everyone
    is_barrier = name in ("bar", "barrier") and rest[0] == "warp"
    if is_barrier or name in WARP_WIDE:
        return source(instruction.operands[-1], TYPES["u32"], context)
    return None


def complete(state: State, lanes: Lanes, mask: Array) -> Array:
    """For each of the lanes, whether all that its mask names are among them."""
    lane = state.indices(lanes)
    bits = (mask >> state.lane[lanes]) & np.uint32(1)
    if (bits == 0).any():
        outsider = int(lane[np.flatnonzero(np.broadcast_to(bits, lane.shape) == 0)[0]])
        raise Divergence(f"{state.thread(outsider)} is not in its own mask of the warp")
    present = np.zeros(state.count, np.uint32)
    np.bitwise_or.at(present, state.warp_start[lanes], np.uint32(1) << state.lane[lanes])
    return (mask & existing(state, lanes) & ~present[state.warp_start[lanes]]) == 0


def existing(state: State, lanes: Lanes) -> Array:
    """The lanes that the warps have: the last of a block may be short."""
    inside = state.warp_start[lanes] - state.block[lanes] * state.threads
    size = np.minimum(state.threads - inside, WARP).astype(np.uint64)
    return ((np.uint64(1) << size) - np.uint64(1)).astype(np.uint32)


@decoder("shfl")
def _shfl(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    opcode.has("sync")
    mode = opcode.take("up", "down", "bfly", "idx")
    kind = opcode.type()
    opcode.done()
    if mode is None:
        raise opcode.unknown()
    destination, value, *rest = instruction.operands
    pair = destination if isinstance(destination, Pair) else Pair(destination, Sink())
    write, write_valid = target(pair.first, kind, context), target(pair.second, _PREDICATE, context)
    read = source(value, kind, context)
    amount, clamp = (source(x, TYPES["u32"], context) for x in rest[:2])

    def execute(state: State, lanes: Lanes) -> None:
        lane = state.lane[lanes].astype(np.int64)
        origin, valid = _origin(mode, lane, amount(state, lanes), clamp(state, lanes))
        values = np.zeros(state.count, kind.dtype)
        values[lanes] = read(state, lanes)
        here = np.zeros(state.count + WARP, bool)
        here[lanes] = True
        places = state.warp_start[lanes] + origin
        _check_sources(state, lanes, here[places])
        write(state, lanes, values[places])
        write_valid(state, lanes, np.broadcast_to(valid, places.shape))

    return execute


def _origin(mode: str, lane: Array, amount: Array, clamp: Array) -> tuple[Array, Array]:
    """The lane that each reads, and whether it is in range; out of range a lane reads itself."""
    amount = amount.astype(np.int64) & 31
    limit, segment = clamp.astype(np.int64) & 31, (clamp.astype(np.int64) >> 8) & 31
    last = (lane & segment) | (limit & ~segment)
    origin = {
        "up": lane - amount,
        "down": lane + amount,
        "bfly": lane ^ amount,
        "idx": (lane & segment) | (amount & ~segment & 31),
    }[mode]
    valid = origin >= last if mode == "up" else origin <= last
    return np.where(valid, origin, lane), valid


def _check_sources(state: State, lanes: Lanes, present: Array) -> None:
    if not present.all():
        reader = int(state.indices(lanes)[np.flatnonzero(~present)[0]])
        raise Uninitialized(f"{state.thread(reader)} takes the value of a lane that is not here")


def _per_warp(state: State, lanes: Lanes, values: Array, combine: np.ufunc, identity: int) -> Array:
    """Combines the values of each warp's lanes; for every lane, its warp's."""
    total = np.full(state.count, identity, values.dtype)
    combine.at(total, state.warp_start[lanes], values)
    return total[state.warp_start[lanes]]


@decoder("vote")
def _vote(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    opcode.has("sync")
    mode = opcode.take("all", "any", "uni", "ballot")
    kind = opcode.type()
    opcode.done()
    if mode is None:
        raise opcode.unknown()
    write = target(instruction.operands[0], kind, context)
    read = source(instruction.operands[1], _PREDICATE, context)

    def execute(state: State, lanes: Lanes) -> None:
        chosen = np.broadcast_to(read(state, lanes), state.lane[lanes].shape)
        bit = np.uint32(1) << state.lane[lanes]
        ballot = _per_warp(state, lanes, np.where(chosen, bit, np.uint32(0)), np.bitwise_or, 0)
        everyone = _per_warp(state, lanes, bit, np.bitwise_or, 0)
        results = {
            "ballot": ballot,
            "any": ballot != 0,
            "all": ballot == everyone,
            "uni": (ballot == everyone) | (ballot == 0),
        }
        write(state, lanes, results[mode])

    return execute


@decoder("activemask")
def _activemask(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    kind = opcode.type()
    opcode.done()
    write = target(instruction.operands[0], kind, context)

    def execute(state: State, lanes: Lanes) -> None:
        bit = np.uint32(1) << state.lane[lanes]
        write(state, lanes, _per_warp(state, lanes, bit, np.bitwise_or, 0))

    return execute


@decoder("redux")
def _redux(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    opcode.has("sync")
    combiners = {
        "add": np.add,
        "min": np.minimum,
        "max": np.maximum,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
    }
    name = opcode.take(*combiners)
    kind = opcode.type()
    opcode.done()
    if name is None or kind.is_float:
        raise opcode.unknown()
    limits = np.iinfo(kind.dtype)
    identity = {"min": limits.max, "max": limits.min, "and": ~kind.dtype.type(0)}.get(name, 0)
    write = target(instruction.operands[0], kind, context)
    read = source(instruction.operands[1], kind, context)

    def execute(state: State, lanes: Lanes) -> None:
        values = np.broadcast_to(read(state, lanes), state.lane[lanes].shape)
        write(state, lanes, _per_warp(state, lanes, values, combiners[name], int(identity)))

    return execute


@decoder("match")
def _match(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    mode = opcode.take("any", "all")
    opcode.has("sync")
    kind = opcode.type()
    opcode.done()
    if mode != "any":
        raise opcode.unknown()
    write = target(instruction.operands[0], TYPES["b32"], context)
    read = source(instruction.operands[1], kind, context)

    def execute(state: State, lanes: Lanes) -> None:
        values = np.broadcast_to(read(state, lanes), state.lane[lanes].shape)
        warps = state.warp_start[lanes]
        same = (warps[:, None] == warps) & (values[:, None] == values)
        bits = np.where(same, np.uint32(1) << state.lane[lanes], np.uint32(0))
        write(state, lanes, np.bitwise_or.reduce(bits, axis=1))

    return execute


@decoder("elect")
def _elect(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    opcode.has("sync")
    opcode.done()
    pair = instruction.operands[0]
    assert isinstance(pair, Pair)
    write, write_leader = (
        target(x, k, context) for x, k in ((pair.first, _WORD), (pair.second, _PREDICATE))
    )

    def execute(state: State, lanes: Lanes) -> None:
        leader = _per_warp(state, lanes, state.lane[lanes], np.minimum, WARP)
        write(state, lanes, leader)
        write_leader(state, lanes, leader == state.lane[lanes])

    return execute
