"""NVIDIA's assembler and disassembler, where they are installed: what machine code needs and does.

`pip install nvidia-cuda-nvcc nvidia-cuda-nvdisasm` (the extra `gpu-test`) brings both; no GPU is
needed.  Programs run without them: a driver assembles PTX by itself.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mapsto.runtime.errors import ArtifactError

__all__ = ["Assembled", "AssemblerNotFound", "Code", "Resources", "assemble_ptx", "disassemble"]


class AssemblerNotFound(ArtifactError):
    """A tool of NVIDIA's is not installed."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What each thread of a kernel needs (`registers`; in bytes its stack, and what is written and
    read for want of registers) and each block (`shared_bytes`)."""

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_stores: int
    spill_loads: int


@dataclass(frozen=True, slots=True)
class Assembled:
    """Machine code, and the resources of its kernels by their names."""

    code: bytes
    resources: Mapping[str, Resources]


@dataclass(frozen=True, slots=True)
class Code:
    """The opcodes of a kernel with their modifiers, in order; `loops` are the positions (first and
    last) between which a branch jumps back, the innermost ones only."""

    opcodes: tuple[str, ...]
    loops: tuple[tuple[int, int], ...]

    def mix(self) -> Counter[str]:
        """How often each opcode occurs, without modifiers."""
        return Counter(opcode.partition(".")[0] for opcode in self.opcodes)

    def loop_mixes(self) -> list[Counter[str]]:
        """The same for each innermost loop."""
        bodies = (self.opcodes[first : last + 1] for first, last in self.loops)
        return [Counter(opcode.partition(".")[0] for opcode in body) for body in bodies]


def assemble_ptx(ptx: str, architecture: str) -> Assembled:
    """Machine code for an architecture such as `sm_80`.  Raises AssemblerNotFound, and
    ArtifactError with the assembler's own words where it refuses the text."""
    program = _tool("ptxas", "nvidia-cuda-nvcc")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "kernels.ptx"), Path(folder, "kernels.cubin")
        source.write_text(ptx, encoding="utf-8")
        names = [source.name, "-o", target.name]
        told = _run([program, "-v", f"-arch={architecture}", *names], folder)
        return Assembled(target.read_bytes(), dict(_resources(told)))


def disassemble(code: bytes) -> dict[str, Code]:
    """The opcodes of each kernel of machine code.  Raises AssemblerNotFound."""
    program = _tool("nvdisasm", "nvidia-cuda-nvdisasm")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kernels.cubin").write_bytes(code)
        listing = _run([program, "-c", "kernels.cubin"], folder)
    sections = re.split(r"^\.text\.([\w$]+):$", listing, flags=re.MULTILINE)
    return {name: _code(text) for name, text in zip(sections[1::2], sections[2::2], strict=True)}


def _tool(name: str, package: str) -> str:
    """The path of a tool: in the packages that NVIDIA publishes, or in PATH."""
    found = next(_packaged(name), None) or shutil.which(name)
    if found is None:
        raise AssemblerNotFound(f"there is no {name}: `pip install {package}`")
    return found


def _packaged(name: str) -> Iterator[str]:
    package = importlib.util.find_spec("nvidia")
    for folder in (package.submodule_search_locations or []) if package else []:
        yield from sorted(map(str, Path(folder).glob(f"cu*/bin/{name}")), reverse=True)


def _run(command: list[str], folder: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ArtifactError(f"{Path(command[0]).name}: {(done.stderr or done.stdout).strip()}")
    return done.stdout + done.stderr


def _resources(told: str) -> Iterator[tuple[str, Resources]]:
    """From what `ptxas -v` says, kernel by kernel."""
    parts = re.split(r"Compiling entry function '([\w$]+)'", told)
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        yield (
            name,
            Resources(
                registers=_number(r"Used (\d+) registers", text),
                shared_bytes=_number(r"(\d+) bytes smem", text),
                stack_bytes=_number(r"(\d+) bytes stack frame", text),
                spill_stores=_number(r"(\d+) bytes spill stores", text),
                spill_loads=_number(r"(\d+) bytes spill loads", text),
            ),
        )


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    return int(match[1]) if match else 0


_LABEL = re.compile(r"^(\.L\w+):$")
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*);")
_GOAL = re.compile(r"`\((\.L\w+)\)")


def _code(listing: str) -> Code:
    opcodes: list[str] = []
    labels: dict[str, int] = {}
    backward: list[tuple[int, int]] = []
    for line in listing.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = len(opcodes)
        elif instruction := _INSTRUCTION.match(line):
            goal = _GOAL.search(instruction[2])
            if goal and instruction[1].startswith("BRA") and goal[1] in labels:
                backward.append((labels[goal[1]], len(opcodes)))
            opcodes.append(instruction[1])
    return Code(tuple(opcodes), tuple(_innermost(backward, opcodes)))


def _innermost(loops: list[tuple[int, int]], opcodes: list[str]) -> Iterator[tuple[int, int]]:
    """Loops with none inside; the endless one after the end of every kernel is left out."""
    for first, last in loops:
        nested = [(f, g) for f, g in loops if first <= f and g <= last]
        if nested == [(first, last)] and set(opcodes[first : last + 1]) != {"BRA"}:
            yield first, last
