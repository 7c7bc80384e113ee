"""`mapsto ir`: a program at each stage of compilation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mapsto.commands.compilation import compile_options, gpu_target
from mapsto.commands.entries import load_program, open_target, split_target
from mapsto.commands.settings import parse_settings
from mapsto.compiler import Options, optimized
from mapsto.dsl.diagnostics import nearest
from mapsto.dsl.elaborated import Elaborated
from mapsto.dsl.tree_printer import print_tree
from mapsto.errors import MapstoError
from mapsto.ir.core import Module
from mapsto.ir.pass_runner import Observer, PrintAfter
from mapsto.ir.pipeline import parse_pipeline
from mapsto.ir.printer import function_text, module_text
from mapsto.lowering.driver import Compiled
from mapsto.lowering.gpu.assembly import assembly_text
from mapsto.lowering.gpu.program import GpuProgram, lower_gpu
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.loop_printer import loop_text
from mapsto.lowering.outline import outline_text

__all__ = ["print_stage"]

_GPU_STAGES = {"ptx": "nvptx64-sm_80", "spirv": "spirv64"}
"""The stages that only GPUs have, each with the target that it is for unless another is named."""


def print_stage(options: argparse.Namespace) -> int:
    """Prints a stage on standard output, and what passes gave on standard error."""
    if options.stage == "ast":
        print(_tree(options.target))
        return 0
    if options.stop_after and options.stage != "tensor":
        raise MapstoError("--stop-after goes with --stage tensor: later stages need every pass")
    gpu = _gpu_of(options)
    settings = parse_settings(options.static)
    compilation = compile_options(options, runs_here=False)
    _check_pass(compilation, options.print_after, ("all",), "--print-after")
    _check_pass(compilation, options.stop_after, (), "--stop-after")
    opened = open_target(options.target, compilation, settings, options.seed)
    for entry in opened.entries:
        elaborated = entry.elaborate(settings, {})
        module = optimized(
            elaborated.module, compilation, _observer(options.print_after), options.stop_after or ""
        )
        print(_text(options.stage, gpu, module, elaborated, compilation))
    return 0


def _gpu_of(options: argparse.Namespace) -> GpuTarget | None:
    """The GPU that a stage is printed for; None for the CPU."""
    if options.gpu is not None:
        return gpu_target(options.gpu)
    default = _GPU_STAGES.get(options.stage)
    return None if default is None else gpu_target(default)


def _tree(target: str) -> str:
    """The syntax tree of the file, or of one definition in it."""
    path, name = split_target(target)
    program = load_program(path)
    if not name:
        return print_tree(program.syntax)
    definition = program.definition(name.partition(".")[0])
    if definition is None:
        close = nearest(name, program.names())
        hint = f"; did you mean `{close}`?" if close else ""
        raise MapstoError(f"{path} defines no `{name}`{hint}")
    return print_tree(definition)


def _observer(name: str | None) -> Observer:
    if not name:
        return Observer()
    return PrintAfter(name, module_text, lambda text: print(text, file=sys.stderr))


def _check_pass(compilation: Options, name: str | None, others: Sequence[str], option: str) -> None:
    """Raises MapstoError where the pipeline has no pass of this name."""
    if not name:
        return
    names = [*others, *dict.fromkeys(p.name for p in parse_pipeline(compilation.passes))]
    if name not in names:
        close = nearest(name, names)
        hint = f"did you mean `{close}`?" if close else f"it has {', '.join(names)}"
        raise MapstoError(f"{option} {name}: no such pass in the pipeline; {hint}")


def _text(
    stage: str,
    gpu: GpuTarget | None,
    module: Module,
    elaborated: Elaborated,
    compilation: Options,
) -> str:
    if stage == "tensor":
        return module_text(module)
    if gpu is not None:
        program = lower_gpu(module, elaborated.entry, compilation.gpu_target(gpu))
        return _gpu_text(stage, program, elaborated.entry)
    compiled = compilation.lower(module, elaborated.entry)
    return _lowered_text(stage, compiled, elaborated.entry, compilation)


def _gpu_text(stage: str, program: GpuProgram, name: str) -> str:
    match stage:
        case "kernels":
            return function_text(program.functions[name].function)
        case "loops":
            outline = outline_text(program.functions[name])
            return "\n".join([*(loop_text(kernel.loops) for kernel in program.launches), outline])
        case "llvm":
            return program.text
        case _:
            return assembly_text(program.text, program.target)


def _lowered_text(stage: str, compiled: Compiled, name: str, compilation: Options) -> str:
    match stage:
        case "kernels":
            return function_text(compiled.functions[name].function)
        case "loops":
            outline = outline_text(compiled.functions[name])
            return "\n".join([*(loop_text(kernel) for kernel in compiled.kernels), outline])
        case "llvm":
            return compiled.text
        case _:
            from mapsto.runtime.code_generation import emit_assembly

            return emit_assembly(compiled.text, compilation.machine)
