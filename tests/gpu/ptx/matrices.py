"""Tensor cores: `ldmatrix`, `stmatrix` and `mma`.

Fragments, for all shapes alike (lane = 4 * group + quad; p numbers to a 32-bit register):

- A, of 8 or 16 rows: number e of register r is row `group + 8 * (r % 2)` (of 8 rows: `group`),
  column `p * quad + e + 4 * p * (r // 2)` (of 8 rows: `4 * p * r`);
- B: number e of register r is row `p * quad + e + 4 * p * r`, column `group`;
- C and D: number i is row `group + 8 * (i // 2)`, column `2 * quad + i % 2`.

Products are exact and their sum is rounded once, to f32; hardware rounds more often, in an order
that it does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptx import floats
from ptx.accesses import resolve
from ptx.decoding import Context, Execute, Opcode, address, decoder, source, target
from ptx.errors import InvalidProgram
from ptx.state import WARP, Lanes, State
from ptx.syntax import Instruction, Operand, Vector
from ptx.types import TYPES, Type

Array = np.ndarray

_GROUP, _QUAD = np.divmod(np.arange(WARP), 4)
_SHAPES = {
    "m8n8k4": (8, 8, 4),
    "m16n8k4": (16, 8, 4),
    "m16n8k8": (16, 8, 8),
    "m16n8k16": (16, 8, 16),
    "m16n8k32": (16, 8, 32),
}
_ALLOWED = {
    ("m8n8k4", "f64"),
    ("m16n8k4", "f64"),
    ("m16n8k8", "f64"),
    ("m16n8k16", "f64"),
    ("m16n8k4", "tf32"),
    ("m16n8k8", "tf32"),
    ("m16n8k8", "f16"),
    ("m16n8k16", "f16"),
    ("m16n8k8", "bf16"),
    ("m16n8k16", "bf16"),
    ("m16n8k16", "s8"),
    ("m16n8k16", "u8"),
    ("m16n8k32", "s8"),
    ("m16n8k32", "u8"),
}


@dataclass(frozen=True)
class Fragment:
    """Where the numbers of a lane's registers belong: [lane, number]."""

    rows: Array
    columns: Array
    shape: tuple[int, int]

    def gather(self, numbers: Array) -> Array:
        """[warps, lane, number] to matrices."""
        result = np.empty((len(numbers), *self.shape), numbers.dtype)
        result[:, self.rows, self.columns] = numbers
        return result

    def scatter(self, matrices: Array) -> Array:
        """Matrices to [warps, lane, number]."""
        return matrices[:, self.rows, self.columns]


