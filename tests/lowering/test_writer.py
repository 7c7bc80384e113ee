"""The LLVM writer: exact literals, every instruction verifies, small functions run."""

import ctypes

import numpy as np
import pytest
from llvmlite import binding

from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.llvm.types import (
    BFLOAT,
    DOUBLE,
    FLOAT,
    HALF,
    I1,
    I8,
    I32,
    I64,
    PTR,
    VOID,
    FastMath,
    LLVMType,
    Operand,
    constant,
    constant_vector,
)
from mapsto.lowering.llvm.writer import FunctionWriter, ModuleWriter


def compile_module(module: ModuleWriter, machine: Machine) -> binding.ExecutionEngine:
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    return binding.create_mcjit_compiler(parsed, machine.target_machine())


def verify(module: ModuleWriter) -> str:
    text = str(module)
    binding.parse_assembly(text).verify()
    return text


@pytest.mark.parametrize(
    ("type", "value", "text"),
    [
        (FLOAT, 1.0, "0x3FF0000000000000"),
        (FLOAT, 0.1, "0x3FB99999A0000000"),
        (FLOAT, 1e300, "0x7FF0000000000000"),
        (DOUBLE, 0.1, "0x3FB999999999999A"),
        (HALF, 1.5, "0xH3E00"),
        (BFLOAT, 1.00390625, "16256"),
        (BFLOAT, float("nan"), "32704"),
        (I32, -7, "-7"),
        (I1, True, "true"),
        (FLOAT.vector(4), 2.0, "splat (float 0x4000000000000000)"),
    ],
)
def test_literals_are_exact(type: LLVMType, value: float, text: str) -> None:
    assert constant(type, value).text == text


def test_types_spell_their_text_and_suffix() -> None:
    assert str(FLOAT.vector(8)) == "<8 x float>"
    assert FLOAT.vector(8).suffix == "v8f32"
    assert FLOAT.vector(1) == FLOAT
    assert FLOAT.vector(8).integer == I32.vector(8)
    assert DOUBLE.vector(2).mask == I1.vector(2)
    with pytest.raises(ValueError, match="no LLVM type"):
        LLVMType("f32")


def test_operands_of_different_types_are_refused() -> None:
    f = ModuleWriter().function("f", [(FLOAT, "x"), (DOUBLE, "y")])
    with pytest.raises(TypeError, match="fadd of float and double"):
        f.fadd(*f.parameters)


def write_float_instructions(f: FunctionWriter, x: Operand, y: Operand) -> None:
    for method in (f.fadd, f.fsub, f.fmul, f.fdiv):
        method(x, y, FastMath.CONTRACT | FastMath.REASSOC | FastMath.NSZ)
    for method in (f.frem, f.minnum, f.maxnum, f.minimum, f.maximum, f.copysign):
        method(x, y)
    for method in (f.fneg, f.sqrt, f.fabs, f.floor, f.ceil):
        method(x)
    f.select(f.fcmp("olt", x, y), f.round_to_integral(x), f.truncate_to_integral(y))
    f.fma(x, y, x, FastMath.CONTRACT)
    integer = x.type.integer
    f.sitofp(f.fptosi(x, integer), x.type)
    f.uitofp(f.fptoui_saturating(x, integer), x.type)
    f.bitcast(f.fptosi_saturating(x, integer), x.type)


def write_integer_instructions(f: FunctionWriter, a: Operand, b: Operand) -> None:
    for method in (f.add, f.sub, f.mul):
        method(a, b, "nsw")
    methods = (f.sdiv, f.udiv, f.srem, f.urem, f.and_, f.or_, f.xor, f.shl, f.lshr, f.ashr)
    for method in (*methods, f.smin, f.smax, f.umin, f.umax):
        method(a, b)
    f.not_(f.icmp("ult", a, b))
    f.absolute(f.not_(a))
    wide = a.type.with_kind("i64")
    f.trunc(f.add(f.zext(a, wide), f.sext(b, wide)), a.type)


@pytest.mark.parametrize("lanes", [1, 2, 4, 16])
@pytest.mark.parametrize("kind", [HALF, FLOAT, DOUBLE], ids=str)
def test_float_instructions_verify(kind: LLVMType, lanes: int) -> None:
    module = ModuleWriter()
    f = module.function("f", [(kind.vector(lanes), "x"), (kind.vector(lanes), "y")])
    write_float_instructions(f, *f.parameters)
    f.ret()
    text = verify(module)
    assert "fadd reassoc nsz contract" in text


