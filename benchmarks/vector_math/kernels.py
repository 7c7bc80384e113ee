"""Vector math functions, and the measure of their error, as native kernels over arrays."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.llvm import vector_math
from mapsto.lowering.llvm.types import DOUBLE, FLOAT, I64, PTR, LLVMType, Operand, constant
from mapsto.lowering.llvm.vector_value import Vector
from mapsto.lowering.llvm.writer import FunctionWriter, ModuleWriter
from mapsto.runtime.jit import compile_module

Array = np.ndarray[Any, Any]
Body = Callable[[FunctionWriter, Sequence[Operand]], Operand]

_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_LEAST_NORMAL_F32 = 2.0**-126
_EXPONENT_F64 = 0x7FF << 52
_INFINITY = float("inf")


class Kernel:
    """`kernel(inputs, result)`: a function of each element; sizes are multiples of 64.

    `inputs` holds the function's arguments one after the other.
    """

    def __init__(self, text: str, machine: Machine) -> None:
        self._module = compile_module(text, machine)
        self._call = _SIGNATURE(self._module.address("kernel"))

    def __call__(self, inputs: Array, result: Array) -> None:
        self._call(inputs.ctypes.data, result.ctypes.data, result.size)

    def bound(self, inputs: Array, result: Array, count: int) -> Callable[[], None]:
        """A call without preparation, to be timed."""
        addresses = (inputs.ctypes.data, result.ctypes.data, count)
        return lambda: self._call(*addresses)


def function_kernel(name: str, kind: LLVMType, machine: Machine) -> Kernel:
    """A vector math function over arrays."""
    types = [kind] * vector_math.FUNCTIONS[name].arity
    return Kernel(
        kernel_text(types, kind, machine, lambda f, x: vector_math.emit(f, name, *x)), machine
    )


def kernel_text(
    arguments: Sequence[LLVMType], result: LLVMType, machine: Machine, body: Body
) -> str:
    """LLVM text of `kernel(ptr inputs, ptr result, i64 count)`: the body on each vector."""
    module = ModuleWriter.for_machine(machine)
    f = module.function("kernel", [(PTR, "inputs"), (PTR, "result"), (I64, "count")])
    row, target, count = f.parameters
    rows = []
    for kind in arguments:
        rows.append((kind, row))
        row = f.getelementptr(kind, row, count)
    lanes = machine.lanes(result.bits)

    def step(index: Operand) -> None:
        loaded = [
            f.load(kind.vector(lanes), f.getelementptr(kind, start, index)) for kind, start in rows
        ]
        f.store(body(f, loaded), f.getelementptr(result, target, index))

    f.loop(constant(I64, 0), count, lanes, step)
    f.ret()
    return str(module)


def error_kernel(machine: Machine) -> Kernel:
    """The error in ulp of f32 results, widened to f64, beside exact ones; inf where one is special.

    The arguments are results and exact values.  A special value that is right counts as no error.
    """
    return Kernel(kernel_text([DOUBLE, DOUBLE], DOUBLE, machine, _write_error), machine)


def _write_error(f: FunctionWriter, operands: Sequence[Operand]) -> Operand:
    result, exact = (Vector(f, operand) for operand in operands)
    power = (exact.bits() & _EXPONENT_F64).as_float()
    unit = power.at_least(_LEAST_NORMAL_F32) * 2.0**-23
    distance = abs(result - exact)
    rounded = exact.convert(exact.type.with_kind("float")).convert(exact.type)
    both_nan = result.compare("uno", 0.0) & exact.compare("uno", 0.0)
    same = result.compare("oeq", rounded) | both_nan
    special = same.select(exact.constant(0.0), _INFINITY)
    return distance.compare("olt", _INFINITY).select(distance / unit, special).operand


def multiply_add_kernel(kind: LLVMType, machine: Machine, rounds: int) -> Kernel:
    """`8 * rounds` multiply-adds for each vector, in eight independent chains."""

    def body(f: FunctionWriter, operands: Sequence[Operand]) -> Operand:
        x = Vector(f, operands[0])
        chains = [x + float(number) for number in range(8)]
        for _ in range(rounds):
            chains = [chain.times_plus(x, 1.5) for chain in chains]
        total = chains[0]
        for chain in chains[1:]:
            total = total + chain
        return total.operand

    return Kernel(kernel_text([kind], kind, machine, body), machine)


def floats(kind: LLVMType) -> Any:
    """The NumPy type of an LLVM type."""
    return {FLOAT: np.float32, DOUBLE: np.float64}[kind]


def available_machines() -> dict[str, Machine]:
    """This machine at each of its vector widths, and x86-64-v2 where that runs."""
    host = Machine.host()
    widths = [bits for bits in (512, 256, 128) if bits <= host.vector_bits]
    if len(widths) > 1:
        widths.remove(128)
    machines = {f"{bits} bits": host.with_vector_bits(bits) for bits in widths}
    if host.triple.startswith("x86_64"):
        machines["x86-64-v2"] = Machine.baseline()
    return machines