def left_fragment(rows: int, depth: int, packing: int) -> Fragment:
    """Of A."""
    number = np.arange(rows * depth // WARP)
    register, element = np.divmod(number, packing)
    below, right = (register % 2, register // 2) if rows == 16 else (0 * register, register)
    row = _GROUP[:, None] + 8 * below
    column = packing * _QUAD[:, None] + element + 4 * packing * right
    return Fragment(row, column, (rows, depth))


def right_fragment(depth: int, packing: int) -> Fragment:
    """Of B."""
    register, element = np.divmod(np.arange(depth * 8 // WARP), packing)
    row = packing * _QUAD[:, None] + element + 4 * packing * register
    return Fragment(row, np.broadcast_to(_GROUP[:, None], row.shape), (depth, 8))


def result_fragment(rows: int) -> Fragment:
    """Of C and D."""
    number = np.arange(rows * 8 // WARP)
    row = _GROUP[:, None] + 8 * (number // 2)
    return Fragment(row, 2 * _QUAD[:, None] + number % 2, (rows, 8))


@dataclass(frozen=True)
class Packed:
    """How registers hold the numbers of a fragment."""

    kind: Type

    @property
    def packing(self) -> int:
        return max(1, 32 // self.kind.bits)

    @property
    def register(self) -> Type:
        return TYPES["b64" if self.kind.bits == 64 else "b32"]

    def numbers(self, registers: list[Array]) -> Array:
        """[warps, lane, number], in f64 or of integers in int64."""
        bits = np.ascontiguousarray(np.stack(registers, axis=-1)).view(f"u{self.kind.size}")
        numbers = bits.reshape(-1, WARP, bits.shape[-1])
        if self.kind.is_float:
            return floats.widen(numbers.view(self.kind.dtype), self.kind)
        return numbers.view(self.kind.dtype).astype(np.int64)

    def registers(self, numbers: Array) -> list[Array]:
        """The opposite."""
        if self.kind.is_float:
            values = floats.narrow(numbers, self.kind)
        else:
            values = numbers.astype(self.kind.dtype)
        bits = np.ascontiguousarray(values).reshape(-1, values.shape[-1]).view(self.register.dtype)
        return [bits[:, i] for i in range(bits.shape[1])]


def _registers(operand: Operand) -> tuple[Operand, ...]:
    return operand.items if isinstance(operand, Vector) else (operand,)


@decoder("mma")
def _mma(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    opcode.drop("sync", "aligned")
    shape = opcode.take(*_SHAPES)
    layouts = opcode.take("row"), opcode.take("col")
    opcode.drop("satfinite")
    d_kind, a_kind, b_kind, c_kind = (opcode.type() for _ in range(4))
    opcode.done()
    if shape is None or (shape, a_kind.name) not in _ALLOWED or layouts != ("row", "col"):
        raise opcode.unknown()
    rows, _, depth = _SHAPES[shape]
    packs = [Packed(kind) for kind in (a_kind, b_kind, c_kind)]
    fragments = [
        left_fragment(rows, depth, packs[0].packing),
        right_fragment(depth, packs[1].packing),
        result_fragment(rows),
    ]
    d, *operands = instruction.operands
    reads = []
    for operand, pack, fragment in zip(operands, packs, fragments, strict=True):
        items = _registers(operand)
        if len(items) * pack.packing != fragment.rows.shape[1]:
            raise InvalidProgram(f"{instruction.opcode}: {len(items)} registers")
        reads.append([source(item, pack.register, context) for item in items])
    result = Packed(d_kind)
    writes = [target(item, result.register, context) for item in _registers(d)]

    def execute(state: State, lanes: Lanes) -> None:
        a, b, c = (
            fragment.gather(pack.numbers([_each(state, lanes, read) for read in group]))
            for fragment, pack, group in zip(fragments, packs, reads, strict=True)
        )
        numbers = fragments[2].scatter(a @ b + c)
        for write, value in zip(writes, result.registers(numbers), strict=True):
            write(state, lanes, value)

    return execute


def _each(state: State, lanes: Lanes, read: object) -> Array:
    assert callable(read)
    return np.broadcast_to(read(state, lanes), (state.size(lanes),))


def _matrix_count(opcode: Opcode) -> tuple[int, bool]:
    """Of `ldmatrix` and `stmatrix`: how many matrices, and whether transposed."""
    opcode.drop("sync", "aligned")
    shape, count = opcode.take("m8n8"), opcode.take("x1", "x2", "x4")
    if shape is None or count is None:
        raise opcode.unknown()
    transposed = opcode.has("trans")
    opcode.drop("shared", "shared::cta")
    if opcode.type().name != "b16":
        raise opcode.unknown()
    opcode.done()
    return int(count[1:]), transposed


def _rows(state: State, lanes: Lanes, count: int, addresses: Array) -> tuple[Array, Array]:
    """The lanes that give addresses of rows, eight a matrix, and the offsets."""
    givers = state.indices(lanes).reshape(-1, WARP)[:, : 8 * count].reshape(-1)
    chosen = addresses.reshape(-1, WARP)[:, : 8 * count].reshape(-1)
    _, offsets = resolve(state, givers, "shared", chosen, 16, state.access(givers))
    return givers, offsets


@decoder("ldmatrix")
def _ldmatrix(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    count, transposed = _matrix_count(opcode)
    writes = [target(x, TYPES["b32"], context) for x in _registers(instruction.operands[0])]
    addresses = address(instruction.operands[1], context)
    if len(writes) != count:
        raise InvalidProgram(f"{instruction.opcode}: {len(writes)} registers")

    def execute(state: State, lanes: Lanes) -> None:
        givers, offsets = _rows(state, lanes, count, addresses(state, lanes))
        values = state.memories.shared.load(offsets, 2, 8, state.access(givers))
        matrices = values.reshape(-1, count, 8, 8)
        if transposed:
            matrices = matrices.swapaxes(2, 3)
        words = np.ascontiguousarray(matrices).view(np.uint32).reshape(-1, count, WARP)
        for i, write in enumerate(writes):
            write(state, lanes, np.ascontiguousarray(words[:, i]).reshape(-1))

    return execute


@decoder("stmatrix")
def _stmatrix(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    count, transposed = _matrix_count(opcode)
    addresses = address(instruction.operands[0], context)
    reads = [source(x, TYPES["b32"], context) for x in _registers(instruction.operands[1])]
    if len(reads) != count:
        raise InvalidProgram(f"{instruction.opcode}: {len(reads)} registers")

    def execute(state: State, lanes: Lanes) -> None:
        givers, offsets = _rows(state, lanes, count, addresses(state, lanes))
        words = np.stack([_each(state, lanes, read).reshape(-1, WARP) for read in reads], axis=1)
        matrices = words.view(np.uint16).reshape(-1, count, 8, 8)
        if transposed:
            matrices = matrices.swapaxes(2, 3)
        rows = np.ascontiguousarray(matrices).reshape(-1, 8)
        state.memories.shared.store(offsets, rows, state.access(givers))

    return execute
