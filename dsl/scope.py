"""Scopes: what names stand for at a place of a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from mapsto.dsl import syntax
from mapsto.dsl.source import Span
from mapsto.dsl.values import Nothing, Value

__all__ = ["Bound", "FileScope", "InstanceScope", "LibraryScope", "Scope"]


@dataclass(frozen=True, slots=True)
class Bound:
    """A value and the place that it came from."""

    value: Value
    span: Span | None = None


class Scope:
    """Names bound inside a map; `parent` encloses it, `generics` name its dtypes."""

    def __init__(
        self,
        parent: Scope | None,
        names: Mapping[str, Bound] | None = None,
        generics: frozenset[str] = frozenset(),
    ) -> None:
        self.parent = parent
        self.generics = generics
        self.names: dict[str, Bound] = dict(names or {})

    def enclosing(self) -> Iterator[Scope]:
        """This scope and those around it, from the inside."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    def bind(self, name: str, value: Value, span: Span | None = None) -> None:
        """Gives a name a value here."""
        self.names[name] = Bound(value, span)

    def visible(self) -> Iterator[str]:
        """Every name that has a meaning here."""
        for scope in self.enclosing():
            yield from scope.own_names()

    def own_names(self) -> Iterator[str]:
        """The names that this scope gives a meaning."""
        yield from self.names

    def target_of(self, name: str) -> Scope:
        """Where a dimension or dtype that has no value yet is to be bound."""
        for scope in self.enclosing():
            if isinstance(scope, InstanceScope) and name in scope.inferred:
                return scope
            if isinstance(scope, FileScope):
                break
        return self

    def binding_of_dimension(self, name: str) -> Bound | syntax.Binding | None:
        """What a name in a type refers to: a local or configuration value, or a constant of the
        file.  Maps and library names don't count, so that `e` may name a dimension; `none` leaves a
        name open."""
        for scope in self.enclosing():
            if isinstance(scope, FileScope):
                definition = scope.definitions.get(name)
                return definition if isinstance(definition, syntax.Binding) else None
            if name in scope.names:
                bound = scope.names[name]
                return None if isinstance(bound.value, Nothing) else bound
        return None


class InstanceScope(Scope):
    """The members of a module instance; `inferred` names its dimensions and dtypes that the first
    use fixes."""

    def __init__(self, parent: Scope, inferred: frozenset[str], generics: frozenset[str]) -> None:
        super().__init__(parent, generics=generics)
        self.inferred = inferred | generics


class FileScope(Scope):
    """The definitions of a file, given a value when first used.

    `directory` is where the paths of its imports start; None for a text that is in no file.
    """

    def __init__(
        self,
        parent: Scope | None,
        definitions: Mapping[str, syntax.Definition],
        title: str,
        directory: str | None,
    ) -> None:
        super().__init__(parent)
        self.definitions = definitions
        self.title = title
        self.directory = directory
        self.resolving: set[str] = set()
        """Names whose value is being found, to notice one that depends on itself."""

    def __deepcopy__(self, memo: object) -> Self:
        """What is copied with all that it refers to stands in the same file."""
        return self

    def own_names(self) -> Iterator[str]:
        yield from self.definitions


class LibraryScope(Scope):
    """The names that need no import: those of the standard library and of the elaborator."""

    def __init__(
        self,
        names: Mapping[str, Bound],
        files: Mapping[str, str],
        registered: Callable[[str], Value | None],
    ) -> None:
        super().__init__(None, names)
        self.files = files
        """The library file of each name."""
        self.registered = registered
        """Gives the function of an op that was registered since, by a plugin."""

    def __deepcopy__(self, memo: object) -> Self:
        """There is one library."""
        return self

    def own_names(self) -> Iterator[str]:
        yield from self.names
        yield from self.files
