"""Decoders of logic, shifts, bit fields, comparisons, selections, moves and conversions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ptx import integers
from ptx.conversions import converter
from ptx.decoding import Context, Execute, Opcode, decoder, elementwise, source, target
from ptx.errors import InvalidProgram
from ptx.floats import flush, widen
from ptx.memory import GLOBAL_BASE, LOCAL_WINDOW, SHARED_WINDOW, WINDOW
from ptx.state import Lanes, State
from ptx.syntax import Immediate, Instruction, Pair, Register, Sink
from ptx.types import TYPES, Type

Array = np.ndarray
Function = Callable[..., Array]

_PREDICATE = TYPES["pred"]
_WORD = TYPES["u32"]


@decoder("and", "or", "xor", "not", "cnot")
def _logic(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    kind = opcode.type()
    opcode.done()
    functions: dict[str, Function] = {
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
        "not": np.invert,
        "cnot": lambda a: (a == 0).astype(a.dtype),
    }
    count = 1 if opcode.name in ("not", "cnot") else 2
    return elementwise(functions[opcode.name], [kind] * count, kind, instruction, context)


@decoder("shl", "shr")
def _shift(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    kind = opcode.type()
    opcode.done()
    shift = integers.shift_left if opcode.name == "shl" else integers.shift_right

    def function(a: Array, amount: Array) -> Array:
        return shift(a, amount, kind.bits)

    return elementwise(function, [kind, _WORD], kind, instruction, context)


@decoder("shf")
def _funnel(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    direction, mode = opcode.take("l", "r"), opcode.take("wrap", "clamp")
    kind = opcode.type()
    opcode.done()

    def function(low: Array, high: Array, amount: Array) -> Array:
        return integers.funnel_shift(low, high, amount, direction == "l", mode == "wrap")

    return elementwise(function, [kind, kind, _WORD], kind, instruction, context)


@decoder("popc", "clz", "brev")
def _count(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    kind = opcode.type()
    opcode.done()
    functions: dict[str, Function] = {
        "popc": integers.count_ones,
        "clz": lambda a: integers.leading_zeros(a, kind.bits),
        "brev": lambda a: integers.reverse_bits(a, kind.bits),
    }
    result = kind if opcode.name == "brev" else _WORD
    return elementwise(functions[opcode.name], [kind], result, instruction, context)


@decoder("bfind")
def _bfind(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    as_shift = opcode.has("shiftamt")
    kind = opcode.type()
    opcode.done()

    def function(a: Array) -> Array:
        return integers.highest_bit(a, kind, as_shift)

    return elementwise(function, [kind], _WORD, instruction, context)


@decoder("bfe")
def _bfe(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    kind = opcode.type()
    opcode.done()

    def function(a: Array, start: Array, length: Array) -> Array:
        return integers.extract_bits(*np.broadcast_arrays(a, start, length), kind)

    return elementwise(function, [kind, _WORD, _WORD], kind, instruction, context)


@decoder("bfi")
def _bfi(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    kind = opcode.type()
    opcode.done()

    def function(a: Array, into: Array, start: Array, length: Array) -> Array:
        arrays = np.broadcast_arrays(a, into, start, length)
        return integers.insert_bits(*arrays, kind.bits)

    return elementwise(function, [kind, kind, _WORD, _WORD], kind, instruction, context)


@decoder("lop3")
def _lop3(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    kind = opcode.type()
    opcode.done()
    *_, table = instruction.operands
    if not isinstance(table, Immediate):
        raise InvalidProgram("the table of lop3 is no literal")

    def function(a: Array, b: Array, c: Array, _: Array) -> Array:
        return integers.look_up(*np.broadcast_arrays(a, b, c), table.value)

    return elementwise(function, [kind] * 3 + [_WORD], kind, instruction, context)


@decoder("prmt")
def _prmt(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    kind = opcode.type()
    opcode.done()
    return elementwise(integers.permute_bytes, [kind] * 3, kind, instruction, context)


_ORDERED: dict[str, Function] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}


def _neither_nan(a: Array, b: Array) -> Array:
    return ~(np.isnan(a) | np.isnan(b))


def _float_comparison(name: str) -> Function:
    """Ordered comparisons are false with a NaN, unordered ones (`equ` ...) true."""
    if name == "num":
        return _neither_nan
    if name == "nan":
        return lambda a, b: np.isnan(a) | np.isnan(b)
    if name == "ne":
        return lambda a, b: (a != b) & _neither_nan(a, b)
    if name in _ORDERED:
        return _ORDERED[name]
    ordered = _ORDERED[name[:-1]]
    return lambda a, b: ordered(a, b) | np.isnan(a) | np.isnan(b)


_COMPARISONS = (*_ORDERED, "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan")


def _comparison(opcode: Opcode) -> tuple[Function, str | None, bool]:
    """A comparison, the operator that joins a predicate to it, whether to flush."""
    name = opcode.take(*_COMPARISONS)
    if name is None:
        raise opcode.unknown()
    join = opcode.take("and", "or", "xor")
    ftz = opcode.has("ftz")
    return _float_comparison(name), join, ftz


def _compared(function: Function, kind: Type, ftz: bool) -> Function:
    if not kind.is_float:
        return function

    def run(a: Array, b: Array) -> Array:
        if ftz:
            a, b = flush(a, kind), flush(b, kind)
        return function(widen(a, kind), widen(b, kind))

    return run if ftz or kind.name == "bf16" else function


_JOINS: dict[str, Function] = {
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
}


@decoder("setp")
def _setp(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    function, join, ftz = _comparison(opcode)
    kind = opcode.type()
    opcode.done()
    compare = _compared(function, kind, ftz)
    destination, *operands = instruction.operands
    pair = destination if isinstance(destination, Pair) else Pair(destination, Sink())
    writes = [target(x, _PREDICATE, context) for x in (pair.first, pair.second)]
    left, right = (source(x, kind, context) for x in operands[:2])
    joined = source(operands[2], _PREDICATE, context) if join else None

    def execute(state: State, lanes: Lanes) -> None:
        result = compare(left(state, lanes), right(state, lanes))
        results = [result, ~result]
        if join and joined:
            third = joined(state, lanes)
            results = [_JOINS[join](x, third) for x in results]
        for write, value in zip(writes, results, strict=True):
            write(state, lanes, value)

    return execute


@decoder("set")
def _set(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    function, join, ftz = _comparison(opcode)
    result, kind = opcode.type(), opcode.type()
    opcode.done()
    compare = _compared(function, kind, ftz)
    if join:
        raise opcode.unknown()
    true = result.dtype.type(1) if result.is_float else ~result.dtype.type(0)

    def run(a: Array, b: Array) -> Array:
        return np.where(compare(a, b), true, result.dtype.type(0))

    return elementwise(run, [kind] * 2, result, instruction, context)


@decoder("selp")
def _selp(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    kind = TYPES[f"b{opcode.type().bits}"]
    opcode.done()

    def function(a: Array, b: Array, chosen: Array) -> Array:
        return np.where(chosen, a, b)

    return elementwise(function, [kind, kind, _PREDICATE], kind, instruction, context)


@decoder("slct")
def _slct(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    opcode.drop("ftz")
    kind, condition = TYPES[f"b{opcode.type().bits}"], opcode.type()
    opcode.done()

    def function(a: Array, b: Array, chosen: Array) -> Array:
        return np.where(chosen >= 0, a, b)

    return elementwise(function, [kind, kind, condition], kind, instruction, context)


@decoder("mov")
def _mov(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    kind = opcode.type()
    opcode.done()
    bits = kind if kind.bits == 1 else TYPES[f"b{kind.bits}"]
    return elementwise(lambda a: a, [bits], bits, instruction, context)


@decoder("implicit_def")
def _implicit(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    """Any value will do, so it is a strange one."""
    (operand,) = instruction.operands
    assert isinstance(operand, Register)
    width = context.widths[operand.name]
    kind = _PREDICATE if width == 1 else TYPES[f"b{width}"]
    write = target(operand, kind, context)
    strange = np.array([0x7FF4_DEAD_7FA4_7D01 & ((1 << width) - 1)], kind.dtype)
    return lambda state, lanes: write(state, lanes, strange)


@decoder("cvta")
def _cvta(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    to_space = opcode.has("to")
    space = opcode.take("global", "shared", "local", "const", "param")
    kind = opcode.type()
    opcode.done()
    windows = {"global": 0, "shared": SHARED_WINDOW, "local": LOCAL_WINDOW}
    if space not in windows:
        raise opcode.unknown()
    window = np.uint64(windows[space])

    def function(a: Array) -> Array:
        return a - window if to_space else a + window

    return elementwise(function, [kind], kind, instruction, context)


@decoder("isspacep")
def _isspacep(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    starts = {"global": GLOBAL_BASE, "shared": SHARED_WINDOW, "local": LOCAL_WINDOW}
    space = opcode.take(*starts)
    opcode.done()
    if space is None:
        raise opcode.unknown()
    start = np.uint64(starts[space])
    stop = start + np.uint64(WINDOW if space != "global" else 1 << 46)

    def function(a: Array) -> Array:
        return (a >= start) & (a < stop)

    return elementwise(function, [TYPES["u64"]], _PREDICATE, instruction, context)


_ROUNDINGS = ("rn", "rz", "rm", "rp", "rna", "rni", "rzi", "rmi", "rpi")


@decoder("cvt")
def _cvt(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    rounding = opcode.take(*_ROUNDINGS)
    relu, ftz, sat = opcode.has("relu"), opcode.has("ftz"), opcode.has("sat")
    result, kind = opcode.type(), opcode.type()
    opcode.done()
    convert = converter(result, kind, rounding, ftz, sat, relu)
    return elementwise(convert, [kind] * result.packed, result, instruction, context)
