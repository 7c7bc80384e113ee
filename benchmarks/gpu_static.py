"""What kernels for NVIDIA's GPUs look like before they run: resources, occupancy, traffic, code.

    pip install -e '.[gpu-test]'
    python benchmarks/gpu_static.py [--targets sm_80,sm_90] [--write docs/gpu.md] [--triton]

Needs NVIDIA's assembler, but no GPU.  Registers, shared memory and spills are what the assembler
says; occupancy follows from them; bytes for each multiply-add are counted from the loops of the
schedule (`lowering/gpu/traffic.py`); the mix is that of the assembled code's innermost loop with
the most multiply-adds, or of all the code where no loop has any.  `--write` puts the table into a
page, between its markers.  `--triton` adds what Triton (`pip install triton`) makes of the
products, with tiles of its tutorial.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mapsto.commands.entries import open_target
from mapsto.commands.settings import parse_settings
from mapsto.compiler import Options, optimized
from mapsto.lowering.gpu.program import GpuKernel, GpuProgram, assemble, lower_gpu
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.traffic import Traffic, traffic
from mapsto.runtime.ptxas import Code, Resources, assemble_ptx, disassemble

MODELS = Path(__file__).parent / "models" / "gpu_kernels.mto"
BEGIN, END = "<!-- gpu_static.py: begin -->", "<!-- gpu_static.py: end -->"

WORK = (
    ("f32 product, 1024 x 1024 x 1024", "product", ("m=1024", "n=1024", "k=1024")),
    ("f32 product, 64 x 64 x 16384", "product", ("m=64", "n=64", "k=16384")),
    ("tf32 product, 1024 x 1024 x 1024", "product", ("m=1024", "n=1024", "k=1024")),
    ("tf32 product, 4096 x 4096 x 4096", "product", ("m=4096", "n=4096", "k=4096")),
    ("f16 product, 1024 x 1024 x 1024", "product_f16", ("m=1024", "n=1024", "k=1024")),
    ("f16 product, 4096 x 4096 x 4096", "product_f16", ("m=4096", "n=4096", "k=4096")),
    ("f32 convolution 3 x 3, 32 x 64 x 56 x 56", "convolution",
     ("n=32", "c=64", "o=64", "h=56", "w=56")),
    ("f32 attention, causal, 64 x 1024 x 64", "attend", ("n=64", "t=1024", "d=64")),
    ("tf32 attention, causal, 64 x 1024 x 64", "attend", ("n=64", "t=1024", "d=64")),
    ("f16 attention, causal, 64 x 1024 x 64", "attend_f16", ("n=64", "t=1024", "d=64")),
    ("f16 attention with gradients, causal, 64 x 1024 x 64", "attend_gradient",
     ("n=64", "t=1024", "d=64")),
    ("softmax, 4096 x 1024", "soft", ("n=4096", "m=1024")),
    ("layer norm, 4096 x 1024", "normal", ("n=4096", "m=1024")),
    ("gelu, 4096 x 1024", "curve", ("n=4096", "m=1024")),
    ("transposition, 4096 x 1024", "turned", ("n=4096", "m=1024")),
    ("sum of columns, 4096 x 1024", "columns", ("n=4096", "m=1024")),
)  # fmt: skip

HEADER = """\
| kernel | target | blocks x threads | registers | shared | occupancy | global B | shared B | loop |
|---|---|---|---|---|---|---|---|---|"""

MOST_BYTES = 4
"""Kernels with more bytes from global memory for each multiply-add are not about multiply-adds."""

GROUPS = {
    "HMMA": ("HMMA", "HGMMA"),
    "FFMA": ("FFMA", "FFMA2"),
    "LDSM": ("LDSM",),
    "LDS": ("LDS",),
    "STS": ("STS",),
    "LDGSTS": ("LDGSTS",),
    "LDG": ("LDG",),
    "STG": ("STG",),
    "MUFU": ("MUFU",),
    "BAR": ("BAR",),
}
"""Of the mix: what is named, and the opcodes that count as it; the rest is `other`."""


@dataclass(frozen=True, slots=True)
class Row:
    """A kernel for a target."""

    work: str
    target: GpuTarget
    kernel: GpuKernel
    resources: Resources
    code: Code
    traffic: Traffic

    @property
    def blocks(self) -> int:
        x, y, z = self.kernel.grid_for({})
        return x * y * z

    @property
    def occupancy(self) -> float:
        """The part of the threads that a multiprocessor can have that is resident."""
        shared = self.resources.shared_bytes + self.kernel.dynamic_bytes
        return self.target.occupancy(self.kernel.threads, shared, self.resources.registers)

    def __str__(self) -> str:
        shared = self.resources.shared_bytes + self.kernel.dynamic_bytes
        spills = self.resources.spill_stores + self.resources.spill_loads
        registers = f"{self.resources.registers}" + (f", {spills} B spilled" if spills else "")
        each = ("", "")
        if self.traffic.global_bytes_each < MOST_BYTES and self.traffic.multiply_adds:
            each = f"{self.traffic.global_bytes_each:.3f}", f"{self.traffic.shared_bytes_each:.3f}"
        cells = (
            self.work,
            self.target.cpu,
            f"{self.blocks} x {self.kernel.threads}",
            registers,
            f"{shared / 1024:.3g} KiB" if shared else "",
            f"{self.occupancy:.0%}",
            *each,
            mix_text(hot_mix(self.code)),
        )
        return f"| {' | '.join(cells)} |"


def rows(work: str, entry: str, sizes: Sequence[str], target: GpuTarget) -> Iterator[Row]:
    """The launches of a map for a target."""
    program = compiled(entry, sizes, target)
    assembled = assemble_ptx(assemble(program).decode(), target.cpu)
    code = disassemble(assembled.code)
    launches = program.launches
    for number, kernel in enumerate(launches, 1):
        name = work if len(launches) == 1 else f"{work} ({number} of {len(launches)})"
        resources = assembled.resources[kernel.name]
        moved = traffic(kernel.loops, {})
        yield Row(name, target, kernel, resources, code[kernel.name], moved)


def compiled(entry: str, sizes: Sequence[str], target: GpuTarget) -> GpuProgram:
    """The kernels of a map of `gpu_kernels.mto` for these sizes."""
    settings = parse_settings(list(sizes))
    opened = open_target(f"{MODELS}:{entry}", Options(), settings, 0)
    elaborated = opened.entries[0].elaborate(settings, {})
    return lower_gpu(optimized(elaborated.module, Options()), elaborated.entry, target)


def hot_mix(code: Code) -> Counter[str]:
    """The instructions of the innermost loop with the most multiply-adds, else of everything."""
    multiplies = GROUPS["HMMA"] + GROUPS["FFMA"]
    hottest = max(
        code.loop_mixes(), key=lambda mix: sum(mix[name] for name in multiplies), default=Counter()
    )
    return hottest if any(hottest[name] for name in multiplies) else code.mix()


def mix_text(mix: Counter[str]) -> str:
    """`64 FFMA, 8 LDS, ..., 20 other`."""
    counts = {name: sum(mix[opcode] for opcode in opcodes) for name, opcodes in GROUPS.items()}
    counts["other"] = mix.total() - sum(counts.values())
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def table(targets: Sequence[GpuTarget], triton: bool) -> str:
    """All rows as a table."""
    lines = [HEADER]
    for work, entry, sizes in WORK:
        for target in targets:
            is_rounded = work.startswith("tf32")
            lines += map(str, rows(work, entry, sizes, target.with_tf32(is_rounded)))
            if triton and entry.startswith("product") and not is_rounded:
                lines.append(triton_row(work, entry, sizes, target))
    return "\n".join(lines)


def triton_row(work: str, entry: str, sizes: Sequence[str], target: GpuTarget) -> str:
    """The same product by Triton."""
    from gpu_triton import BLOCK, compile_product

    m, n = (int(size.partition("=")[2]) for size in sizes[:2])
    dtype = {"product": "fp32", "product_f16": "fp16"}[entry]
    ptx, shared, threads = compile_product(dtype, int(target.cpu[3:]))
    architecture = ptx.partition(".target")[2].split(None, 1)[0].rstrip(",")
    assembled = assemble_ptx(ptx, architecture)
    (resources,) = assembled.resources.values()
    (code,) = disassemble(assembled.code).values()
    blocks = -(-m // BLOCK[0]) * -(-n // BLOCK[1])
    occupancy = target.occupancy(threads, shared, resources.registers)
    cells = (
        f"{work}, Triton",
        target.cpu,
        f"{blocks} x {threads}",
        f"{resources.registers}",
        f"{shared / 1024:.3g} KiB",
        f"{occupancy:.0%}",
        "",
        "",
        mix_text(hot_mix(code)),
    )
    return f"| {' | '.join(cells)} |"


def write(page: Path, text: str) -> None:
    """Puts a table between the markers of a page."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--targets", default="sm_80,sm_90", help="architectures, with commas")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into a page")
    parser.add_argument("--triton", action="store_true", help="add what Triton makes of products")
    options = parser.parse_args()
    targets = [GpuTarget.named(f"nvptx64-{name}") for name in options.targets.split(",")]
    found = table(targets, options.triton)
    if options.write:
        write(options.write, found)
    else:
        print(found)


if __name__ == "__main__":
    main()
