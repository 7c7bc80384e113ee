"""What the code generator knows about a CPU: vector instructions, registers, caches and cores."""

import functools
import os
from dataclasses import dataclass, replace
from pathlib import Path

from llvmlite import binding

_KIB = 1024
_DEFAULT_CACHES = {1: 32 * _KIB, 2: 512 * _KIB, 3: 8192 * _KIB}
_BASELINE_CPU = "x86-64-v2"
_X86 = ("x86_64", "i386", "i686", "amd64")
"""How the triples of the family begin."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A CPU to generate code for.

    `cpu` and `features` are LLVM's names ("znver4", "+avx2,-avx512f"); `vector_bits` is the width
    that generated code uses and `vector_registers` how many registers of that width there are; the
    cache sizes are bytes, of one core's `l1` (data) and `l2` and of the shared `l3`; `cores` counts
    the hardware threads that this process may use.
    """

    triple: str
    cpu: str
    features: str
    vector_bits: int
    vector_registers: int
    has_fma: bool
    l1: int
    l2: int
    l3: int
    cores: int

    @staticmethod
    def host(vector_bits: int | None = None) -> "Machine":
        """This machine.

        `vector_bits`, else the environment variable MAPSTO_VECTOR_BITS, narrows the vectors;
        MAPSTO_CPU names another CPU, as in `named`.  Raises ValueError if there are no vectors of
        that width.
        """
        bits = vector_bits or int(os.environ.get("MAPSTO_VECTOR_BITS") or 0)
        name = os.environ.get("MAPSTO_CPU")
        machine = Machine.named(name) if name else _detect_host()
        return machine.with_vector_bits(bits) if bits else machine

    @staticmethod
    def baseline() -> "Machine":
        """The least that is supported on x86-64: x86-64-v2, 16 registers of 128 bits, no FMA."""
        return Machine.named(_BASELINE_CPU)

    @staticmethod
    def named(cpu: str, triple: str | None = None) -> "Machine":
        """The CPU that LLVM calls `cpu`, with this machine's caches and cores.

        `triple` is by default that of this process.  LLVM warns about an unknown name and takes the
        least CPU of the architecture.
        """
        return _describe(triple or binding.get_process_triple(), cpu, "")

    def with_vector_bits(self, bits: int) -> "Machine":
        """The same machine used with narrower vectors.  Raises ValueError if it has none such."""
        if bits == self.vector_bits:
            return self
        if bits not in (128, 256, 512) or bits > self.vector_bits:
            raise ValueError(f"no {bits}-bit vectors on {self.cpu} ({self.vector_bits} bits)")
        features = f"{self.features},-avx512f".lstrip(",")
        return replace(self, features=features, vector_bits=bits, vector_registers=16)

    @property
    def is_x86(self) -> bool:
        """Whether it is one of the x86 family."""
        return self.triple.startswith(_X86)

    @property
    def has_avx512(self) -> bool:
        """Whether AVX-512 is there and its full width in use."""
        return self.vector_bits == 512 and self.triple.startswith("x86_64")

    @property
    def function_attributes(self) -> str:
        """LLVM function attributes that keep LLVM's own vectorizers at this machine's width."""
        return f'"prefer-vector-width"="{self.vector_bits}"'

    def lanes(self, element_bits: int) -> int:
        """How many elements of a width one vector register holds."""
        return self.vector_bits // element_bits

    def target_machine(self, opt: int = 3, jit: bool = True) -> binding.TargetMachine:
        """LLVM's code generator for this machine: for code in memory, or else relocatable files."""
        return _target_machine(self.triple, self.cpu, self.features, opt, jit)


def _target_machine(
    triple: str, cpu: str, features: str, opt: int, jit: bool
) -> binding.TargetMachine:
    _initialize_llvm(triple.split("-")[0])
    return binding.Target.from_triple(triple).create_target_machine(
        cpu=cpu,
        features=features,
        opt=opt,
        reloc="default" if jit else "pic",
        codemodel="jitdefault" if jit else "default",
        jit=jit,
    )


@functools.cache
def _initialize_llvm(architecture: str) -> None:
    """Makes the code generators known that are needed: all of them would take 10 MB and 5 ms."""
    if architecture == binding.get_process_triple().split("-")[0]:
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
    else:
        binding.initialize_all_targets()
        binding.initialize_all_asmprinters()


@functools.cache
def _detect_host() -> Machine:
    features = binding.get_host_cpu_features().flatten()
    return _describe(binding.get_process_triple(), binding.get_host_cpu_name(), features)


@functools.cache
def _describe(triple: str, cpu: str, features: str) -> Machine:
    assembly = _probe(triple, cpu, features)
    bits = 512 if "%zmm" in assembly else 256 if "%ymm" in assembly else 128
    x86 = triple.startswith(_X86)
    return Machine(
        triple=triple,
        cpu=cpu,
        features=features,
        vector_bits=bits,
        vector_registers=16 if x86 and bits < 512 else 32,
        has_fma="fmaf" not in assembly,
        l1=_cache_bytes(1),
        l2=_cache_bytes(2),
        l3=_cache_bytes(3),
        cores=_usable_cores(),
    )


_PROBE = """
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
define void @probe(ptr %p) {
  %x = load <16 x float>, ptr %p
  %y = call <16 x float> @llvm.fma.v16f32(<16 x float> %x, <16 x float> %x, <16 x float> %x)
  store <16 x float> %y, ptr %p
  ret void
}
"""


def _probe(triple: str, cpu: str, features: str) -> str:
    """What LLVM makes of a fused multiply-add of 512 bits: it alone knows each CPU's features."""
    machine = _target_machine(triple, cpu, features, 1, False)
    return str(machine.emit_assembly(binding.parse_assembly(_PROBE)))


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _cache_bytes(level: int) -> int:
    """The size of this machine's data or unified cache of a level; a usual size if unknown."""
    found = _cache_from_sysfs(level) or _cache_from_sysconf(level)
    return found or _DEFAULT_CACHES[level]


def _cache_from_sysfs(level: int) -> int:
    root = Path("/sys/devices/system/cpu/cpu0/cache")
    for index in sorted(root.glob("index*")):
        try:
            if _read(index / "level") == str(level) and _read(index / "type") != "Instruction":
                return _parse_size(_read(index / "size"))
        except (OSError, ValueError):
            continue
    return 0


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()


def _parse_size(text: str) -> int:
    """Bytes of "48K" or "2M" as the kernel writes them."""
    scale = {"K": _KIB, "M": _KIB * _KIB}.get(text[-1:], 1)
    return int(text.rstrip("KM")) * scale


def _cache_from_sysconf(level: int) -> int:
    name = f"SC_LEVEL{level}_{'DCACHE' if level == 1 else 'CACHE'}_SIZE"
    if name not in getattr(os, "sysconf_names", {}):
        return 0
    return max(0, os.sysconf(name))
