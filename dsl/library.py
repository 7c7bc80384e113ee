"""Files of definitions: the standard library, and the files that a program imports.

A definition of the standard library is parsed when it is first used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from mapsto.dsl import syntax
from mapsto.dsl.builtins import builtins, registered_function
from mapsto.dsl.diagnostics import Diagnostic, Help, Kind, Note, NoteKind, nearest, report
from mapsto.dsl.evaluation import find
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.instances import constant_value
from mapsto.dsl.parser import parse
from mapsto.dsl.scope import Bound, FileScope, LibraryScope, Scope
from mapsto.dsl.source import Source, Span
from mapsto.dsl.values import Closure, ModuleClass, Namespace, TrainClass, Value
from mapsto.ir.core import Operation, registered_ops

__all__ = ["DiagnosticsError", "file_scope", "library_files", "library_scope", "resolve"]

_DEFINITION = re.compile(r"^(?:map|module)[ ]+(\w+)|^(\w+)[ ]*=[^=]", re.MULTILINE)


class DiagnosticsError(Exception):
    """A program has mistakes; `diagnostics` are all of them that were found."""

    def __init__(self, diagnostics: list[Diagnostic]) -> None:
        super().__init__(f"{len(diagnostics)} errors")
        self.diagnostics = diagnostics

    def __str__(self) -> str:
        from mapsto.dsl.render import render

        return "\n".join(map(render, self.diagnostics))


@cache
def library_files() -> Mapping[str, str]:
    """The text of each file of the standard library, by its name without suffix."""
    folder = resources.files("mapsto.dsl") / "stdlib"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return {
        file.name.removesuffix(".mto"): file.read_text("utf-8")
        for file in files
        if file.name.endswith(".mto")
    }


def library_scope() -> LibraryScope:
    """The names that need no import; ops that plugins have added are among them."""
    return _library_scope(frozenset(registered_ops().values()))


@cache
def _library_scope(ops: frozenset[type[Operation]]) -> LibraryScope:
    """The names while these ops are registered."""
    files = {
        match[1] or match[2]: name
        for name, text in library_files().items()
        for match in _DEFINITION.finditer(text)
    }
    names = {name: Bound(value) for name, value in builtins().items()}
    return LibraryScope(names, files, registered_function)


@cache
def library_file(name: str) -> FileScope:
    """A file of the standard library."""
    source = Source(f"<{name}.mto>", library_files()[name])
    return FileScope(library_scope(), _Definitions(source), name, None)


class _Definitions(Mapping[str, syntax.Definition]):
    """The definitions of a library file, each parsed when it is first asked for."""

    def __init__(self, source: Source) -> None:
        self.source = source
        headers = [*_DEFINITION.finditer(source.text)]
        ends = [*(header.start() for header in headers[1:]), len(source.text)]
        self.parts = {
            header[1] or header[2]: slice(header.start(), end)
            for header, end in zip(headers, ends, strict=True)
        }
        self.parsed: dict[str, syntax.Definition] = {}

    def __getitem__(self, name: str) -> syntax.Definition:
        if name not in self.parsed:
            program, diagnostics = parse(self.source, self.parts[name])
            if diagnostics:
                raise DiagnosticsError(diagnostics)
            (self.parsed[name],) = program.definitions
        return self.parsed[name]

    def __contains__(self, name: object) -> bool:
        return name in self.parts

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def file_scope(
    program: syntax.Program, title: str, directory: str | None
) -> tuple[FileScope, list[Diagnostic]]:
    """The scope of a file's definitions; diagnostics where a name is defined twice."""
    definitions: dict[str, syntax.Definition] = {}
    places: dict[str, Span] = {}
    diagnostics = []
    for definition in program.definitions:
        for identifier in defined_names(definition):
            name = identifier.name
            if name in definitions:
                note = Note(NoteKind.DEFINED_HERE, places[name], {"name": name})
                repeated = report(Kind.REPEATED_NAME, identifier.span, notes=[note], name=name)
                diagnostics.append(repeated)
                continue
            definitions[name], places[name] = definition, identifier.span
    return FileScope(library_scope(), definitions, title, directory), diagnostics


