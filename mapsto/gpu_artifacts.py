"""Artefacts for GPUs: kernels as PTX or SPIR-V, and how a program of one's own launches them.

Beside the code there are a JSON file with the steps of each function on named buffers, a C header
with the same, and a safetensors file with what has to be on the device: parameters, and constants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mapsto.artifacts import Part, entry_functions, library_name, named_signature
from mapsto.compiler import Options
from mapsto.ir.core import Array, Module
from mapsto.lowering.gpu.program import assemble, lower_gpu
from mapsto.lowering.gpu.target import GpuTarget, target_names
from mapsto.runtime.checkpoint import save_checkpoint
from mapsto.runtime.devices.manifest import kernel_facts, plan_of
from mapsto.runtime.devices.plan_header import plan_header
from mapsto.runtime.errors import ArtifactError
from mapsto.runtime.files import write_atomically

__all__ = ["is_gpu_target", "write_gpu_program"]

_SUFFIXES = {"nvptx64": ".ptx", "spirv64": ".spv"}
_LINE = 100


def is_gpu_target(name: str | None) -> bool:
    """Whether `--target` names a GPU, such as `nvptx64-sm_80`; LLVM's triples are of CPUs."""
    return name is not None and name.partition("-")[0] in _SUFFIXES


def write_gpu_program(
    parts: Sequence[Part], path: Path, target: str, options: Options
) -> tuple[Path, ...]:
    """Writes the code and what belongs to it; gives the files.

    Raises ArtifactError where the target is unknown, the suffix is wrong, or a function cannot be
    a fixed list of launches.
    """
    known = [name for name in target_names() if is_gpu_target(name)]
    if target not in known:
        raise ArtifactError(f"no GPU target `{target}`: there are {', '.join(known)}")
    suffix = _SUFFIXES[target.partition("-")[0]]
    if path.suffix != suffix:
        raise ArtifactError(f"{path}: the name of the output for {target} should end in {suffix}")
    functions = list(entry_functions(parts, options))
    names = [function.name for function in functions]
    kind = options.gpu_target(GpuTarget.named(target))
    program = lower_gpu(Module.of(*functions), names, kind)
    arrays: dict[str, Array] = {name: a for part in parts for name, a in part.arrays.items()}
    entries: dict[str, object] = {}
    for part, name in zip(parts, names, strict=True):
        updated = [spec.path for spec in part.elaborated.updated]
        plan = plan_of(program, name, named_signature(part), updated)
        arrays |= {f"{part.name}.{key}": array for key, array in plan.constants.items()}
        entries[part.name] = plan.facts
    facts = {
        "target": target,
        "code": path.name,
        "kernels": kernel_facts(program),
        "functions": entries,
    }
    return _written(path, assemble(program), facts, arrays)


def _written(
    path: Path, code: bytes, facts: Mapping[str, object], arrays: Mapping[str, Array]
) -> tuple[Path, ...]:
    """Writes all files."""
    texts = {".json": json_text(facts), ".h": plan_header(library_name(path), facts)}
    write_atomically(path, [code])
    for suffix, text in texts.items():
        write_atomically(path.with_suffix(suffix), [text.encode()])
    written = [path, *(path.with_suffix(suffix) for suffix in texts)]
    if arrays:
        written.append(path.with_suffix(".safetensors"))
        save_checkpoint(written[-1], arrays, {"target": str(facts["target"])})
    return tuple(written)


def json_text(value: object, indent: int = 0) -> str:
    """JSON with a line for each item of a list or an object that has others inside."""
    pad, inner = " " * indent, " " * (indent + 2)
    plain = json.dumps(value)
    if len(plain) + indent <= _LINE or not isinstance(value, dict | list):
        return plain
    if isinstance(value, dict):
        items = [f"{inner}{json.dumps(k)}: {json_text(v, indent + 2)}" for k, v in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{pad}}}"
    return "[\n" + ",\n".join(inner + json_text(v, indent + 2) for v in value) + f"\n{pad}]"
