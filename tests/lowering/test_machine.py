"""The machine description: what is detected, forced and refused, and what LLVM then emits."""

import pytest
from llvmlite import binding

from mapsto.lowering.cpu.machine import Machine, _parse_size

_ADD = """
define void @add(ptr %p) {
  %x = load <16 x float>, ptr %p
  %y = fmul <16 x float> %x, %x
  store <16 x float> %y, ptr %p
  ret void
}
"""


@pytest.fixture(autouse=True)
def no_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAPSTO_VECTOR_BITS", raising=False)
    monkeypatch.delenv("MAPSTO_CPU", raising=False)


def x86(cpu: str) -> Machine:
    return Machine.named(cpu, "x86_64-unknown-linux-gnu")


def assembly(machine: Machine) -> str:
    return str(machine.target_machine(jit=False).emit_assembly(binding.parse_assembly(_ADD)))


def test_the_host_is_described() -> None:
    machine = Machine.host()
    assert machine.vector_bits in (128, 256, 512)
    assert machine.vector_registers in (16, 32)
    assert 4096 <= machine.l1 <= machine.l2
    assert machine.l3 > 0
    assert machine.cores >= 1
    assert machine.lanes(32) == machine.vector_bits // 32


@pytest.mark.parametrize(
    ("cpu", "bits", "registers", "has_fma"),
    [
        ("x86-64", 128, 16, False),
        ("x86-64-v2", 128, 16, False),
        ("x86-64-v3", 256, 16, True),
        ("x86-64-v4", 512, 32, True),
    ],
)
def test_levels_of_x86_are_told_apart(cpu: str, bits: int, registers: int, has_fma: bool) -> None:
    machine = x86(cpu)
    assert (machine.vector_bits, machine.vector_registers, machine.has_fma) == (
        bits,
        registers,
        has_fma,
    )
    assert machine.has_avx512 == (bits == 512)


def test_another_architecture_has_its_own_registers() -> None:
    machine = Machine.named("generic", "aarch64-unknown-linux-gnu")
    assert (machine.vector_bits, machine.vector_registers, machine.has_fma) == (128, 32, True)


def test_narrowed_vectors_are_really_used() -> None:
    wide = x86("x86-64-v4")
    narrow = wide.with_vector_bits(256)
    assert "%zmm" in assembly(wide)
    assert "%ymm" in assembly(narrow)
    assert "%zmm" not in assembly(narrow)
    assert (narrow.vector_registers, narrow.has_fma, narrow.has_avx512) == (16, True, False)
    assert '"prefer-vector-width"="256"' in narrow.function_attributes


@pytest.mark.parametrize("bits", [512, 100, 0])
def test_vectors_that_do_not_exist_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=f"no {bits}-bit vectors on x86-64-v3"):
        x86("x86-64-v3").with_vector_bits(bits)


def test_the_environment_overrides_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Machine.host().triple.startswith("x86_64"):
        pytest.skip("names a CPU of x86-64")
    monkeypatch.setenv("MAPSTO_CPU", "x86-64-v3")
    assert Machine.host().cpu == "x86-64-v3"
    monkeypatch.setenv("MAPSTO_VECTOR_BITS", "128")
    assert Machine.host().vector_bits == 128
    assert Machine.host(256).vector_bits == 256


@pytest.mark.parametrize(("text", "size"), [("48K", 49152), ("2M", 2097152), ("512", 512)])
def test_sizes_of_caches_are_read(text: str, size: int) -> None:
    assert _parse_size(text) == size
