"""`mapsto build`: a program as a native library, an object file, assembly or LLVM text."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mapsto.artifacts import Part, library_name, make_library, write_library
from mapsto.commands.compilation import compile_options
from mapsto.commands.entries import Entry, open_target
from mapsto.commands.settings import parse_settings
from mapsto.commands.weights import fill, read_weights
from mapsto.compiler import Options
from mapsto.errors import MapstoError
from mapsto.gpu_artifacts import is_gpu_target, write_gpu_program
from mapsto.ir.core import Array
from mapsto.runtime.errors import ArtifactError
from mapsto.runtime.library import Library
from mapsto.runtime.native import ARTIFACT_SUFFIXES
from mapsto.trainer import Trainer

__all__ = ["build"]


def build(options: argparse.Namespace) -> int:
    """Writes the artefact and, for what is linked, a header."""
    output: Path = options.output
    if is_gpu_target(options.triple):
        return _build_for_gpu(options)
    if output.suffix not in ARTIFACT_SUFFIXES:
        known = ", ".join(ARTIFACT_SUFFIXES)
        raise ArtifactError(f"{output}: the name of the output should end in one of {known}")
    compilation = compile_options(options, runs_here=False)
    parts = _parts(options, compilation)
    library = make_library(library_name(output), parts, compilation, options.external)
    try:
        written = write_library(library, output, options.header, compilation)
    except ArtifactError as error:
        if options.triple is None or output.suffix != ".so":
            raise
        hint = "for another target, name its compiler in the environment variable CC"
        raise ArtifactError(f"{error}\n{hint}") from error
    print(f"wrote {' and '.join(map(str, written))}: {_summary(library)}")
    return 0


def _build_for_gpu(options: argparse.Namespace) -> int:
    """Writes PTX or SPIR-V, the plan as JSON, and what has to be on the device as safetensors."""
    target, options.triple = options.triple, None
    compilation = compile_options(options, runs_here=False)
    parts = _parts(options, compilation)
    written = write_gpu_program(parts, options.output, target, compilation)
    print(f"wrote {' and '.join(map(str, written))}")
    return 0


def _parts(options: argparse.Namespace, compilation: Options) -> list[Part]:
    """The functions that the command names, with their weights."""
    settings = parse_settings(options.static)
    opened = open_target(options.target, compilation, settings, options.seed)
    _check_owners(opened.entries)
    weights = read_weights(options.weights)
    parts = []
    for entry in opened.entries:
        elaborated = entry.elaborate(settings, weights)
        arrays: dict[str, Array] = {}
        if not options.external:
            arrays = dict(fill(entry, elaborated, weights, options.weights, options.seed))
        parts.append(Part(entry.c_name, elaborated, arrays, entry.documentation, entry.result_name))
    return parts


def _check_owners(entries: Sequence[Entry]) -> None:
    """The arrays of a library go by their paths, so all of them have to belong together."""
    owners = {id(entry.owner): entry for entry in entries if entry.owner is not None}
    nets = {id(_net(entry.owner)) for entry in owners.values()}
    if len(nets) > 1:
        names = " and ".join(entry.name for entry in owners.values())
        raise MapstoError(f"{names} have different parameters; build a library for each")


def _net(owner: object) -> object:
    """The module instance whose paths an owner of parameters has; a trainer with several nets has
    paths of its own."""
    return owner.nets.get("net", owner) if isinstance(owner, Trainer) else owner


def _summary(library: Library) -> str:
    lines = []
    for entry in library.entries:
        inputs = ", ".join(str(spec) for spec in entry.signature.inputs)
        results = ", ".join(str(spec.type) for spec in entry.signature.results)
        lines.append(f"{library.c_name(entry)}({inputs}) -> {results}")
    return "; ".join(lines)
