"""The lowering table of scalar operations: from each name to LLVM instructions, for any lanes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mapsto.ir.types import DType
from mapsto.lowering.llvm import vector_math
from mapsto.lowering.llvm.loop_scope import value_type
from mapsto.lowering.llvm.types import (
    BFLOAT,
    FLOAT,
    HALF,
    LLVMType,
    Operand,
    constant,
    zero,
)
from mapsto.lowering.llvm.writer import FunctionWriter

__all__ = ["FUNCTIONS", "HEAVY", "LOWERINGS", "lower", "lower_cast"]

Lowering = Callable[[FunctionWriter, DType, tuple[Operand, ...]], Operand]
"""Writes the operation on operands of the given element type (of the last one, for `select`)."""

FUNCTIONS = frozenset(
    {"exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "erf", "sigmoid", "pow", "rsqrt"}
)
"""Operations that are long chains of instructions, each of which waits for the one before."""

HEAVY = FUNCTIONS | {"div", "mod", "sqrt", "mul_high"}
"""Operations beside which the overhead of a loop does not count."""


def lower(f: FunctionWriter, op: str, dtype: DType, operands: tuple[Operand, ...]) -> Operand:
    """Write the operation; all operands have the same number of lanes.  16-bit floats are computed
    in f32 and rounded."""
    if dtype not in _HALVES or op == "select":
        return LOWERINGS[op](f, dtype, operands)
    wide = tuple(_widen(f, operand) for operand in operands)
    result = LOWERINGS[op](f, DType.F32, wide)
    return _narrow(f, result, dtype) if result.type.is_float else result


_HALVES = {DType.F16: HALF, DType.BF16: BFLOAT}
"""The types that are computed in f32 and rounded."""


def _widen(f: FunctionWriter, x: Operand) -> Operand:
    return f.fpext(x, FLOAT.vector(x.type.lanes))


def _narrow(f: FunctionWriter, x: Operand, dtype: DType) -> Operand:
    return f.fptrunc(x, _HALVES[dtype].vector(x.type.lanes))


def _neg(f: FunctionWriter, dtype: DType, operands: tuple[Operand, ...]) -> Operand:
    (x,) = operands
    return f.fneg(x) if dtype.is_float else f.sub(constant(x.type, 0), x)


def _abs(f: FunctionWriter, dtype: DType, operands: tuple[Operand, ...]) -> Operand:
    (x,) = operands
    if dtype.is_float:
        return f.fabs(x)
    return f.absolute(x) if dtype.is_signed else x


def _sign(f: FunctionWriter, dtype: DType, operands: tuple[Operand, ...]) -> Operand:
    (x,) = operands
    none, one = constant(x.type, 0), constant(x.type, 1)
    positive = _compare("gt", f, dtype, (x, none))
    if not dtype.is_signed:
        return f.select(positive, one, none)
    negative = _compare("lt", f, dtype, (x, none))
    return f.select(positive, one, f.select(negative, constant(x.type, -1), x))


def _rsqrt(f: FunctionWriter, dtype: DType, operands: tuple[Operand, ...]) -> Operand:
    root = f.sqrt(operands[0])
    return f.fdiv(constant(root.type, 1.0), root)


def _unary(name: str) -> Lowering:
    return lambda f, dtype, operands: getattr(f, name)(operands[0])


def _math(name: str) -> Lowering:
    return lambda f, dtype, operands: vector_math.emit(f, name, *operands)


def _arithmetic(integer: str, floating: str) -> Lowering:
    def write(f: FunctionWriter, dtype: DType, operands: tuple[Operand, ...]) -> Operand:
        if dtype.is_float:
            return getattr(f, floating)(*operands)  # type: ignore[no-any-return]
        return getattr(f, integer)(*operands)  # type: ignore[no-any-return]

    return write


def _integer(name: str) -> Lowering:
    return lambda f, dtype, operands: getattr(f, name)(*operands)


# ---- integer division, rounding down


def _safe_divisor(f: FunctionWriter, dtype: DType, b: Operand) -> Operand:
    """The divisor where the machine's division cannot fault, else 1: 0, and -1 (the quotient of
    the least integer by -1 does not exist)."""
    faulty = f.icmp("eq", b, constant(b.type, 0))
    if dtype.is_signed:
        faulty = f.or_(faulty, f.icmp("eq", b, constant(b.type, -1)))
    return f.select(faulty, constant(b.type, 1), b)


def _rounds_down(f: FunctionWriter, remainder: Operand, b: Operand) -> Operand:
    """Whether the truncated quotient lies above the exact one."""
    none = constant(b.type, 0)
    inexact = f.icmp("ne", remainder, none)
    return f.and_(inexact, f.icmp("slt", f.xor(remainder, b), none))


def _div(f: FunctionWriter, dtype: DType, operands: tuple[Operand, ...]) -> Operand:
    a, b = operands
    if dtype.is_float:
        return f.fdiv(a, b)
    none = constant(b.type, 0)
    safe = _safe_divisor(f, dtype, b)
    if not dtype.is_signed:
        return f.select(f.icmp("eq", b, none), none, f.udiv(a, safe))
    quotient = f.sdiv(a, safe)
    remainder = f.sub(a, f.mul(quotient, safe))
    down = f.add(quotient, f.sext(_rounds_down(f, remainder, safe), b.type))
    negated = f.select(f.icmp("eq", b, constant(b.type, -1)), f.sub(none, a), down)
    return f.select(f.icmp("eq", b, none), none, negated)


def _mod(f: FunctionWriter, dtype: DType, operands: tuple[Operand, ...]) -> Operand:
    a, b = operands
    if dtype.is_float:
        return _float_mod(f, a, b)
    none = constant(b.type, 0)
    safe = _safe_divisor(f, dtype, b)
    if not dtype.is_signed:
        return f.select(f.icmp("eq", b, none), none, f.urem(a, safe))
    remainder = f.srem(a, safe)
    adjusted = f.add(remainder, f.select(_rounds_down(f, remainder, safe), safe, none))
    return f.select(f.icmp("eq", b, none), none, adjusted)


def _float_mod(f: FunctionWriter, a: Operand, b: Operand) -> Operand:
    none = constant(b.type, 0.0)
    remainder = f.frem(a, b)
    inexact = f.fcmp("one", remainder, none)
    signs = f.xor(f.fcmp("olt", remainder, none), f.fcmp("olt", b, none))
    return f.select(f.and_(inexact, signs), f.fadd(remainder, b), remainder)


# ---- minimum and maximum


def _extremum(name: str) -> Lowering:
    """NaN in, NaN out.  x86 and others have `a > b ? a : b` in one instruction, which gives `b` if
    there is a NaN; so a literal goes first, and only two unknown operands need one more select."""
    predicate = "ogt" if name == "max" else "olt"

    def write(f: FunctionWriter, dtype: DType, operands: tuple[Operand, ...]) -> Operand:
        a, b = operands
        if not dtype.is_float:
            return getattr(f, ("s" if dtype.is_signed else "u") + name)(a, b)  # type: ignore[no-any-return]
        if _is_number(b):
            a, b = b, a
        larger = f.select(f.fcmp(predicate, a, b), a, b)
        if _is_number(a):
            return larger
        return f.select(f.fcmp("uno", a, a), a, larger)

    return write


def _is_number(operand: Operand) -> bool:
    """Whether an operand is a literal other than NaN."""
    literal = operand.text.removeprefix("splat (").split(" ")[-1]
    return literal.startswith("0x") and literal[3:6].upper() not in ("FF8", "FF4")


# ---- comparison, selection, bits

_FLOAT_PREDICATES = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}


def _compare(op: str, f: FunctionWriter, dtype: DType, operands: tuple[Operand, ...]) -> Operand:
    if dtype.is_float:
        return f.fcmp(_FLOAT_PREDICATES[op], *operands)
    signed = "" if op in ("eq", "ne") else "s" if dtype.is_signed else "u"
    return f.icmp(signed + op, *operands)


def _comparison(op: str) -> Lowering:
    return lambda f, dtype, operands: _compare(op, f, dtype, operands)


def _fma(f: FunctionWriter, dtype: DType, operands: tuple[Operand, ...]) -> Operand:
    a, b, c = operands
    return f.fma(a, b, c)


def _select(f: FunctionWriter, dtype: DType, operands: tuple[Operand, ...]) -> Operand:
    return f.select(*operands)


def _shift(left: bool) -> Lowering:
    def write(f: FunctionWriter, dtype: DType, operands: tuple[Operand, ...]) -> Operand:
        a, b = operands
        amount = f.and_(b, constant(b.type, b.type.bits - 1))
        if left:
            return f.shl(a, amount)
        return (f.ashr if dtype.is_signed else f.lshr)(a, amount)

    return write


def _mul_high(f: FunctionWriter, dtype: DType, operands: tuple[Operand, ...]) -> Operand:
    a, b = operands
    wide = a.type.with_kind("i64")
    extend = f.sext if dtype.is_signed else f.zext
    product = f.mul(extend(a, wide), extend(b, wide))
    return f.trunc(f.lshr(product, constant(wide, a.type.bits)), a.type)


LOWERINGS: Mapping[str, Lowering] = {
    "neg": _neg,
    "abs": _abs,
    "sign": _sign,
    "not": _unary("not_"),
    "floor": _unary("floor"),
    "ceil": _unary("ceil"),
    "round": _unary("round_to_integral"),
    "sqrt": _unary("sqrt"),
    "rsqrt": _rsqrt,
    **{
        name: _math(name)
        for name in ("exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "erf", "sigmoid", "pow")
    },
    "add": _arithmetic("add", "fadd"),
    "sub": _arithmetic("sub", "fsub"),
    "mul": _arithmetic("mul", "fmul"),
    "div": _div,
    "mod": _mod,
    "min": _extremum("min"),
    "max": _extremum("max"),
    "and": _integer("and_"),
    "or": _integer("or_"),
    "xor": _integer("xor"),
    "shift_left": _shift(left=True),
    "shift_right": _shift(left=False),
    "mul_high": _mul_high,
    **{op: _comparison(op) for op in ("eq", "ne", "lt", "le", "gt", "ge")},
    "fma": _fma,
    "select": _select,
}


# ---- casts


def lower_cast(f: FunctionWriter, x: Operand, source: DType, target: DType) -> Operand:
    """Convert a value; see `scalar_operations` for the rounding."""
    if source is target:
        return x
    if source in _HALVES:
        return lower_cast(f, _widen(f, x), DType.F32, target)
    if target in _HALVES:
        return _narrow(f, lower_cast(f, x, source, DType.F32), target)
    type = value_type(target, x.type.lanes)
    if target is DType.BOOL:
        none = constant(x.type, 0)
        return f.fcmp("une", x, none) if source.is_float else f.icmp("ne", x, none)
    if source is DType.BOOL:
        return f.select(x, constant(type, 1), zero(type))
    if source.is_float:
        return _cast_from_float(f, x, target, type)
    if target.is_float:
        return (f.sitofp if source.is_signed else f.uitofp)(x, type)
    return _resize(f, x, source, type)


def _cast_from_float(f: FunctionWriter, x: Operand, target: DType, type: LLVMType) -> Operand:
    if target.is_integer:
        return (f.fptosi_saturating if target.is_signed else f.fptoui_saturating)(x, type)
    return (f.fpext if type.bits > x.type.bits else f.fptrunc)(x, type)


def _resize(f: FunctionWriter, x: Operand, source: DType, type: LLVMType) -> Operand:
    if type.bits == x.type.bits:
        return x
    if type.bits < x.type.bits:
        return f.trunc(x, type)
    return (f.sext if source.is_signed else f.zext)(x, type)
