"""Elementary functions of vectors, any number of lanes, as polynomials; nothing calls libm.

`emit(f, "exp", x)` computes on f32 or f64; f16 and bf16 are computed in f32 and rounded.  Each
function becomes one internal function of the module for each type, inlined where it is small.
Special values are those of IEEE 754 and C; the accuracy of each is measured in
`docs/vector-math.md`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mapsto.lowering.llvm import (
    vector_exponential,
    vector_logarithm,
    vector_power,
    vector_trigonometric,
)
from mapsto.lowering.llvm.types import LLVMType, Operand
from mapsto.lowering.llvm.vector_value import Vector
from mapsto.lowering.llvm.writer import FunctionWriter, ModuleWriter

_REGISTER_BITS = 512


@dataclass(frozen=True, slots=True)
class VectorFunction:
    """How to write a function of `arity` vectors; `inline` where a call would cost more."""

    write: Callable[..., Vector]
    arity: int = 1
    inline: bool = True


FUNCTIONS: Mapping[str, VectorFunction] = {
    "exp": VectorFunction(vector_exponential.exp),
    "expm1": VectorFunction(vector_exponential.expm1),
    "log": VectorFunction(vector_logarithm.log),
    "log1p": VectorFunction(vector_logarithm.log1p),
    "tanh": VectorFunction(vector_exponential.tanh),
    "sigmoid": VectorFunction(vector_exponential.sigmoid),
    "erf": VectorFunction(vector_exponential.erf),
    "rsqrt": VectorFunction(vector_logarithm.rsqrt),
    "sin": VectorFunction(vector_trigonometric.sin, inline=False),
    "cos": VectorFunction(vector_trigonometric.cos, inline=False),
    "pow": VectorFunction(vector_power.power, arity=2, inline=False),
}


def emit(f: FunctionWriter, name: str, *arguments: Operand) -> Operand:
    """Compute a function of `FUNCTIONS` on operands of one floating-point type.

    Raises KeyError for an unknown name, TypeError for operands that do not fit it.
    """
    function = FUNCTIONS[name]
    types = {argument.type for argument in arguments}
    if len(arguments) != function.arity or len(types) != 1 or not arguments[0].type.is_float:
        given = ", ".join(argument.type.text for argument in arguments)
        raise TypeError(f"{name} takes {function.arity} operands of one float type, not ({given})")
    type = arguments[0].type
    if type.bits == 16:
        wide = type.with_kind("float")
        extended = [f.fpext(argument, wide) for argument in arguments]
        return f.fptrunc(emit(f, name, *extended), type)
    full = _whole_register(f.module, type)
    if full is not type:
        wide_arguments = [_widened(f, argument, full) for argument in arguments]
        return _narrowed(f, emit(f, name, *wide_arguments), type)
    return f.call(_define(f.module, name, function, arguments), type, arguments)


def _whole_register(module: ModuleWriter, type: LLVMType) -> LLVMType:
    """The type to compute in.  With AVX-512 that is a whole register also for fewer lanes: its own
    instructions work on those only, and a value must not depend on how many are at its side."""
    lanes = _REGISTER_BITS // type.bits
    return type.vector(lanes) if module.has_avx512 and type.lanes < lanes else type


def _widened(f: FunctionWriter, x: Operand, type: LLVMType) -> Operand:
    if x.type.lanes == 1:
        return f.splat(x, type.lanes)
    lanes = [lane if lane < x.type.lanes else 0 for lane in range(type.lanes)]
    return f.shufflevector(x, x, lanes)


def _narrowed(f: FunctionWriter, x: Operand, type: LLVMType) -> Operand:
    if type.lanes == 1:
        return f.extractelement(x, 0)
    return f.shufflevector(x, x, list(range(type.lanes)))


def _define(
    module: ModuleWriter, name: str, function: VectorFunction, arguments: tuple[Operand, ...]
) -> str:
    """The name of the module's function for these operands, written when first asked for."""
    type = arguments[0].type
    full = f"mapsto.{name}.{type.suffix}"
    if module.has_function(full):
        return full
    parameters = [(type, f"x{number}") for number in range(function.arity)]
    attributes = "alwaysinline" if function.inline else "noinline"
    f = module.function(full, parameters, type, "internal", attributes)
    result = function.write(*(Vector(f, parameter) for parameter in f.parameters))
    f.ret(result.operand)
    return full
