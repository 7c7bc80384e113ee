"""sin and cos of vectors of f32 or f64.

x = n pi / 2 + r with |r| <= pi / 4 and r as a sum of two numbers; polynomials for the sine and the
cosine of r; the last two bits of n say which of them, with which sign.  pi / 2 is subtracted in
parts so short that n times each is exact (Cody and Waite), or whose product is kept exactly.  Lanes
too large for that are computed one at a time with as many bits of 2 / pi as they need (Payne and
Hanek), on a path that a vector without such lanes never takes.
"""

from typing import NamedTuple

from mapsto.lowering.llvm import vector_coefficients
from mapsto.lowering.llvm.types import DOUBLE, I64, LLVMType, Operand, constant
from mapsto.lowering.llvm.vector_double import exact_product
from mapsto.lowering.llvm.vector_reduction import reduce_large
from mapsto.lowering.llvm.vector_value import Vector, polynomial
from mapsto.lowering.llvm.writer import FunctionWriter

_TWO_OVER_PI = 0.6366197723675814
_HALF_PI_F32 = (1.570796251296997, 7.549789415861596e-08, 5.390302953474238e-15)
_HALF_PI_F64 = (
    1.5707963267341256,
    6.077100506303966e-11,
    2.0222662487959506e-21,
)
_LIMIT_F32 = 131072.0
_LIMIT_F64 = 1024.0
_ROUNDER_F32 = 1.5 * 2.0**23
_ROUNDER_F64 = 1.5 * 2.0**52


class Remainder(NamedTuple):
    """r = high - excess, and an integer whose last two bits are those of n.

    The excess of -0 is +0, so that the sine keeps the sign.
    """

    high: Vector
    excess: Vector
    quadrant: Vector


def sin(x: Vector) -> Vector:
    """The sine; NaN of an infinity."""
    return _with_large_lanes(x, "sin", 0)


def cos(x: Vector) -> Vector:
    """The cosine; NaN of an infinity."""
    return _with_large_lanes(x, "cos", 1)


def _with_large_lanes(x: Vector, name: str, turn: int) -> Vector:
    """The function on the short path, corrected in lanes that are too large for it."""
    f = x.writer
    result = _evaluate(_reduce(x), turn)
    limit = _LIMIT_F64 if x.is_double else _LIMIT_F32
    large = abs(x).compare("ogt", limit).operand
    found = large if x.type.lanes == 1 else f.reduce("or", large)
    slow, done, before = f.block("large"), f.block("done"), f.current
    f.branch_if(found, slow, done)
    f.begin(slow)
    corrected = _correct_lanes(f, x.operand, result.operand, limit, _define_scalar(f, name, turn))
    f.branch(done)
    end = f.current
    f.begin(done)
    merged = f.phi(x.type, (result.operand, before), (corrected, end))
    return Vector(f, merged.value)


def _correct_lanes(
    f: FunctionWriter, x: Operand, result: Operand, limit: float, function: str
) -> Operand:
    """`result` with the lanes where |x| > limit computed by a scalar function of f64."""
    element = x.type.scalar
    arguments, results = f.alloca(x.type), f.alloca(x.type)
    f.store(x, arguments, align=64)
    f.store(result, results, align=64)

    def correct(index: Operand) -> None:
        argument = f.load(element, f.getelementptr(element, arguments, index))
        large = f.fcmp("ogt", f.fabs(argument), constant(element, limit))
        work, following = f.block("lane"), f.block("next")
        f.branch_if(large, work, following)
        f.begin(work)
        wide = argument if element == DOUBLE else f.fpext(argument, DOUBLE)
        value = f.call(function, DOUBLE, [wide])
        narrow = value if element == DOUBLE else f.fptrunc(value, element)
        f.store(narrow, f.getelementptr(element, results, index))
        f.branch(following)
        f.begin(following)

    f.loop(constant(I64, 0), constant(I64, x.type.lanes), 1, correct, name="lanes")
    return f.load(x.type, results, align=64)


def _define_scalar(f: FunctionWriter, name: str, turn: int) -> str:
    """The function of one large f64, defined in the module when first asked for."""
    full = f"mapsto.{name}.large"
    if not f.module.has_function(full):
        g = f.module.function(full, [(DOUBLE, "x")], DOUBLE, "internal", "noinline")
        x = Vector(g, g.parameters[0])
        high, low, quadrant = reduce_large(x)
        result = _evaluate(Remainder(high, -low, quadrant), turn)
        g.ret((result + (x - x)).operand)
    return full


def _evaluate(remainder: Remainder, turn: int) -> Vector:
    """The sine of r plus as many right angles as the quadrant and `turn` say."""
    r, excess, n = remainder
    if turn:
        n = n + turn
    square = r * r
    table = vector_coefficients.F64 if r.is_double else vector_coefficients.F32
    sine = r - polynomial(square, table.SIN).times_plus(-(r * square), excess)
    start = square.times_plus(-0.5, 1.0)
    lost = square.times_plus(-0.5, 1.0 - start)
    rest = polynomial(square, table.COS).times_plus(square * square, lost)
    cosine = start + r.times_plus(excess, rest)
    odd = (n & 1).compare("ne", 0)
    sign = (n & 2) << (r.type.bits - 2)
    return (odd.select(cosine, sine).bits() ^ sign).as_float()


def _reduce(x: Vector) -> Remainder:
    """The remainder of small enough arguments."""
    if x.is_double:
        return _reduce_double(x)
    if not x.writer.has_fma:
        return _reduce_in_double(x)
    first, second, third = _HALF_PI_F32
    shifted = x.times_plus(_TWO_OVER_PI, _ROUNDER_F32)
    n = shifted - _ROUNDER_F32
    partial = n.times_plus(-first, x)
    product = exact_product(n, n.constant(second))
    high = partial - product.high
    lost = product.high - (partial - high)
    return Remainder(high, n.times_plus(third, lost + product.low), shifted.bits())


def _reduce_double(x: Vector) -> Remainder:
    first, second, third = _HALF_PI_F64
    shifted = x.times_plus(_TWO_OVER_PI, _ROUNDER_F64)
    n = shifted - _ROUNDER_F64
    partial = n.times_plus(-first, x)
    product = n * second
    middle = partial - product
    excess = n * third + (product - (partial - middle))
    high = middle - excess
    return Remainder(high, (high - middle) + excess, shifted.bits())


def _reduce_in_double(x: Vector) -> Remainder:
    """f32 without fused multiply-adds: exact enough in f64."""
    wide = x.convert(x.type.with_kind("double"))
    shifted = wide * _TWO_OVER_PI + _ROUNDER_F64
    n = shifted - _ROUNDER_F64
    r = (wide - n * _HALF_PI_F64[0]) - n * _HALF_PI_F64[1]
    high = r.convert(x.type)
    excess = (high.convert(wide.type) - r).convert(x.type)
    integer: LLVMType = x.type.integer
    quadrant = x.writer.trunc(shifted.bits().operand, integer)
    return Remainder(high, excess, Vector(x.writer, quadrant))
