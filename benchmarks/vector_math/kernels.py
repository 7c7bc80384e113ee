"""Vector math functions as native kernels over arrays."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.llvm import vector_math
from mapsto.lowering.llvm.types import DOUBLE, FLOAT, I64, PTR, LLVMType, Operand, constant
from mapsto.lowering.llvm.writer import FunctionWriter, ModuleWriter
from mapsto.runtime.jit import compile_module

Array = np.ndarray[Any, Any]
Body = Callable[[FunctionWriter, Sequence[Operand]], Operand]

_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class Kernel:
    """`kernel(inputs, result)`: a function of each element; sizes are multiples of 64.

    `inputs` are the function's arguments one after the other in one array of rows.
    """

    def __init__(self, name: str, dtype: type, machine: Machine) -> None:
        function = vector_math.FUNCTIONS[name]
        self.arity = function.arity
        kind = FLOAT if dtype is np.float32 else DOUBLE
        self.text = kernel_text(
            kind, self.arity, machine, lambda f, x: vector_math.emit(f, name, *x)
        )
        self._module = compile_module(self.text, machine)
        self._call = _SIGNATURE(self._module.address("kernel"))

    def __call__(self, inputs: Array, result: Array) -> None:
        self._call(inputs.ctypes.data, result.ctypes.data, result.size)


def kernel_text(kind: LLVMType, arity: int, machine: Machine, body: Body) -> str:
    """LLVM text of `kernel(ptr inputs, ptr result, i64 count)`."""
    module = ModuleWriter.for_machine(machine)
    f = module.function("kernel", [(PTR, "inputs"), (PTR, "result"), (I64, "count")])
    inputs, result, count = f.parameters
    lanes = machine.lanes(kind.bits)

    def step(index: Operand) -> None:
        loaded = []
        for number in range(arity):
            row = f.getelementptr(kind, inputs, f.mul(count, constant(I64, number)))
            loaded.append(f.load(kind.vector(lanes), f.getelementptr(kind, row, index)))
        f.store(body(f, loaded), f.getelementptr(kind, result, index))

    f.loop(constant(I64, 0), count, lanes, step)
    f.ret()
    return str(module)


def available_machines() -> dict[str, Machine]:
    """This machine at each of its vector widths, and the least that is supported if it runs here."""
    host = Machine.host()
    machines = {
        f"{bits} bits": host.with_vector_bits(bits)
        for bits in (512, 256, 128)
        if bits <= host.vector_bits and (bits > 128 or host.vector_bits == 128)
    }
    if host.triple.startswith("x86_64"):
        machines["x86-64-v2"] = Machine.baseline()
    return machines
