"""Vector math: error bounds at every vector width, special values, any lanes, types; no libm calls.

The f32 inputs are a strided sample of all bit patterns, which visits every exponent and both signs;
`benchmarks/ulp.py` measures all of them.
"""

import ctypes
import math

import numpy as np
import pytest

from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.llvm import vector_math
from mapsto.lowering.llvm.types import DOUBLE, FLOAT, HALF, I64, PTR, LLVMType, Operand, constant
from mapsto.lowering.llvm.writer import ModuleWriter
from mapsto.runtime.code_generation import emit_assembly
from mapsto.runtime.jit import compile_module

Array = np.ndarray
_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_NUMPY = {FLOAT: np.float32, DOUBLE: np.float64, HALF: np.float16}
_SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 5e-324, 1e-45, 1e-39, -1e-39]
_LARGE = [3.4e38, -3.4e38, 88.72, 88.73, -87.3, -103.9, -104.1, 1e10, 131072.5, 1e30, 16777216.0]

F32_BOUNDS = {
    "exp": (1.0, 1.0),
    "expm1": (1.2, 1.25),
    "log": (1.0, 1.0),
    "log1p": (1.0, 1.0),
    "tanh": (1.0, 1.15),
    "sigmoid": (2.5, 2.5),
    "erf": (1.0, 1.0),
    "rsqrt": (0.51, 0.51),
    "sin": (1.0, 1.0),
    "cos": (1.0, 1.0),
}
"""Largest errors in ulp, with fused multiply-add and without."""

F64_BOUNDS = {
    "exp": 1.0,
    "expm1": 1.25,
    "log": 1.0,
    "log1p": 1.0,
    "tanh": 1.1,
    "sigmoid": 2.5,
    "erf": 1.2,
    "rsqrt": 1.5,
    "sin": 1.1,
    "cos": 1.1,
}


def machines() -> dict[str, Machine]:
    host = Machine.host()
    found = {str(bits): host.with_vector_bits(bits) for bits in (256, 512) if _has(host, bits)}
    return found | {"x86-64-v2": Machine.baseline()} if "x86_64" in host.triple else {"128": host}


def _has(machine: Machine, bits: int) -> bool:
    return bits <= machine.vector_bits


MACHINES = machines()
over_machines = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES.keys())


def kernel_text(name: str, kind: LLVMType, machine: Machine, lanes: int) -> str:
    """`kernel(inputs, result, count)` over arrays; a second argument follows the first."""
    module = ModuleWriter.for_machine(machine)
    f = module.function("kernel", [(PTR, "inputs"), (PTR, "result"), (I64, "count")])
    inputs, result, count = f.parameters
    starts = [inputs, f.getelementptr(kind, inputs, count)][: vector_math.FUNCTIONS[name].arity]

    def step(index: Operand) -> None:
        loaded = [f.load(kind.vector(lanes), f.getelementptr(kind, p, index)) for p in starts]
        f.store(vector_math.emit(f, name, *loaded), f.getelementptr(kind, result, index))

    f.loop(constant(I64, 0), count, lanes, step)
    f.ret()
    return str(module)


def run(
    name: str, inputs: Array, kind: LLVMType, machine: Machine, lanes: int | None = None
) -> Array:
    """The function on the last axis, whose length is a multiple of 16."""
    text = kernel_text(name, kind, machine, lanes or machine.lanes(kind.bits))
    module = compile_module(text, machine)
    contiguous = np.ascontiguousarray(inputs, _NUMPY[kind])
    result = np.empty(inputs.shape[-1], _NUMPY[kind])
    _SIGNATURE(module.address("kernel"))(contiguous.ctypes.data, result.ctypes.data, result.size)
    return result


def exact(name: str, x: Array) -> Array:
    """The function in the type of x, which is wider than what is tested."""
    if name == "erf":
        return np.array([math.erf(float(value)) for value in x], x.dtype)
    with np.errstate(all="ignore"):
        if name == "sigmoid":
            decay = np.exp(-np.abs(x))
            return np.where(x < 0, decay, 1) / (1 + decay)
        if name == "rsqrt":
            return 1 / np.sqrt(x)
        return getattr(np, name)(x)


def ulp_errors(result: Array, reference: Array) -> Array:
    """Distances in units in the last place of the result's type; inf where a special is wrong."""
    info = np.finfo(result.dtype)
    with np.errstate(all="ignore"):
        exponent = np.maximum(np.frexp(reference)[1] - 1, info.minexp)
        unit = np.ldexp(reference.dtype.type(1), exponent - info.nmant)
        distance = np.abs(result.astype(reference.dtype) - reference) / unit
        rounded = reference.astype(result.dtype)
    same = (result == rounded) | (np.isnan(result) & np.isnan(rounded))
    return np.where(np.isfinite(distance), distance, np.where(same, 0, np.inf))