def defined_names(definition: syntax.Definition) -> Iterator[syntax.Identifier]:
    """The names that a definition gives a meaning."""
    match definition:
        case syntax.FromImport():
            for item in definition.names:
                yield item.alias or item.name
        case syntax.Import():
            text = Path(definition.path.text).stem if definition.path.is_file else ""
            name = text or definition.path.text.rpartition(".")[2]
            yield definition.alias or syntax.Identifier(definition.path.span, name)
        case syntax.Broken():
            return
        case _:
            if definition.name is not None:
                yield definition.name


def resolve(frame: Frame, scope: Scope, name: str) -> Value:
    """The value of a definition of a file, or of a name of the standard library."""
    if isinstance(scope, LibraryScope):
        file = library_file(scope.files[name])
        value = find(frame.inside(file), name)
        assert value is not None
        return value
    assert isinstance(scope, FileScope)
    definition = scope.definitions[name]
    if name in scope.resolving:
        fail(Kind.CYCLIC_DEFINITION, definition.span, name=name)
    scope.resolving.add(name)
    try:
        value = _value(frame.inside(scope), scope, name, definition)
    finally:
        scope.resolving.discard(name)
    scope.bind(name, value, definition.span)
    return value


def _value(frame: Frame, scope: FileScope, name: str, definition: syntax.Definition) -> Value:
    match definition:
        case syntax.MapDefinition():
            return Closure(definition, scope, name)
        case syntax.ModuleDefinition():
            return ModuleClass(definition, scope)
        case syntax.TrainDefinition():
            return TrainClass(definition, scope)
        case syntax.Binding():
            return constant_value(definition, frame)
        case syntax.Import():
            return Namespace(imported(definition.path, scope), name)
        case syntax.FromImport():
            return _imported_name(frame, scope, name, definition)
    return fail(Kind.UNKNOWN_NAME, definition.span, name=name)


def _imported_name(
    frame: Frame, scope: FileScope, name: str, definition: syntax.FromImport
) -> Value:
    file = imported(definition.path, scope)
    item = next(i for i in definition.names if (i.alias or i.name).name == name)
    original = item.name.name
    if original not in file.definitions:
        suggestion = nearest(original, file.definitions)
        help = None if suggestion is None else Help.DID_YOU_MEAN
        facts: Facts = {"name": original, "found": f"`{file.title}`", "suggestion": suggestion}
        fail(Kind.NO_MEMBER, item.name.span, help=help, **facts)
    value = find(frame.inside(file), original)
    assert value is not None
    return value


def imported(path: syntax.ImportPath, scope: FileScope) -> FileScope:
    """The scope of an imported file; DiagnosticError where there is none."""
    if not path.is_file and path.text in library_files():
        return library_file(path.text)
    place = _file_of(path, scope) if path.is_file else _file_in_package(path.text)
    if place is None:
        suggestion = nearest(path.text, library_files())
        help = None if suggestion is None or path.is_file else Help.DID_YOU_MEAN
        fail(Kind.UNKNOWN_MODULE, path.span, help=help, path=path.text, suggestion=suggestion)
    try:
        text = place.read_text("utf-8")
        stamp = place.stat().st_mtime_ns
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        fail(Kind.UNREADABLE_FILE, path.span, path=path.text, reason=reason)
    return _user_file(str(place), path.text, text, stamp)


def _file_of(path: syntax.ImportPath, scope: FileScope) -> Path | None:
    """A file relative to the one that imports it."""
    return None if scope.directory is None else Path(scope.directory, path.text)


def _file_in_package(name: str) -> Path | None:
    """The file of a dotted name in an installed Python package, whose code is not run.

    `shapes` is the file `__init__.mto` of the package, `shapes.circles` its file `circles.mto`, or
    the `__init__.mto` of a folder of that name.
    """
    package, *inner = name.split(".")
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    for folder in (spec and spec.submodule_search_locations) or ():
        place = Path(folder, *inner)
        files = [place / "__init__.mto", *([place.with_suffix(".mto")] if inner else [])]
        found = next((file for file in files if file.is_file()), None)
        if found is not None:
            return found
    return None


@cache
def _user_file(path: str, title: str, text: str, stamp: int) -> FileScope:
    program, diagnostics = parse(Source(path, text))
    scope, repeated = file_scope(program, title, str(Path(path).parent))
    if diagnostics or repeated:
        raise DiagnosticsError([*diagnostics, *repeated])
    return scope
