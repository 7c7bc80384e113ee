"""Decoders of arithmetic: integers, floats, packed floats."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ptx import floats, integers
from ptx.decoding import Context, Execute, Opcode, decoder, elementwise, source, target
from ptx.errors import Fault
from ptx.state import Lanes, State
from ptx.syntax import Instruction
from ptx.types import TYPES, Type, type_named

Array = np.ndarray
Function = Callable[..., Array]

_ROUNDINGS = ("rn", "rz", "rm", "rp")


def _finished(function: Function, kind: Type, ftz: bool, sat: bool) -> Function:
    """With flushing of operands and result, and saturation, around it."""
    if not (ftz or sat):
        return function

    def run(*operands: Array) -> Array:
        if ftz:
            operands = tuple(floats.flush(x, kind) for x in operands)
        result = function(*operands)
        result = floats.flush(result, kind) if ftz else result
        return floats.saturate(result, kind) if sat else result

    return run


def _float_execute(
    function: Function,
    kind: Type,
    count: int,
    instruction: Instruction,
    context: Context,
    ftz: bool = False,
    sat: bool = False,
) -> Execute:
    """An operation on `count` floats; of packed types, on each part."""
    element = floats.ELEMENT.get(kind.name, kind)
    run = _finished(function, element, ftz, sat)
    if kind.packed == 1:
        return elementwise(run, [kind] * count, kind, instruction, context)

    def packed(*operands: Array) -> Array:
        parts = zip(*(floats.unpack(x, kind) for x in operands), strict=True)
        return floats.pack([run(*part) for part in parts], kind)

    return elementwise(packed, [kind] * count, kind, instruction, context)


@decoder("add", "sub")
def _add(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    rounding = opcode.take(*_ROUNDINGS) or "rn"
    ftz, sat, carry = opcode.has("ftz"), opcode.has("sat"), opcode.has("cc")
    kind = opcode.type()
    opcode.done()
    if carry:
        return _with_carry(opcode.name, kind, False, True, instruction, context)
    if kind.is_float:
        element = floats.ELEMENT.get(kind.name, kind)
        function = floats.arithmetic(opcode.name, element, rounding)
        return _float_execute(function, kind, 2, instruction, context, ftz, sat)
    if sat:
        return elementwise(partial(_saturated, opcode.name), [kind] * 2, kind, instruction, context)
    function = np.add if opcode.name == "add" else np.subtract
    return elementwise(function, [kind] * 2, kind, instruction, context)


def _saturated(name: str, a: Array, b: Array) -> Array:
    wide = a.astype(np.int64) + (b if name == "add" else -b.astype(np.int64))
    limits = np.iinfo(a.dtype)
    return np.clip(wide, limits.min, limits.max).astype(a.dtype)


@decoder("addc", "subc")
def _add_carry(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    carry = opcode.has("cc")
    kind = opcode.type()
    opcode.done()
    return _with_carry(opcode.name[:3], kind, True, carry, instruction, context)


def _with_carry(
    name: str, kind: Type, takes: bool, gives: bool, instruction: Instruction, context: Context
) -> Execute:
    """Addition or subtraction that takes and gives the carry of the thread."""
    bits = TYPES[f"u{kind.bits}"]
    write = target(instruction.operands[0], bits, context)
    left, right = (source(x, bits, context) for x in instruction.operands[1:])

    def execute(state: State, lanes: Lanes) -> None:
        a, b = np.broadcast_arrays(left(state, lanes), right(state, lanes))
        given = state.carry[lanes] if takes else np.zeros(1, bool)
        extra = given.astype(bits.dtype)
        if name == "add":
            result = a + b + extra
            carry = (result < a) | (given & (result == a))
        else:
            result = a - b - extra
            carry = (a < b) | (given & (a == b))
        if gives:
            state.carry[lanes] = carry
        write(state, lanes, result)

    return execute


@decoder("mul")
def _mul(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    part = opcode.take("lo", "hi", "wide")
    rounding = opcode.take(*_ROUNDINGS) or "rn"
    ftz, sat = opcode.has("ftz"), opcode.has("sat")
    kind = opcode.type()
    opcode.done()
    if kind.is_float:
        element = floats.ELEMENT.get(kind.name, kind)
        function = floats.arithmetic("mul", element, rounding)
        return _float_execute(function, kind, 2, instruction, context, ftz, sat)
    return elementwise(
        _product(part, kind), [kind] * 2, _product_type(part, kind), instruction, context
    )


def _product_type(part: str | None, kind: Type) -> Type:
    return TYPES[f"{kind.name[0]}{2 * kind.bits}"] if part == "wide" else kind


def _product(part: str | None, kind: Type) -> Function:
    if part == "wide":
        return partial(integers.multiply_wide, kind=kind)
    if part == "hi":
        return lambda a, b: integers.multiply_high(*np.broadcast_arrays(a, b), kind)
    return np.multiply


@decoder("mad", "fma")
def _mad(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    part = opcode.take("lo", "hi", "wide")
    rounding = opcode.take(*_ROUNDINGS) or "rn"
    ftz, sat, relu = opcode.has("ftz"), opcode.has("sat"), opcode.has("relu")
    kind = opcode.type()
    opcode.done()
    if kind.is_float:
        element = floats.ELEMENT.get(kind.name, kind)

        def function(a: Array, b: Array, c: Array) -> Array:
            result = floats.fma(a, b, c, element, rounding)
            if not relu:
                return result
            wide = floats.widen(result, element)
            return floats.narrow(np.where(wide < 0, 0.0, wide), element)

        return _float_execute(function, kind, 3, instruction, context, ftz, sat)
    product, wide = _product(part, kind), _product_type(part, kind)
    return elementwise(
        lambda a, b, c: product(a, b) + c, [kind, kind, wide], wide, instruction, context
    )


@decoder("div", "rem")
def _div(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    rounding = opcode.take("approx", "full", *_ROUNDINGS) or "rn"
    ftz = opcode.has("ftz")
    kind = opcode.type()
    opcode.done()
    if kind.is_float:
        exact = "rn" if rounding in ("approx", "full") else rounding
        function = floats.arithmetic("div", kind, exact)
        return _float_execute(function, kind, 2, instruction, context, ftz)
    function = integers.divide if opcode.name == "div" else integers.remainder

    def checked(a: Array, b: Array) -> Array:
        if (b == 0).any():
            raise Fault("an integer is divided by zero")
        return function(*np.broadcast_arrays(a, b))

    return elementwise(checked, [kind] * 2, kind, instruction, context)


@decoder("min", "max")
def _min(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    ftz, nan = opcode.has("ftz"), opcode.has("NaN")
    kind = opcode.type()
    opcode.done()
    if not kind.is_float:
        function = np.minimum if opcode.name == "min" else np.maximum
        return elementwise(function, [kind] * 2, kind, instruction, context)
    element = floats.ELEMENT.get(kind.name, kind)
    of_floats = floats.minimum if opcode.name == "min" else floats.maximum
    run = partial(of_floats, kind=element, propagate=nan)
    return _float_execute(run, kind, 2, instruction, context, ftz)


@decoder("neg", "abs")
def _neg(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    ftz = opcode.has("ftz")
    kind = opcode.type()
    opcode.done()
    if not kind.is_float:
        function = np.negative if opcode.name == "neg" else np.abs
        return elementwise(function, [kind], kind, instruction, context)
    element = floats.ELEMENT.get(kind.name, kind)
    change = floats.sign_bit_xor if opcode.name == "neg" else floats.sign_bit_clear
    return _float_execute(partial(change, kind=element), kind, 1, instruction, context, ftz)


@decoder("ex2", "lg2", "sin", "cos", "tanh", "rsqrt", "rcp", "sqrt")
def _unary(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    opcode.take("approx", "rn")
    ftz = opcode.has("ftz")
    kind = opcode.type()
    opcode.done()
    function = floats.UNARY[opcode.name]
    element = floats.ELEMENT.get(kind.name, kind)

    def run(x: Array) -> Array:
        return floats.narrow(function(floats.widen(x, element)), element)

    return _float_execute(run, kind, 1, instruction, context, ftz)


@decoder("copysign")
def _copysign(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    kind = opcode.type()
    opcode.done()
    return elementwise(lambda sign, x: np.copysign(x, sign), [kind] * 2, kind, instruction, context)


@decoder("testp")
def _testp(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    tests: dict[str, Function] = {
        "finite": np.isfinite,
        "infinite": np.isinf,
        "number": lambda x: ~np.isnan(x),
        "notanumber": np.isnan,
        "normal": lambda x: np.isfinite(x) & (np.abs(x) >= np.finfo(x.dtype).tiny),
        "subnormal": lambda x: (x != 0) & (np.abs(x) < np.finfo(x.dtype).tiny),
    }
    test = opcode.take(*tests)
    if test is None:
        raise opcode.unknown()
    kind = opcode.type()
    opcode.done()
    return elementwise(tests[test], [kind], TYPES["pred"], instruction, context)


@decoder("sad")
def _sad(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    kind = opcode.type()
    opcode.done()

    def function(a: Array, b: Array, c: Array) -> Array:
        return c + np.where(a < b, b - a, a - b)

    return elementwise(function, [kind] * 3, kind, instruction, context)


@decoder("dp4a")
def _dp4a(opcode: Opcode, instruction: Instruction, context: Context) -> Execute:
    a_kind, b_kind = opcode.type(), opcode.type()
    opcode.done()
    word = type_named("b32")
    run = partial(integers.dot_bytes, a_signed=a_kind.is_signed, b_signed=b_kind.is_signed)
    return elementwise(run, [word] * 3, word, instruction, context)
