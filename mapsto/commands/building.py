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
from mapsto.errors import MapstoError
from mapsto.ir.core import Array
from mapsto.runtime.errors import ArtifactError
from mapsto.runtime.library import Library
from mapsto.runtime.native import ARTIFACT_SUFFIXES
from mapsto.trainer import Trainer

__all__ = ["build"]


def build(options: argparse.Namespace) -> int:
    """Writes the artefact and, for what is linked, a header."""
    output: Path = options.output
    if output.suffix not in ARTIFACT_SUFFIXES:
        known = ", ".join(ARTIFACT_SUFFIXES)
        raise ArtifactError(f"{output}: the name of the output should end in one of {known}")
    settings = parse_settings(options.static)
    compilation = compile_options(options, runs_here=False)
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