@pytest.mark.parametrize("lanes", [1, 8])
def test_integer_instructions_verify(lanes: int) -> None:
    module = ModuleWriter()
    f = module.function("f", [(I32.vector(lanes), "a"), (I32.vector(lanes), "b")])
    write_integer_instructions(f, *f.parameters)
    f.ret()
    verify(module)


def test_memory_and_lane_instructions_verify() -> None:
    module = ModuleWriter()
    f = module.function("f", [(PTR, "p", "noalias"), (I32.vector(8), "index"), (FLOAT, "x")])
    p, index, x = f.parameters
    mask = f.icmp("sgt", index, constant(index.type, 0))
    vector = f.splat(x, 8)
    f.masked_store(f.masked_load(vector.type, p, mask, vector), p, mask, align=32)
    addresses = f.getelementptr(FLOAT, p, f.sext(index, I64.vector(8)))
    f.masked_scatter(f.masked_gather(vector.type, addresses), addresses, mask)
    swapped = f.shufflevector(vector, vector, [3, 2, 1, 0, 8, 9, -1, 15])
    f.store(f.extractelement(swapped, 2), f.alloca(FLOAT, 4))
    f.insertelement(swapped, f.reduce("fadd", swapped, constant(FLOAT, -0.0)), constant(I32, 1))
    f.insertelement(swapped, f.reduce("fmax", swapped), 3)
    f.insertelement(index, f.reduce("add", index), 3)
    f.prefetch(p)
    f.memset(p, constant(I8, 0), constant(I64, 16))
    f.memcpy(p, f.getelementptr(FLOAT, p, 8), constant(I64, 16))
    f.store(constant_vector(FLOAT, [1, 2, 3, 4]), p)
    f.ret()
    verify(module)


def write_sum(module: ModuleWriter, name: str) -> None:
    """`name(x, n)`: the sum of n floats, with a carried phi."""
    f = module.function(name, [(PTR, "x"), (I64, "n")], FLOAT)
    x, n = f.parameters
    total = f.alloca(FLOAT)
    f.store(constant(FLOAT, 0), total)

    def body(index: Operand) -> None:
        element = f.load(FLOAT, f.getelementptr(FLOAT, x, index))
        f.store(f.fadd(f.load(FLOAT, total), element), total)

    metadata = module.metadata('distinct !{@, !{!"llvm.loop.unroll.disable"}}')
    f.loop(constant(I64, 0), n, 1, body, metadata=f"!llvm.loop {metadata}")
    f.ret(f.load(FLOAT, total))


def test_a_loop_runs() -> None:
    machine = Machine.host()
    module = ModuleWriter.for_machine(machine)
    write_sum(module, "sum")
    engine = compile_module(module, machine)
    signature = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_void_p, ctypes.c_int64)
    array = np.arange(10, dtype=np.float32)
    assert signature(engine.get_function_address("sum"))(array.ctypes.data, 10) == 45


def test_without_fma_no_fma_is_written() -> None:
    module = ModuleWriter(has_fma=False)
    f = module.function("f", [(FLOAT, "x")], FLOAT)
    f.ret(f.fma(f.parameters[0], f.parameters[0], f.parameters[0]))
    text = verify(module)
    assert "llvm.fma" not in text
    assert "fmul" in text and "fadd" in text


def test_modules_hold_each_name_once() -> None:
    module = ModuleWriter()
    f = module.function("f", [])
    value = f.sqrt(f.sqrt(constant(FLOAT, 2)))
    table = module.add_global("table", "internal constant [1 x float] zeroinitializer")
    assert module.add_global("table", "ignored") == table
    f.store(value, table)
    f.call("g", VOID, [])
    f.ret()
    with pytest.raises(ValueError, match="defined twice"):
        module.function("f", [])
    g = module.function("g", [])
    g.unreachable()
    module.declare("g", VOID, [])
    text = verify(module)
    assert text.count("declare") == 1
    assert module.has_function("g")


def test_zeros_of_both_signs_are_two_literals() -> None:
    for values in ((-0.0, 0.0), (0.0, -0.0)):
        first, second = (str(constant(FLOAT, value)) for value in values)
        assert first != second
