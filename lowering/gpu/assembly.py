"""LLVM text of kernels to what a device loads."""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import binding

from mapsto.lowering.gpu.dialect import SPIRV
from mapsto.lowering.gpu.spirv import spirv_module, spirv_text
from mapsto.lowering.gpu.target import GpuTarget

__all__ = ["assemble_text", "assembly_text"]


def assemble_text(text: str, target: GpuTarget) -> bytes:
    """PTX text, a SPIR-V module, or an object file of this machine.

    Raises RuntimeError if the text is not valid LLVM IR, ValueError where a function of some
    library would be called.  The text has to have passed `check_intrinsics`.
    """
    machine = _code_generator(target)
    module = _optimized(text, target, machine)
    if target.dialect is SPIRV:
        return spirv_module(str(module), target.triple)
    if target.is_simulated:
        return bytes(machine.emit_object(module))
    assembly = str(machine.emit_assembly(module))
    if ".extern .func" in assembly:
        raise ValueError("the kernels call functions that the device does not have")
    return assembly.encode()


def assembly_text(text: str, target: GpuTarget) -> str:
    """The same for people: PTX, the instructions of a SPIR-V module, or the CPU's assembly."""
    machine = _code_generator(target)
    module = _optimized(text, target, machine)
    if target.dialect is SPIRV:
        return spirv_text(str(module), target.triple)
    return str(machine.emit_assembly(module))


def _optimized(text: str, target: GpuTarget, machine: Any) -> Any:
    """The verified module after the passes."""
    module = binding.parse_assembly(text)
    module.triple = target.machine.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    _run_passes(module, machine, target)
    return module


@cache
def _code_generator(target: GpuTarget) -> Any:
    """LLVM's code generator; that for SPIR-V is only asked about the layout of data."""
    if target.is_simulated:
        return target.machine.target_machine(opt=0)  # tests compile more than they compute
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    description = binding.Target.from_triple(target.triple)
    return description.create_target_machine(cpu=target.cpu, features=target.features, opt=3)


def _run_passes(module: Any, machine: Any, target: GpuTarget) -> None:
    """Inline what must be, put arrays into registers, and remove what is computed twice; none of
    the passes takes memory that other threads write for its own."""
    tuning = binding.create_pipeline_tuning_options(speed_level=0)
    builder = binding.create_pass_builder(machine, tuning)
    manager = binding.create_new_module_pass_manager()
    # Combined instructions may have integers of any width: an index of two bits that are exchanged
    # is a `bitreverse.i2`, and LLVM's SPIR-V has none of those.
    combine = () if target.dialect is SPIRV else (manager.add_instruction_combine_pass,)
    for add in (
        manager.add_always_inliner_pass,
        manager.add_sroa_pass,
        *combine,
        manager.add_simplify_cfg_pass,
        manager.add_loop_rotate_pass,
        manager.add_dead_code_elimination_pass,
        manager.add_global_dead_code_eliminate_pass,
    ):
        add()
    manager.run(module, builder)
    if target.is_simulated:
        # The least pipeline has the passes that split coroutines.
        builder.getModulePassManager().run(module, builder)
