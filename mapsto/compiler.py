"""From elaborated IR to native functions: the pipeline, the last stages, the code in memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from mapsto.dsl.elaborated import Elaborated, ParameterSpec, flatten, result_names
from mapsto.ir.core import Array, Module
from mapsto.ir.disk_cache import compiled
from mapsto.ir.pass_runner import Observer, PassRunner
from mapsto.ir.pipeline import parse_pipeline
from mapsto.ir.types import TensorType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.driver import Compiled, lower
from mapsto.lowering.gpu.program import lower_gpu
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.placement import device_name, is_writeable
from mapsto.program_code import ProgramCode, has_extensions, program_key
from mapsto.runtime.code_generation import CodeGenerator
from mapsto.runtime.devices.device import Device
from mapsto.runtime.devices.executable import Executable
from mapsto.runtime.devices.function import DeviceFunction
from mapsto.runtime.devices.registry import pool_of
from mapsto.runtime.function import NativeFunction
from mapsto.runtime.jit import compile_parts
from mapsto.runtime.schedules import KeptSchedules
from mapsto.runtime.signature import Argument, Signature, TensorSpec
from mapsto.runtime.tuning import Tuned, tune

__all__ = [
    "Options",
    "bound_slots",
    "compile_for",
    "compile_native",
    "lowered",
    "optimized",
    "signature_of",
    "with_constants",
    "without_collection",
]


@dataclass(frozen=True)
class Options:
    """How programs are compiled."""

    passes: str = "default"
    """The pipeline, such as `"default,my-pass"`."""
    machine: Machine = field(default_factory=Machine.host)
    check_values: bool = False
    """Whether each pass is checked to keep the values on random inputs."""
    device: str = "cpu"
    """Where programs run, such as `"cuda:0"`; see docs/gpu.md."""
    tf32: bool = False
    """Whether factors of products in f32 may be rounded to 11 significant bits, where a GPU has
    matrix instructions for that."""
    tune: bool = False
    """Whether the schedules of contractions are measured first, where none is known for the CPU."""
    report_tuned: Callable[[Tuned], object] | None = None
    """Is told what was found for each contraction that was tuned."""

    def with_passes(self, passes: str) -> Options:
        """The options with another pipeline."""
        parse_pipeline(passes)
        return replace(self, passes=passes)

    def gpu_target(self, target: GpuTarget) -> GpuTarget:
        """What code for a kind of GPU is made for."""
        return target.with_tf32(self.tf32)

    def lower(
        self,
        module: Module,
        names: str | Sequence[str],
        timed: bool = False,
        finished: Callable[[str], object] | None = None,
    ) -> Compiled:
        """LLVM text for functions of a module after the passes (`driver.lower`), by the schedules
        that were measured on the machine."""
        kept = KeptSchedules(self.machine)
        if self.tune:
            self._tune(module, [names] if isinstance(names, str) else names, kept)
        return lower(module, names, self.machine, timed, kept.choose(), finished)

    def _tune(self, module: Module, names: Sequence[str], kept: KeptSchedules) -> None:
        for name in names:
            for tuned in tune(module[name], self.machine, kept):
                if self.report_tuned is not None:
                    self.report_tuned(tuned)

    def on(self, device: str | Device) -> Options:
        """The options for another device.  Raises DeviceError where there is no such device."""
        return replace(self, device=device_name(device))


def optimized(
    module: Module, options: Options, observer: Observer | None = None, stop_after: str = ""
) -> Module:
    """The module after the pipeline.  Raises PassError, which names a pass that fails."""
    runner = PassRunner(
        parse_pipeline(options.passes),
        # The shipped passes are verified by their tests; a user's own is verified at each run.
        verify=options.passes != "default" or options.check_values,
        check_values=options.check_values,
        observer=observer or Observer(),
        stop_after=stop_after,
    )
    return runner.run(module)


def lowered(elaborated: Elaborated, options: Options) -> Compiled:
    """The LLVM text of the entry function, with the stages before it."""
    return options.lower(optimized(elaborated.module, options), elaborated.entry)


def signature_of(elaborated: Elaborated) -> Signature:
    """What a caller passes and receives; parameters and states are bound."""
    slots = [*elaborated.parameters, *elaborated.states]
    bound = [Argument(_spec(slot.path, slot.type), bound=True) for slot in slots]
    given = [Argument(_spec(spec.name, spec.type)) for spec in elaborated.inputs]
    types = flatten(elaborated.result)
    names = result_names(elaborated.result)
    results = [_spec(name, type) for name, type in zip(names, types, strict=True)]
    return Signature((*bound, *given), tuple(results), exclusive=bool(elaborated.updated))


def compile_native(
    elaborated: Elaborated, options: Options, arrays: Mapping[str, Array]
) -> NativeFunction:
    """The compiled function, bound to the arrays of its parameters and states by path.

    Arrays that nobody may write are constants: what depends on them alone is computed once.
    """
    bound = [arrays[slot.path] for slot in bound_slots(elaborated)]
    fixed = [number for number, array in enumerate(bound) if not is_writeable(array)]
    with CodeGenerator(options.machine) as generator:
        program = _code(with_constants(elaborated, fixed), options, generator)
        loaded = compile_parts(program.texts, generator)
        signature = replace(signature_of(elaborated), prepared_bytes=program.prepared_bytes)
        return NativeFunction(loaded, elaborated.entry, signature, bound, program.assertions)


def with_constants(elaborated: Elaborated, numbers: Sequence[int]) -> Elaborated:
    """The same function, told which of its arguments are the same at each call."""
    if not numbers:
        return elaborated
    function = elaborated.function
    told = replace(function, attributes={**function.attributes, "constants": tuple(numbers)})
    return replace(elaborated, module=elaborated.module.with_function(told))


def compile_for(
    device: Device, elaborated: Elaborated, options: Options, arrays: Mapping[str, Array]
) -> DeviceFunction:
    """The function compiled for a device, bound to arrays that are there."""
    entry = elaborated.entry
    target = options.gpu_target(device.target)
    program = lower_gpu(optimized(elaborated.module, options), entry, target)
    bound = [arrays[slot.path] for slot in bound_slots(elaborated)]
    executable = Executable(program, pool_of(device))
    return DeviceFunction(executable, entry, signature_of(elaborated), bound)


def _code(elaborated: Elaborated, options: Options, generator: CodeGenerator) -> ProgramCode:
    """The LLVM text, from disk if it was made before and nothing of an extension is in it."""
    cache = compiled()
    module, entry = elaborated.module, elaborated.entry
    own = options.passes == "default" and not options.check_values and not has_extensions(module)
    if not own or options.tune:
        return _new_code(elaborated, options, generator)
    key = program_key(module, entry, options.machine)
    kept = cache.load(key)
    if kept is not None:
        return ProgramCode.from_bytes(kept)
    code = _new_code(elaborated, options, generator)
    cache.save(key, code.to_bytes())
    return code


def _new_code(elaborated: Elaborated, options: Options, generator: CodeGenerator) -> ProgramCode:
    module, entry = optimized(elaborated.module, options), elaborated.entry
    # What the passes leave is half of the objects of a compilation; lowering takes their place.
    gc.collect()
    program = options.lower(module, entry, finished=generator.start)
    return ProgramCode(program.texts, program.assertions, program.prepared_bytes(entry))


@contextmanager
def without_collection() -> Iterator[None]:
    """Compiles without the collector of cycles, which would visit all that is being made time and
    again: it takes a seventh of the time to find next to nothing.  Where it is asked to collect, it
    visits only what was made inside."""
    enabled, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.disable()
    if not frozen:
        gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()
        if enabled:
            gc.enable()


def bound_slots(elaborated: Elaborated) -> tuple[ParameterSpec, ...]:
    """Parameters and states in the order of the entry's arguments."""
    return (*elaborated.parameters, *elaborated.states)


def _spec(name: str, type_: TensorType) -> TensorSpec:
    return TensorSpec(name, type_.dtype, type_.shape)
