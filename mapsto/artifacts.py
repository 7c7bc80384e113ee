"""Native artefacts of maps, modules and training steps: C libraries, objects, assembly."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mapsto.callables import Compilable, Map
from mapsto.compiler import Options, bound_slots, optimized, signature_of, with_constants
from mapsto.dsl.elaborated import Elaborated
from mapsto.instances import Instance, Method
from mapsto.ir.core import Array, Function, Module
from mapsto.ir.types import TensorType
from mapsto.runtime.errors import ArtifactError
from mapsto.runtime.library import Library, LibraryEntry, c_identifier
from mapsto.runtime.native import ARTIFACT_SUFFIXES, build_library, write_header
from mapsto.runtime.signature import Signature
from mapsto.trainer import Trainer

__all__ = [
    "Part",
    "arrays_of",
    "build",
    "entry_functions",
    "library_name",
    "make_library",
    "named_signature",
    "write_library",
]


@dataclass(frozen=True)
class Part:
    """A function of a library: its name after the library's, its IR, its arrays by path."""

    name: str
    elaborated: Elaborated
    arrays: Mapping[str, Array] = field(default_factory=dict)
    documentation: str = ""
    result_name: str = "result"

    def with_constants(self) -> Part:
        """The function told that its arrays are the same at each call."""
        count = len(bound_slots(self.elaborated))
        return replace(self, elaborated=with_constants(self.elaborated, range(count)))


def build(
    target: Compilable | Trainer,
    path: str | Path,
    *,
    header: str | Path | None = None,
    external_weights: bool = False,
    **types: TensorType,
) -> None:
    """Compiles a map, a module instance, a method or a training step (of a trainer) to a file.

    `build(net, "libdigits.so", x=mt.f32["n", 64])` writes a shared library and `digits.h` beside
    it; `types` are the types of the inputs, whose named sizes become arguments of the C function.
    The suffix of the path says what is written: .so, .o, .s or .ll.  Parameters are constants of
    the library, or with `external_weights` read from a safetensors file at run time.  Raises
    DiagnosticsError where the program does not accept the types, ArtifactError where the file
    cannot be made, LinkerNotFound where nothing can link a shared library.
    """
    compilable = target.compiled_step if isinstance(target, Trainer) else target
    elaborated = compilable.elaborate(types, {})
    result = "loss" if isinstance(target, Trainer) else "result"
    arrays = {} if external_weights else arrays_of(compilable, elaborated)
    part = Part(_part_name(target), elaborated, arrays, compilable.__doc__ or "", result)
    place = Path(path)
    options = compilable.options
    library = make_library(library_name(place), [part], options, external_weights)
    write_library(library, place, None if header is None else Path(header), options)


def arrays_of(target: Compilable, elaborated: Elaborated) -> Mapping[str, Array]:
    """The arrays of parameters and states by path; new ones are initialized."""
    slots = bound_slots(elaborated)
    return target.own_arrays(slots) if slots else {}


def library_name(path: Path) -> str:
    """The C identifier that begins the names of a library's functions: digits of libdigits.so."""
    stem = path.name.removesuffix(path.suffix)
    text = re.sub(r"\W", "_", stem.removeprefix("lib") or stem, flags=re.ASCII)
    return text if text[0].isalpha() else f"a{text}"


def make_library(
    name: str, parts: Sequence[Part], options: Options, external_weights: bool = False
) -> Library:
    """The library of some parts; arrays of one path are shared between them.

    Where they are in the library and nothing writes them, what depends on them alone is computed
    once.  Raises ArtifactError where a part cannot be called from C.
    """
    is_fixed = not external_weights and not any(part.elaborated.updated for part in parts)
    told = [part.with_constants() for part in parts] if is_fixed else parts
    functions = list(entry_functions(told, options))
    names = [function.name for function in functions]
    program = options.lower(Module.of(*functions), names)
    arrays = {path: array for part in parts for path, array in part.arrays.items()}
    try:
        entries = [
            _library_entry(part, _unique(part, parts), name, program.prepared_bytes(name))
            for part, name in zip(parts, names, strict=True)
        ]
        return Library(
            name, program.text, tuple(entries), arrays, external_weights, program.assertions
        )
    except ValueError as error:
        raise ArtifactError(str(error)) from error


def _library_entry(part: Part, name: str, entry: str, prepared_bytes: int) -> LibraryEntry:
    signature = replace(named_signature(part), prepared_bytes=prepared_bytes)
    return LibraryEntry(name, entry, signature, _brief(part.documentation))


def write_library(
    library: Library, path: Path, header: Path | None, options: Options
) -> tuple[Path, ...]:
    """Writes a library and its header; gives the files.

    The header stands beside a shared library or an object file by default, and for other forms is
    written where it is named.
    """
    if path.suffix not in ARTIFACT_SUFFIXES:
        known = ", ".join(ARTIFACT_SUFFIXES)
        raise ArtifactError(f"{path}: the name of the output should end in one of {known}")
    if header is None and path.suffix in (".so", ".o"):
        header = path.with_name(f"{library.name}.h")
    try:
        build_library(library, path, options.machine)
    except RuntimeError as error:
        raise ArtifactError(f"{path}: LLVM does not accept the program: {error}") from error
    if header is None:
        return (path,)
    write_header(library, header)
    return path, header


def _part_name(target: Compilable | Trainer) -> str:
    if isinstance(target, Trainer):
        return "step"
    if isinstance(target, Instance):
        return "forward"
    return target.name if isinstance(target, Map | Method) else "evaluate"


def entry_functions(parts: Sequence[Part], options: Options) -> Iterator[Function]:
    """The optimized entry functions, each with a name of its own."""
    taken: set[str] = set()
    for part in parts:
        entry = part.elaborated.entry
        function = optimized(part.elaborated.module, options)[entry]
        name = entry
        while name in taken:
            name += "_"
        taken.add(name)
        yield function if name == entry else replace(function, name=name)


def _unique(part: Part, parts: Sequence[Part]) -> str:
    """The C name of a part; parts of one name have that of their module before it."""
    same = [other for other in parts if other.name == part.name]
    if len(same) == 1:
        return c_identifier(part.name, frozenset())
    owner = part.elaborated.entry.partition(".")[0]
    return c_identifier(f"{owner}_{part.name}", frozenset())


def named_signature(part: Part) -> Signature:
    """The signature with results named as the program names them."""
    signature = signature_of(part.elaborated)
    structure = part.elaborated.result
    names: Sequence[str] = [spec.name for spec in signature.results]
    if isinstance(structure, dict):
        names = list(structure)
    elif isinstance(structure, TensorType):
        names = [part.result_name]
    results = zip(signature.results, names, strict=True)
    return replace(signature, results=tuple(replace(spec, name=name) for spec, name in results))


def _brief(documentation: str) -> str:
    """The first paragraph."""
    return " ".join(documentation.strip().partition("\n\n")[0].split())
