"""What a device loads of a program, as it is kept on disk: another process makes it no second time.

The key is the LLVM text of the kernels, and what decides what becomes of it: the target, LLVM, the
code that runs it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import llvmlite

from mapsto.ir.disk_cache import compiled, key_of
from mapsto.lowering.gpu import assembly, spirv
from mapsto.lowering.gpu.program import GpuProgram, assemble

__all__ = ["image_of"]


def image_of(program: GpuProgram) -> bytes:
    """PTX text, a SPIR-V module, or an object file of this machine.  Raises as `assemble` does."""
    kept, target = compiled(), program.target
    key = key_of(_own_version(), target.name, repr(target.machine), program.text)
    found = kept.load(key)
    if found is None:
        found = assemble(program)
        kept.save(key, found)
    return found


@cache
def _own_version() -> str:
    code = (Path(name).read_bytes() for name in (assembly.__file__, spirv.PROGRAM))
    return key_of("device", llvmlite.__version__, *code)
