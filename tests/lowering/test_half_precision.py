"""Conversions between f32 and 16-bit floats agree with NumPy's rounding on every target."""

import ctypes

import numpy as np
import pytest

from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.llvm.types import BFLOAT, DOUBLE, FLOAT, HALF, I64, PTR, LLVMType, constant
from mapsto.lowering.llvm.writer import ModuleWriter
from mapsto.runtime.jit import compile_module

Array = np.ndarray
_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
MACHINES = {"host": Machine.host(), "256": None, "x86-64-v2": None}
if Machine.host().triple.startswith("x86_64"):
    MACHINES["x86-64-v2"] = Machine.baseline()
if Machine.host().vector_bits >= 256:
    MACHINES["256"] = Machine.host().with_vector_bits(256)
over_machines = pytest.mark.parametrize(
    "machine",
    [machine for machine in MACHINES.values() if machine is not None],
    ids=lambda machine: f"{machine.cpu}-{machine.vector_bits}",
)


def convert(x: Array, source: LLVMType, to: LLVMType, machine: Machine) -> Array:
    """The bits of each converted element, as an array of integers."""
    module = ModuleWriter.for_machine(machine)
    f = module.function("convert", [(PTR, "x"), (PTR, "y"), (I64, "count")])
    start, target, count = f.parameters
    lanes = machine.lanes(32)
    method = f.fpext if to.bits > source.bits else f.fptrunc

    def step(index: object) -> None:
        value = f.load(source.vector(lanes), f.getelementptr(source, start, index))
        f.store(method(value, to.vector(lanes)), f.getelementptr(to, target, index))

    f.loop(constant(I64, 0), count, lanes, step)
    f.ret()
    compiled = compile_module(str(module), machine)
    y = np.empty(x.size, f"u{to.bits // 8}")
    _SIGNATURE(compiled.address("convert"))(x.ctypes.data, y.ctypes.data, x.size)
    return y


def sampled_floats() -> Array:
    """Every 16-bit prefix of an f32, with last bits around the ties of both formats."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x0FFF, 0x1000, 0x1001, 0x2000, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    return (upper[:, None] | lower.astype(np.uint32)).ravel().view(np.float32)


@over_machines
def test_f32_rounds_to_f16(machine: Machine) -> None:
    x = sampled_floats()
    with np.errstate(all="ignore"):
        expected = x.astype(np.float16)
    result = convert(x, FLOAT, HALF, machine).view(np.float16)
    np.testing.assert_array_equal(result, expected)
    numbers = ~np.isnan(x)
    np.testing.assert_array_equal(np.signbit(result[numbers]), np.signbit(x[numbers]))


@over_machines
@pytest.mark.parametrize("to", [FLOAT, DOUBLE], ids=str)
def test_every_f16_widens_exactly(to: LLVMType, machine: Machine) -> None:
    x = np.arange(1 << 16, dtype=np.uint16)
    wide = np.float32 if to == FLOAT else np.float64
    result = convert(x, HALF, to, machine).view(wide)
    np.testing.assert_array_equal(result, x.view(np.float16).astype(wide))
    np.testing.assert_array_equal(np.signbit(result), x >= 1 << 15)


@over_machines
def test_f32_rounds_to_bf16(machine: Machine) -> None:
    x = sampled_floats()
    result = convert(x, FLOAT, BFLOAT, machine)
    bits = x.view(np.uint32).astype(np.uint64)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    numbers = ~np.isnan(x)
    np.testing.assert_array_equal(result[numbers], nearest[numbers])
    assert np.isnan((result[~numbers].astype(np.uint32) << 16).view(np.float32)).all()


@over_machines
def test_every_bf16_widens_exactly(machine: Machine) -> None:
    x = np.arange(1 << 16, dtype=np.uint16)
    expected = (x.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(convert(x, BFLOAT, FLOAT, machine).view(np.float32), expected)
