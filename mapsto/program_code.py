"""The LLVM text of programs as it is kept on disk: another process skips passes and lowering.

The key is the tensor IR before the passes, with its source lines, and what decides what becomes of
it: the entry, the machine and the schedules measured on it, the compiler itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import mapsto.ir
import mapsto.lowering
from mapsto.ir.core import Block, Location, Module, Operation
from mapsto.ir.disk_cache import key_of
from mapsto.ir.printer import module_text
from mapsto.lowering.assertions import Assertion
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.extended import EXTENDED
from mapsto.runtime.schedules import KeptSchedules

__all__ = ["ProgramCode", "has_extensions", "program_key"]


@dataclass(frozen=True, slots=True)
class ProgramCode:
    """LLVM text in parts, the assertions in it by the error code that stands for each, and the
    bytes that the entry has prepared once for all calls."""

    texts: tuple[str, ...]
    assertions: Mapping[int, Assertion]
    prepared_bytes: int = 0

    def to_bytes(self) -> bytes:
        """All of it as JSON."""
        table = {code: asdict(assertion) for code, assertion in self.assertions.items()}
        found = {"texts": self.texts, "assertions": table, "prepared_bytes": self.prepared_bytes}
        return json.dumps(found).encode()

    @staticmethod
    def from_bytes(data: bytes) -> ProgramCode:
        """What `to_bytes` gave."""
        found = json.loads(data)
        table = {int(code): _assertion(**given) for code, given in found["assertions"].items()}
        return ProgramCode(tuple(found["texts"]), table, found["prepared_bytes"])


def _assertion(message: str, location: Mapping[str, object] | None) -> Assertion:
    return Assertion(message, Location(**location) if location else None)  # type: ignore[arg-type]


def program_key(module: Module, entry: str, machine: Machine) -> str:
    """The name of what the default pipeline and lowering make of a function of a module."""
    text = module_text(module, locations=True)
    measured = KeptSchedules(machine).fingerprint
    return key_of(_compiler_version(), entry, repr(machine), measured, text)


def has_extensions(module: Module) -> bool:
    """Whether there are ops whose meaning or lowering is not ours alone."""
    classes = {type(op) for f in module.functions.values() for op in _operations(f.block)}
    return any(c in EXTENDED or not c.__module__.startswith("mapsto.") for c in classes)


def _operations(block: Block) -> Iterator[Operation]:
    for op in block.operations:
        yield op
        for region in op.regions:
            yield from _operations(region.block)


@cache
def _compiler_version() -> str:
    """Stands for everything between the tensor IR and LLVM: the text of these modules."""
    folders = [Path(p) for package in (mapsto.ir, mapsto.lowering) for p in package.__path__]
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    return key_of("program", *(file.read_bytes() for file in files))
