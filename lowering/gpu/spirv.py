"""SPIR-V of kernels, which is made in a process of its own for each module.

LLVM 22 keeps the numbers of labels in a table that lives as long as the process
(`SPIRVModuleAnalysis::MAI`), under the address that a function has in its memory.  A module made
after others may so get labels of one of them, with numbers that stand for something else in it:
some compilers refuse that, others crash.

This file is the program of that process, too; so it imports nothing of the package.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["PROGRAM", "spirv_module", "spirv_text"]

PROGRAM = __file__

_OBJECT, _ASSEMBLY = "object", "assembly"


def spirv_module(text: str, triple: str) -> bytes:
    """The SPIR-V module of LLVM text that has been through the passes.

    Raises RuntimeError where LLVM does not take it.
    """
    return _generate(_OBJECT, text, triple)


def spirv_text(text: str, triple: str) -> str:
    """The instructions of the module, for people.  Raises as `spirv_module` does."""
    return _generate(_ASSEMBLY, text, triple).decode()


def _generate(kind: str, text: str, triple: str) -> bytes:
    import llvmlite

    packages = str(Path(llvmlite.__file__).parents[1])
    command = [sys.executable, "-I", "-S", PROGRAM, packages, triple, kind]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"LLVM made no SPIR-V: {message or f'exit code {done.returncode}'}")
    return done.stdout


def _main(packages: str, triple: str, kind: str) -> None:
    """Reads LLVM text and writes what LLVM makes of it."""
    sys.path.insert(0, packages)
    from llvmlite import binding

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    # What LLVM does to loops makes integers of 3 bits, of which its SPIR-V has 8.
    machine = binding.Target.from_triple(triple).create_target_machine(opt=0)
    try:
        module = binding.parse_assembly(sys.stdin.read())
    except RuntimeError as error:
        sys.exit(str(error))
    if kind == _OBJECT:
        sys.stdout.buffer.write(machine.emit_object(module))
    else:
        sys.stdout.write(machine.emit_assembly(module))


if __name__ == "__main__":
    _main(*sys.argv[1:])
