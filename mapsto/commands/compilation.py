"""What the commands that compile have in common: plugins, the pipeline, the machine."""

from __future__ import annotations

import argparse
import subprocess
import sys

from mapsto.compiler import Options
from mapsto.errors import MapstoError
from mapsto.ir.plugins import load_plugins
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.runtime.devices.registry import CPU
from mapsto.runtime.tuning import Tuned

__all__ = ["compile_options", "gpu_target", "machine_of"]


def compile_options(options: argparse.Namespace, runs_here: bool = True) -> Options:
    """How to compile, for this process or, unless it `runs_here`, for an artefact."""
    load_plugins(options.plugin)
    machine = machine_of(options, runs_here or options.tune)
    if options.threads is not None:
        _set_threads(options.threads)
    made = Options(machine=machine, tf32=options.tf32, tune=options.tune, report_tuned=_print_tuned)
    placed = made.with_passes(options.passes).on(getattr(options, "device", CPU))
    if options.tune and placed.device != CPU:
        raise MapstoError("--tune measures schedules for the CPU; leave it out for a device")
    return placed


def _print_tuned(tuned: Tuned) -> None:
    print(tuned, file=sys.stderr, flush=True)


def gpu_target(name: str) -> GpuTarget:
    """The kind of GPU of this name.  Raises MapstoError, which lists all, where there is none."""
    try:
        return GpuTarget.named(name)
    except ValueError as error:
        raise MapstoError(str(error)) from error


def machine_of(options: argparse.Namespace, runs_here: bool = True) -> Machine:
    """The machine that --cpu, --target and --vector-bits describe."""
    triple: str | None = getattr(options, "triple", None)
    try:
        machine = _described(options.cpu, triple)
        if options.vector_bits is not None:
            machine = machine.with_vector_bits(options.vector_bits)
        host = Machine.host() if runs_here else machine
    except ValueError as error:
        raise MapstoError(str(error)) from error
    if machine.vector_bits > host.vector_bits or machine.has_fma > host.has_fma:
        raise MapstoError(f"this machine cannot run code for the CPU `{options.cpu}`")
    return machine


def _described(cpu: str, triple: str | None) -> Machine:
    if cpu == "native" and triple is None:
        return Machine.host()
    if cpu == "baseline" and triple is None:
        return Machine.baseline()
    name = {"native": "generic", "baseline": "generic"}.get(cpu, cpu)
    _check_target(name, triple)
    return Machine.named(name, triple)


_PROBE = """
import sys
from llvmlite import binding
cpu, triple = sys.argv[1:]
binding.initialize_all_targets()
binding.initialize_all_asmprinters()
try:
    target = binding.Target.from_triple(triple or binding.get_process_triple())
except RuntimeError:
    sys.exit(3)
module = binding.parse_assembly("define void @f() { ret void }")
target.create_target_machine(cpu=cpu).emit_assembly(module)
"""


def _check_target(cpu: str, triple: str | None) -> None:
    """Raises MapstoError where LLVM does not know the CPU or the target.

    LLVM may end the process on a name that it does not know, so another process asks.
    """
    command = [sys.executable, "-c", _PROBE, cpu, triple or ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        raise MapstoError(f"there is no target `{triple}`; write one as x86_64-linux-gnu")
    if done.returncode or "not a recognized processor" in done.stderr:
        where = f" of {triple}" if triple else ""
        raise MapstoError(f"there is no CPU `{cpu}`{where}")


def _set_threads(count: int) -> None:
    from mapsto.runtime.threads import set_threads

    try:
        set_threads(count)
    except ValueError as error:
        raise MapstoError(f"--threads: {error}") from error