def sampled_floats(stride: int) -> Array:
    bits = np.arange(0, 1 << 32, stride, dtype=np.uint64).astype(np.uint32)
    values = np.concatenate([np.array(_SPECIAL + _LARGE, np.float32), bits.view(np.float32)])
    return np.resize(values, -(-values.size // 16) * 16)


def sampled_doubles(name: str) -> Array:
    generator = np.random.default_rng(1)
    x = generator.uniform(-4, 4, 1 << 14)
    x[::4] *= 10.0 ** generator.uniform(-12, 2, x[::4].size)
    return np.abs(x) if name in ("log", "log1p", "rsqrt") else x


def check_f32(name: str, machine: Machine, inputs: Array, lanes: int | None = None) -> None:
    result = run(name, inputs, FLOAT, machine, lanes)
    with np.errstate(invalid="ignore"):
        errors = ulp_errors(result, exact(name, inputs.astype(np.float64)))
    worst = int(errors.argmax())
    bound = F32_BOUNDS[name][0 if machine.has_fma else 1]
    assert errors[worst] <= bound, (inputs[worst], result[worst])


@over_machines
@pytest.mark.parametrize("name", F32_BOUNDS)
def test_f32_stays_within_its_bound(name: str, machine: Machine) -> None:
    check_f32(name, machine, sampled_floats(65521))


@over_machines
@pytest.mark.parametrize("name", F64_BOUNDS)
def test_f64_stays_within_its_bound(name: str, machine: Machine) -> None:
    if np.finfo(np.longdouble).nmant <= np.finfo(np.float64).nmant:
        pytest.skip("long double is no wider than f64 here")
    inputs = sampled_doubles(name)
    errors = ulp_errors(
        run(name, inputs, DOUBLE, machine), exact(name, inputs.astype(np.longdouble))
    )
    assert errors.max() <= F64_BOUNDS[name], inputs[errors.argmax()]


@over_machines
@pytest.mark.parametrize("name", F64_BOUNDS)
def test_special_f64_are_right(name: str, machine: Machine) -> None:
    inputs = np.resize(np.array([*_SPECIAL, 1e300, -1e300, 709.5, -745.0, 1e9]), 16)
    result = run(name, inputs, DOUBLE, machine)
    assert ulp_errors(result, exact(name, inputs)).max() <= F64_BOUNDS[name] + 1
    zeros = inputs == 0
    np.testing.assert_array_equal(np.signbit(result[zeros]), np.signbit(exact(name, inputs[zeros])))


@pytest.mark.parametrize("name", ["expm1", "log1p", "tanh", "erf", "sin"])
def test_odd_functions_keep_the_sign_of_zero(name: str) -> None:
    inputs = np.resize(np.array([0.0, -0.0], np.float32), 16)
    result = run(name, inputs, FLOAT, Machine.host())
    np.testing.assert_array_equal(np.signbit(result), np.signbit(inputs))


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("name", F32_BOUNDS)
def test_any_number_of_lanes_works(name: str, lanes: int) -> None:
    check_f32(name, Machine.host(), sampled_floats(1 << 22), lanes)


@over_machines
@pytest.mark.parametrize("name", ["exp", "tanh"])
def test_half_precision_is_computed_in_f32(name: str, machine: Machine) -> None:
    inputs = np.linspace(-4, 4, 64).astype(np.float16)
    result = run(name, inputs, HALF, machine)
    errors = ulp_errors(result, exact(name, inputs.astype(np.float64)))
    assert errors.max() <= 0.501


@over_machines
@pytest.mark.parametrize("kind", [FLOAT, DOUBLE], ids=str)
def test_pow_agrees_with_c_on_special_values(kind: LLVMType, machine: Machine) -> None:
    values = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, 2.5, math.inf, -math.inf]
    values += [math.nan, 1e-40, -7.0]
    pairs = np.array(np.meshgrid(values, values)).reshape(2, -1).astype(_NUMPY[kind])
    result = run("pow", pairs, kind, machine)
    with np.errstate(all="ignore"):
        expected = np.power(pairs[0], pairs[1])
    np.testing.assert_allclose(result, expected, rtol=float(np.finfo(_NUMPY[kind]).eps), atol=0)
    defined = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(result[defined]), np.signbit(expected[defined]))


@over_machines
def test_pow_stays_within_its_bounds(machine: Machine) -> None:
    generator = np.random.default_rng(2)
    x = np.exp(generator.uniform(-80, 80, 1 << 14))
    pairs = np.stack([x, generator.uniform(-85, 85, x.size) / np.log(x)])
    narrow = pairs.astype(np.float32)
    wide = narrow.astype(np.float64)
    assert ulp_errors(run("pow", narrow, FLOAT, machine), np.power(*wide)).max() <= 0.51
    reference = np.power(*pairs.astype(np.longdouble))
    assert ulp_errors(run("pow", pairs, DOUBLE, machine), reference).max() <= 1.3


@over_machines
@pytest.mark.parametrize("name", vector_math.FUNCTIONS)
def test_no_function_calls_libm(name: str, machine: Machine) -> None:
    text = kernel_text(name, FLOAT, machine, machine.lanes(32))
    called = [
        line.split()[-1] for line in emit_assembly(text, machine).splitlines() if "\tcall" in line
    ]
    assert all(target.startswith("mapsto.") for target in called), called


def test_wrong_operands_are_refused() -> None:
    f = ModuleWriter().function("f", [(FLOAT, "x"), (DOUBLE, "y"), (I64, "n")])
    x, y, n = f.parameters
    with pytest.raises(TypeError, match="pow takes 2 operands of one float type"):
        vector_math.emit(f, "pow", x, y)
    with pytest.raises(TypeError, match="exp takes 1 operands"):
        vector_math.emit(f, "exp", n)
    with pytest.raises(KeyError):
        vector_math.emit(f, "gamma", x)
