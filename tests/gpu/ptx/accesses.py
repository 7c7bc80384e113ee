"""Decoders of loads, stores, atomics, fences, and how addresses become places in memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ptx import floats
from ptx.decoding import Context, Execute, Opcode, Write, address, decoder, source, space_of, target
from ptx.errors import InvalidProgram, OutOfBounds, UnknownInstruction
from ptx.memory import LOCAL_WINDOW, SHARED_WINDOW, VARIABLES_BASE, WINDOW, Memory
from ptx.races import Access
from ptx.state import Lanes, State
from ptx.syntax import Instruction, Operand, Vector
from ptx.types import TYPES, Type

Array = np.ndarray

SPACES = ("global", "shared", "local", "const", "param")
_ORDERINGS = ("weak", "volatile", "relaxed", "acquire", "release", "acq_rel", "sc")
_SCOPES = ("cta", "gpu", "sys", "cluster")
_CACHES = ("ca", "cg", "cs", "lu", "cv", "wb", "wt")
_LEVELS = ("L1::evict_normal", "L1::evict_last", "L1::evict_first", "L1::no_allocate")
_PREFETCHES = ("L2::64B", "L2::128B", "L2::256B")


def resolve(
    state: State, lanes: Lanes, space: str | None, addresses: Array, size: int, access: Access
) -> tuple[Memory, Array]:
    """The memory of an access and the offsets in it; without a space, addresses are generic."""
    memories = state.memories
    if space is None:
        space, addresses = _from_generic(addresses)
    if space == "global" and int(addresses[0]) >> 32 == VARIABLES_BASE >> 32:
        space, addresses = "const", addresses - np.uint64(VARIABLES_BASE)
    if space == "global":
        return memories.globals, memories.globals.offsets(addresses, size, access)
    if space == "shared":
        blocks = state.block[lanes]
        return memories.shared, memories.shared.offsets(addresses, blocks, size, access)
    if space == "local":
        return memories.local, memories.local.offsets(addresses, state.indices(lanes), size, access)
    memory = memories.const if space == "const" else memories.param
    offsets = addresses.astype(np.int64)
    if ((offsets < 0) | (offsets + size > len(memory.data))).any():
        raise OutOfBounds(f"outside of {space} memory")
    return memory, offsets


def _from_generic(addresses: Array) -> tuple[str, Array]:
    for space, window in (("shared", SHARED_WINDOW), ("local", LOCAL_WINDOW)):
        start = np.uint64(window)
        inside = (addresses >= start) & (addresses < start + np.uint64(WINDOW))
        if inside.all():
            return space, addresses - start
        if inside.any():
            raise UnknownInstruction("a generic access to several spaces at once")
    return "global", addresses


def state_space(opcode: Opcode) -> str | None:
    """The space that an opcode names; `shared::cta` is shared."""
    space = opcode.take(*SPACES, "shared::cta", "param::entry")
    return space.partition("::")[0] if space else None


def _items(operand: Operand, count: int) -> tuple[Operand, ...]:
    items = operand.items if isinstance(operand, Vector) else (operand,)
    if len(items) != count:
        raise InvalidProgram(f"{len(items)} registers for a vector of {count}")
    return items


def _vector(opcode: Opcode) -> int:
    return int((opcode.take("v2", "v4", "v8") or "v1")[1:])


def _is_strong(ordering: str | None) -> bool:
    return ordering not in (None, "weak")


@decoder("ld", "ldu")
def _ld(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    ordering = opcode.take(*_ORDERINGS)
    opcode.drop(*_SCOPES)
    space = state_space(opcode) or space_of(instruction.operands[1], context)
    opcode.drop(*_CACHES)
    constant = opcode.has("nc")
    opcode.drop(*_CACHES, *_LEVELS, *_PREFETCHES)
    count, kind = _vector(opcode), opcode.type()
    opcode.done()
    destination, where, *_ = instruction.operands
    writes = [target(x, kind, context) for x in _items(destination, count)]
    addresses = address(where, context)
    strong = _is_strong(ordering)

    def execute(state: State, lanes: Lanes) -> None:
        access = state.access(lanes, strong, constant)
        places = addresses(state, lanes)
        memory, offsets = resolve(state, lanes, space, places, kind.size * count, access)
        values = memory.load(offsets, kind.size, count, access)
        for i, write in enumerate(writes):
            write(state, lanes, np.ascontiguousarray(values[:, i]).view(kind.dtype))

    return execute


@decoder("st")
def _st(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    ordering = opcode.take(*_ORDERINGS)
    opcode.drop(*_SCOPES)
    where, values = instruction.operands[:2]
    space = state_space(opcode) or space_of(where, context)
    opcode.drop(*_CACHES, *_LEVELS, *_PREFETCHES)
    count, kind = _vector(opcode), opcode.type()
    opcode.done()
    bits = TYPES[f"b{kind.bits}"]
    reads = [source(x, bits, context) for x in _items(values, count)]
    addresses = address(where, context)
    strong = _is_strong(ordering)
    if space in ("const", "param"):
        raise InvalidProgram(f"a store to {space} memory")

    def execute(state: State, lanes: Lanes) -> None:
        access = state.access(lanes, strong)
        places = addresses(state, lanes)
        memory, offsets = resolve(state, lanes, space, places, kind.size * count, access)
        rows = np.empty((len(offsets), count), bits.dtype)
        for i, read in enumerate(reads):
            rows[:, i] = read(state, lanes)
        memory.store(offsets, rows, access)

    return execute


Update = Callable[[Array, Array], Array]


def _update(name: str, kind: Type) -> Update:
    """What an atomic operation makes of the old value and the operand."""
    if kind.is_float:
        element = floats.ELEMENT.get(kind.name, kind)
        if name != "add":
            raise UnknownInstruction(f"atom.{name}.{kind.name}")
        add = floats.arithmetic("add", element, "rn")
        if kind.packed == 1:
            return add
        return lambda a, b: floats.pack(
            list(map(add, floats.unpack(a, kind), floats.unpack(b, kind))), kind
        )
    updates: dict[str, Update] = {
        "add": np.add,
        "min": np.minimum,
        "max": np.maximum,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
        "exch": lambda old, new: new,
        "inc": lambda old, limit: np.where(old >= limit, old.dtype.type(0), old + 1),
        "dec": lambda old, limit: np.where((old == 0) | (old > limit), limit, old - 1),
    }
    return updates[name]


_ATOMICS = ("add", "min", "max", "and", "or", "xor", "exch", "inc", "dec", "cas")


@decoder("atom", "red")
def _atom(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    opcode.drop(*_ORDERINGS)
    opcode.drop(*_SCOPES)
    space = state_space(opcode)
    opcode.drop(*_SCOPES)
    name = opcode.take(*_ATOMICS)
    if name is None:
        raise opcode.unknown()
    opcode.drop("noftz")
    kind = opcode.type()
    opcode.done()
    operands = instruction.operands
    write: Write | None = None
    if opcode.name == "atom":
        write, operands = target(operands[0], kind, context), operands[1:]
    addresses = address(operands[0], context)
    reads = [source(x, kind, context) for x in operands[1:]]
    update = None if name == "cas" else _update(name, kind)

    def execute(state: State, lanes: Lanes) -> None:
        access = state.access(lanes, atomic=True)
        places = addresses(state, lanes)
        memory, offsets = resolve(state, lanes, space, places, kind.size, access)
        operands = [np.broadcast_to(read(state, lanes), offsets.shape) for read in reads]
        old = _apply(memory, offsets, kind, operands, update, access)
        if write:
            write(state, lanes, old)

    return execute


def _apply(
    memory: Memory,
    offsets: Array,
    kind: Type,
    operands: list[Array],
    update: Update | None,
    access: Access,
) -> Array:
    """The threads one after another where they meet, all places at once.  The old values."""
    memory.load(offsets, kind.size, 1, Access(access.keys, access.name, True, constant=True))
    memory.store(offsets, memory.data.view(f"u{kind.size}")[offsets // kind.size][:, None], access)
    view = memory.data.view(kind.dtype)
    index = offsets // kind.size
    old = np.empty(len(index), kind.dtype)
    for turn in _turns(index):
        place = index[turn]
        before = view[place]
        old[turn] = before
        chosen = [operand[turn] for operand in operands]
        if update is None:
            compared, new = chosen
            view[place] = np.where(before == compared, new, before)
        else:
            view[place] = update(before, chosen[0])
    return old


def _turns(index: Array) -> list[Array]:
    """Positions in groups without a place twice; the first of each place first."""
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    starts = np.r_[True, ordered[1:] != ordered[:-1]]
    first = np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
    rank = np.arange(len(order)) - first
    if not rank.any():
        return [np.arange(len(index))]
    by_rank = np.argsort(rank, kind="stable")
    return np.split(order[by_rank], np.cumsum(np.bincount(rank))[:-1])


def _nothing(state: State, lanes: Lanes) -> None:
    """An instruction without an effect here."""


@decoder("fence", "membar")
def _fence(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    """The interpreter executes in order; what fences order between blocks is not modelled."""
    opcode.drop("sc", "acq_rel", "gl", "proxy", "async", *_SCOPES)
    opcode.done()
    return _nothing


@decoder("prefetch", "prefetchu", "discard", "applypriority", "nanosleep")
def _hint(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    return _nothing
