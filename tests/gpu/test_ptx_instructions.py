"""Single instructions against Python's integers and fractions, which round by other code."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import ptx
import pytest
from instruction_harness import COUNT, bits_of, execute, random_bits

Array = np.ndarray


def signed(x: int, bits: int) -> int:
    return x - (1 << bits) if x >> (bits - 1) else x


def field(x: int, start: int, length: int) -> int:
    return (x >> start) & ((1 << length) - 1)


def truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (-1 if (a < 0) != (b < 0) else 1)


def extended(a: int, start: int, length: int, bits: int) -> int:
    """`bfe` of a signed number: bits beyond the number are its sign."""
    start, length = start & 255, length & 255
    if length == 0:
        return 0
    wide = signed(a, bits)
    part = field(wide >> min(start, 300), 0, length)
    sign = field(wide, min(start + length - 1, bits - 1), 1)
    return part | (-1 << length if sign else 0)


def permuted(a: int, b: int, selector: int) -> int:
    source = a | b << 32
    result = 0
    for i in range(4):
        nibble = field(selector, 4 * i, 4)
        byte = field(source, 8 * (nibble & 7), 8)
        result |= (255 * (byte >> 7) if nibble & 8 else byte) << 8 * i
    return result


INTEGERS: dict[str, tuple[str, list[str], Callable[..., int]]] = {
    "add.s32 %d, %x0, %x1;": ("b32", ["b32"] * 2, lambda a, b: a + b),
    "sub.s64 %d, %x0, %x1;": ("b64", ["b64"] * 2, lambda a, b: a - b),
    "mul.lo.s32 %d, %x0, %x1;": ("b32", ["b32"] * 2, lambda a, b: a * b),
    "mul.hi.u32 %d, %x0, %x1;": ("b32", ["b32"] * 2, lambda a, b: a * b >> 32),
    "mul.hi.u64 %d, %x0, %x1;": ("b64", ["b64"] * 2, lambda a, b: a * b >> 64),
    "mul.hi.s64 %d, %x0, %x1;": (
        "b64",
        ["b64"] * 2,
        lambda a, b: signed(a, 64) * signed(b, 64) >> 64,
    ),
    "mul.wide.s32 %d, %x0, %x1;": (
        "b64",
        ["b32"] * 2,
        lambda a, b: signed(a, 32) * signed(b, 32),
    ),
    "mad.lo.s32 %d, %x0, %x1, %x2;": ("b32", ["b32"] * 3, lambda a, b, c: a * b + c),
    "mad.wide.u16 %d, %x0, %x1, %x2;": (
        "b32",
        ["b16", "b16", "b32"],
        lambda a, b, c: a * b + c,
    ),
    "or.b32 %x1, %x1, 1; div.u32 %d, %x0, %x1;": (
        "b32",
        ["b32"] * 2,
        lambda a, b: a // (b | 1),
    ),
    "or.b32 %x1, %x1, 1; div.s32 %d, %x0, %x1;": (
        "b32",
        ["b32"] * 2,
        lambda a, b: truncated(signed(a, 32), signed(b | 1, 32)),
    ),
    "or.b64 %x1, %x1, 1; rem.s64 %d, %x0, %x1;": (
        "b64",
        ["b64"] * 2,
        lambda a, b: (
            signed(a, 64) - truncated(signed(a, 64), signed(b | 1, 64)) * signed(b | 1, 64)
        ),
    ),
    "min.s32 %d, %x0, %x1;": (
        "b32",
        ["b32"] * 2,
        lambda a, b: min(signed(a, 32), signed(b, 32)),
    ),
    "max.u64 %d, %x0, %x1;": ("b64", ["b64"] * 2, max),
    "abs.s32 %d, %x0;": ("b32", ["b32"], lambda a: abs(signed(a, 32))),
    "shl.b32 %d, %x0, %x1;": ("b32", ["b32"] * 2, lambda a, n: a << n if n < 32 else 0),
    "shr.u64 %d, %x0, %x1;": ("b64", ["b64", "b32"], lambda a, n: a >> min(n, 64)),
    "shr.s32 %d, %x0, %x1;": ("b32", ["b32"] * 2, lambda a, n: signed(a, 32) >> min(n, 32)),
    "shf.l.wrap.b32 %d, %x0, %x1, %x2;": (
        "b32",
        ["b32"] * 3,
        lambda low, high, n: (low | high << 32) << (n & 31) >> 32,
    ),
    "shf.r.clamp.b32 %d, %x0, %x1, %x2;": (
        "b32",
        ["b32"] * 3,
        lambda low, high, n: (low | high << 32) >> min(n, 32),
    ),
    "popc.b64 %d, %x0;": ("b32", ["b64"], lambda a: a.bit_count()),
    "clz.b32 %d, %x0;": ("b32", ["b32"], lambda a: 32 - a.bit_length()),
    "bfind.u32 %d, %x0;": ("b32", ["b32"], lambda a: a.bit_length() - 1),
    "bfind.s64 %d, %x0;": (
        "b32",
        ["b64"],
        lambda a: max(signed(a, 64), ~signed(a, 64)).bit_length() - 1,
    ),
    "brev.b32 %d, %x0;": ("b32", ["b32"], lambda a: int(f"{a:032b}"[::-1], 2)),
    "bfe.u32 %d, %x0, %x1, %x2;": (
        "b32",
        ["b32"] * 3,
        lambda a, s, n: field(a, s & 255, n & 255),
    ),
    "bfe.s32 %d, %x0, %x1, %x2;": ("b32", ["b32"] * 3, lambda a, s, n: extended(a, s, n, 32)),
    "bfi.b32 %d, %x0, %x1, 5, 9;": (
        "b32",
        ["b32"] * 2,
        lambda a, b: (b & ~(511 << 5)) | ((a & 511) << 5),
    ),
    "lop3.b32 %d, %x0, %x1, %x2, 0xCA;": (
        "b32",
        ["b32"] * 3,
        lambda a, b, c: (a & b) | (~a & c),
    ),
    "lop3.b32 %d, %x0, %x1, %x2, 0x96;": ("b32", ["b32"] * 3, lambda a, b, c: a ^ b ^ c),
    "prmt.b32 %d, %x0, %x1, %x2;": ("b32", ["b32"] * 3, permuted),
    "setp.lt.s32 %p|%q, %x0, %x1; selp.b32 %d, 1, 2, %p; @%q add.s32 %d, %d, 4;": (
        "b32",
        ["b32"] * 2,
        lambda a, b: 1 if signed(a, 32) < signed(b, 32) else 6,
    ),
    "add.cc.u32 %d, %x0, %x1; addc.u32 %d, %x2, %x3;": (
        "b32",
        ["b32"] * 4,
        lambda a, b, c, d: c + d + ((a + b) >> 32),
    ),
    "sub.cc.u32 %d, %x0, %x1; subc.u32 %d, %x2, %x3;": (
        "b32",
        ["b32"] * 4,
        lambda a, b, c, d: c - d - (a < b),
    ),
    "cvt.s64.s16 %d, %x0;": ("b64", ["b16"], lambda a: signed(a, 16)),
    "cvt.u16.u64 %d, %x0;": ("b16", ["b64"], lambda a: a),
    "cvt.sat.s8.s32 %x0, %x0; mov.b32 %d, %x0;": (
        "b32",
        ["b32"],
        lambda a: min(127, max(-128, signed(a, 32))),
    ),
    "mov.b64 {%x1, %x2}, %x0; mov.b64 %d, {%x2, %x1};": (
        "b64",
        ["b64", "b32", "b32"],
        lambda a, b, c: (a >> 32) | (a & 0xFFFFFFFF) << 32,
    ),
    "dp4a.s32.u32 %d, %x0, %x1, %x2;": (
        "b32",
        ["b32"] * 3,
        lambda a, b, c: (
            c + sum(signed(field(a, 8 * i, 8), 8) * field(b, 8 * i, 8) for i in range(4))
        ),
    ),
}


@pytest.mark.parametrize("code", INTEGERS)
def test_integers(code: str) -> None:
    result, kinds, function = INTEGERS[code]
    operands = [random_bits(bits_of(kind), i) for i, kind in enumerate(kinds)]
    found = execute(code, result, kinds, operands)
    bits = bits_of(result)
    for i in range(COUNT):
        expected = function(*(int(x[i]) for x in operands)) & ((1 << bits) - 1)
        assert int(found[i]) == expected, [hex(int(x[i])) for x in operands]


FORMATS = {"f16": (11, -24), "bf16": (8, -133), "f32": (24, -149), "f64": (53, -1074)}
"""Bits of the significand, exponent of the least subnormal number."""


def value(bits: int, kind: str) -> Fraction | None:
    """The number of a bit pattern; None for infinities and NaN."""
    if kind == "bf16":
        bits, kind = bits << 16, "f32"
    size = int(kind[1:])
    x = float(np.array([bits], f"u{size // 8}").view(f"f{size // 8}")[0])
    return Fraction(x) if math.isfinite(x) else None


def rounded(x: Fraction, kind: str, mode: str) -> Fraction:
    """To a format without a largest number."""
    precision, least = FORMATS[kind]
    if x == 0:
        return x
    exponent = math.floor(math.log2(abs(x.numerator)) - math.log2(x.denominator))
    exponent = exponent - 1 if abs(x) < Fraction(2) ** exponent else exponent
    exponent = exponent + 1 if abs(x) >= Fraction(2) ** (exponent + 1) else exponent
    unit = Fraction(2) ** max(exponent - precision + 1, least)
    quotient = x / unit
    steps = {"rn": round, "rz": math.trunc, "rm": math.floor, "rp": math.ceil}
    return steps[mode](quotient) * unit


def floats(kind: str, seed: int) -> Array:
    """Bits of numbers near one another and of numbers of all sizes."""
    size = bits_of(kind)
    rng = np.random.default_rng(seed)
    bits = random_bits(size, seed)
    near = rng.integers(1, 64, COUNT) / rng.choice([1, 3, 1024, 2.0**12], COUNT)
    if kind == "bf16":
        some = near.astype("f4").view("u4") >> np.uint32(16)
    else:
        some = near.astype(f"f{size // 8}").view(f"u{size // 8}")
    return np.where(rng.random(COUNT) < 0.6, some, bits).astype(f"u{size // 8}")


FLOATS: dict[str, tuple[str, int, Callable[..., Fraction]]] = {
    "add": ("%x0, %x1", 2, lambda a, b: a + b),
    "sub": ("%x0, %x1", 2, lambda a, b: a - b),
    "mul": ("%x0, %x1", 2, lambda a, b: a * b),
    "fma": ("%x0, %x1, %x2", 3, lambda a, b, c: a * b + c),
}

CASES = [
    *((op, "f32", mode) for op in FLOATS for mode in ("rn", "rz", "rm", "rp")),
    *((op, kind, "rn") for op in FLOATS for kind in ("f16", "bf16", "f64")),
]


@pytest.mark.parametrize(("op", "kind", "mode"), CASES)
def test_rounding(op: str, kind: str, mode: str) -> None:
    text, count, function = FLOATS[op]
    operands = [floats(kind, 7 * i) for i in range(count)]
    if op == "fma":
        product = operands[2].copy()
        product[::3] = operands[0][::3]
        operands[2] = product
    found = execute(f"{op}.{mode}.{kind} %d, {text};", kind, [kind] * count, operands)
    largest = (2 - Fraction(2) ** (1 - FORMATS[kind][0])) * Fraction(2) ** (
        15 if kind == "f16" else 1023 if kind == "f64" else 127
    )
    checked = 0
    for i in range(COUNT):
        numbers = [value(int(x[i]), kind) for x in operands]
        if None in numbers:
            continue
        expected = rounded(function(*numbers), kind, mode)
        if abs(expected) <= largest:
            assert value(int(found[i]), kind) == expected, (i, numbers)
            checked += 1
    assert checked > COUNT // 3


def as_bits(*numbers: float, dtype: str = "f4") -> Array:
    return np.resize(np.array(numbers, dtype), COUNT).view(f"u{dtype[1]}")


CONVERSIONS: dict[str, tuple[str, str, float, object]] = {
    "cvt.rni.s32.f32 %d, %x0;": ("s32", "f32", 2.5, 2),
    "cvt.rzi.s32.f32 %d, %x0; ": ("s32", "f32", -2.5, -2),
    "cvt.rmi.s32.f32 %d, %x0;": ("s32", "f32", -2.5, -3),
    "cvt.rpi.s32.f32 %d, %x0;": ("s32", "f32", 2.1, 3),
    "cvt.rzi.s32.f32 %d, %x0;": ("s32", "f32", 1e20, 2**31 - 1),
    "cvt.rzi.u32.f32 %d, %x0;": ("u32", "f32", -1.0, 0),
    "cvt.rzi.s64.f32 %d, %x0;": ("s64", "f32", math.nan, -(2**63)),
    "cvt.rzi.s32.f32 %d, %x0;  ": ("s32", "f32", math.nan, 0),
    "cvt.rn.f32.f64 %d, %x0;": ("f32", "f64", 1 + 2.0**-24 + 2.0**-50, 1 + 2.0**-23),
    "cvt.rz.f32.f64 %d, %x0;": ("f32", "f64", 1 + 2.0**-24 + 2.0**-50, 1.0),
    "cvt.rna.tf32.f32 %d, %x0;": ("f32", "f32", 1 + 2.0**-11, 1 + 2.0**-10),
    "cvt.rni.f32.f32 %d, %x0;": ("f32", "f32", 3.5, 4.0),
    "cvt.sat.f32.f32 %d, %x0;": ("f32", "f32", 1.5, 1.0),
    "cvt.ftz.f32.f32 %d, %x0;": ("f32", "f32", 1e-40, 0.0),
    "add.ftz.f32 %d, %x0, %x0;": ("f32", "f32", 1e-40, 0.0),
    "add.sat.f32 %d, %x0, %x0;": ("f32", "f32", 3.0, 1.0),
    "min.f32 %d, %x0, 0f3F800000;": ("f32", "f32", math.nan, 1.0),
    "min.NaN.f32 %d, %x0, 0f3F800000;": ("f32", "f32", math.nan, math.nan),
    "max.f32 %d, %x0, 0f00000000;": ("f32", "f32", -0.0, 0.0),
    "neg.f32 %d, %x0;": ("f32", "f32", 0.0, -0.0),
    "ex2.approx.f32 %d, %x0;": ("f32", "f32", 3.0, 8.0),
    "lg2.approx.ftz.f32 %d, %x0;": ("f32", "f32", 8.0, 3.0),
    "rsqrt.approx.f32 %d, %x0;": ("f32", "f32", 16.0, 0.25),
    "div.rn.f32 %d, 0f3F800000, %x0;": ("f32", "f32", 3.0, float(np.float32(1) / np.float32(3))),
    "copysign.f32 %d, %x0, 0f40000000;": ("f32", "f32", -1.0, -2.0),
    "testp.notanumber.f32 %p, %x0; selp.b32 %d, 1, 0, %p;": ("s32", "f32", math.nan, 1),
    "setp.neu.f32 %p, %x0, %x0; selp.b32 %d, 1, 0, %p;": ("s32", "f32", math.nan, 1),
    "setp.ne.f32 %p, %x0, %x0; selp.b32 %d, 1, 0, %p;": ("s32", "f32", math.nan, 0),
    "setp.gt.f32 %p, %x0, 0f00000000; selp.b32 %d, 1, 0, %p;": ("s32", "f32", math.nan, 0),
    "cvt.rn.bf16x2.f32 %d, %x0, 0f3F800000;": ("u32", "f32", 1 + 2.0**-8, 0x3F803F80),
    "cvt.rn.f16x2.f32 %d, %x0, 0f3F800000;": ("u32", "f32", -2.0, 0xC0003C00),
}


@pytest.mark.parametrize("code", CONVERSIONS)
def test_conversions_and_special_numbers(code: str) -> None:
    result, kind, operand, expected = CONVERSIONS[code]
    found = execute(code, result, [kind], [as_bits(operand, dtype=f"f{bits_of(kind) // 8}")])
    letter = {"s": "i", "u": "u", "f": "f"}[result[0]]
    numbers = found.view(f"{letter}{bits_of(result) // 8}")
    wanted = np.array(expected, numbers.dtype)
    assert np.array_equal(numbers, np.full(COUNT, wanted), equal_nan=letter == "f")
    if letter == "f":
        assert np.signbit(numbers[0]) == np.signbit(wanted)


def test_packed_halves() -> None:
    halves = [as_bits(1.5, -2.0, dtype="f2")[: 2 * COUNT].reshape(-1) for _ in range(2)]
    words = [np.resize(x, 2 * COUNT).view("u4") for x in halves]
    found = execute("fma.rn.f16x2 %d, %x0, %x1, %x1;", "f16x2", ["f16x2"] * 2, words)
    assert np.array_equal(found.view("f2")[:2], np.array([3.75, 2.0], "f2"))


UNKNOWN = {
    "frobnicate.b32 %d, %x0;": ptx.UnknownInstruction,
    "add.rn.weird.f32 %d, %x0, %x0;": ptx.InvalidProgram,
    "mul.lo.hi.s32 %d, %x0, %x0;": ptx.InvalidProgram,
    "shfl.sync.left.b32 %d, %x0, 1, 31, -1;": ptx.InvalidProgram,
    "ld.global.mystery.b32 %d, [%a0];": ptx.InvalidProgram,
    "mov.u32 %d, %clock;": ptx.UnknownInstruction,
    "add.s64 %d, %x0, %x0;": ptx.InvalidProgram,
    "add.s32 %d, %x0, %nowhere;": ptx.InvalidProgram,
    "bra nowhere;": ptx.InvalidProgram,
    "mma.sync.aligned.m16n8k64.row.col.f32.f16.f16.f32 %d, %x0, %x0, %x0;": ptx.InvalidProgram,
}


@pytest.mark.parametrize("code", UNKNOWN)
def test_what_is_not_known_is_an_error(code: str) -> None:
    with pytest.raises(UNKNOWN[code]):
        execute(code, "b32", ["b32"], [random_bits(32, 0)])


FAULTS = {
    "div.u32 %d, %x0, 0;": "divided by zero",
    "@%p mov.b32 %d, 1;": "never written",
    "again: bra again;": "goes on",
    "trap;": "trapped",
    "ld.global.b32 %d, [%a0+-4];": "accessed by thread",
}


@pytest.mark.parametrize("code", FAULTS)
def test_faults(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptx.launch, "__defaults__", (0, 1000))
    with pytest.raises(ptx.Fault, match=FAULTS[code]):
        execute(code, "b32", ["b32"], [random_bits(32, 0)])
