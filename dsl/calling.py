"""Parameters of the functions that the elaborator knows."""

from __future__ import annotations

from mapsto.dsl.arguments import match_names
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.frame import fail
from mapsto.dsl.source import Span
from mapsto.dsl.values import Argument

__all__ = ["Parameters"]


class Parameters:
    """The names of a function's parameters; the first `required` have to be given."""

    def __init__(self, *names: str, required: int) -> None:
        self.names = names
        self.required = required

    def match(self, owner: str, arguments: tuple[Argument, ...], span: Span) -> dict[str, Argument]:
        """The arguments by parameter; DiagnosticError where they do not fit."""
        matched = match_names(self.names, arguments, owner, span)
        for name in self.names[: self.required]:
            if name not in matched:
                fail(Kind.MISSING_ARGUMENT, span, name=name, owner=owner)
        return matched
