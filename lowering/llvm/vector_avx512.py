"""AVX-512's instructions for exponents and significands, which take every special value as wanted.

They exist here for whole registers only; other vectors take the portable sequences.
"""

from mapsto.lowering.llvm.types import I8, I16, I32, Operand, constant, zero
from mapsto.lowering.llvm.vector_value import Vector

_REGISTER_BITS = 512
_CURRENT_ROUNDING = constant(I32, 4)
_BETWEEN_3_4_AND_3_2_NAN_IF_NEGATIVE = constant(I32, 0b1011)


def fills_register(x: Vector) -> bool:
    """Whether these instructions can be used on a vector like `x`."""
    return x.writer.module.has_avx512 and x.type.bits * x.type.lanes == _REGISTER_BITS


def scale(x: Vector, exponent: Vector) -> Vector:
    """`x * 2**floor(exponent)`, rounded once, with subnormal results and overflow right."""
    return _call("scalef", x, [x.operand, exponent.operand])


def exponent(x: Vector) -> Vector:
    """`floor(log2(|x|))` as a float, of subnormals too; -inf of 0, inf of inf, NaN of NaN."""
    return _call("getexp", x, [x.operand])


def significand(x: Vector) -> Vector:
    """`x / 2**k` in [0.75, 1.5) for an integer k; 1 of 0 and inf, NaN of NaN and below 0."""
    return _call("getmant", x, [x.operand, _BETWEEN_3_4_AND_3_2_NAN_IF_NEGATIVE])


def _call(name: str, x: Vector, operands: list[Operand]) -> Vector:
    mask = constant(I16 if x.type.bits == 32 else I8, -1)
    suffix = "ps" if x.type.bits == 32 else "pd"
    full = f"llvm.x86.avx512.mask.{name}.{suffix}.512"
    arguments = [*operands, zero(x.type), mask, _CURRENT_ROUNDING]
    x.writer.declare(full, x.type, [argument.type for argument in arguments])
    return Vector(x.writer, x.writer.call(full, x.type, arguments))
