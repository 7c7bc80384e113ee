"""How far an index runs: found from the places that use it, before the body is elaborated.

`i < n` among the binders says it.  Else an access `x[..., i, ...]` in which `i` stands alone fixes
the extent of `i`.  Where there is none, the declared type of the result says it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from mapsto import ir
from mapsto.dsl import syntax
from mapsto.dsl.binders import binder_of
from mapsto.dsl.diagnostics import DiagnosticError, Help, Kind
from mapsto.dsl.dimensions import dimension
from mapsto.dsl.evaluation import evaluate, find
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.source import Span
from mapsto.dsl.syntax import Binder
from mapsto.dsl.tensors import as_tensor
from mapsto.dsl.values import (
    Builtin,
    IndexVariable,
    Indices,
    Position,
    Product,
    Tensor,
    Unknowable,
    Unknown,
)

__all__ = ["bind_indices", "spread_names"]


@dataclass(slots=True)
class _Search:
    """Extents found so far, each with the place that fixed it."""

    frame: Frame
    singles: set[str]
    groups: set[str]
    extents: dict[str, tuple[ir.Dim, Span]] = field(default_factory=dict)
    shapes: dict[str, tuple[tuple[ir.Dim, ...], Span]] = field(default_factory=dict)
    mistakes: list[DiagnosticError] = field(default_factory=list)
    """What is wrong with tensors that are accessed."""

    @property
    def done(self) -> bool:
        """Whether every index has an extent."""
        return self.singles <= self.extents.keys() and self.groups <= self.shapes.keys()


def bind_indices(
    frame: Frame,
    binders: Sequence[Binder],
    body: syntax.Expression,
    declared: tuple[ir.Dim, ...] | None,
) -> tuple[Frame, tuple[IndexVariable, ...]]:
    """A frame in which the binders are indices, and these in order."""
    search = _Search(frame, set(), set())
    for binder in binders:
        if isinstance(binder, syntax.Spread):
            search.groups.add(_spread_name(binder))
            continue
        name = _identifier(binder).name
        search.singles.add(name)
        if isinstance(binder, syntax.BoundedIndex):
            search.extents.setdefault(name, (dimension(binder.extent, frame), binder.span))
    _search(search, body)
    if declared is not None:
        _adopt_declared(search, binders, declared)
    return _bind(search, binders)


def _identifier(binder: syntax.Identifier | syntax.BoundedIndex) -> syntax.Identifier:
    return binder.name if isinstance(binder, syntax.BoundedIndex) else binder


def _spread_name(binder: syntax.Spread) -> str:
    if binder.name is None:
        fail(Kind.UNNAMED_GROUP, binder.span)
    return binder.name.name


def _bind(search: _Search, binders: Sequence[Binder]) -> tuple[Frame, tuple[IndexVariable, ...]]:
    inner = search.frame.nested()
    variables: list[IndexVariable] = []
    for binder in binders:
        if isinstance(binder, syntax.Spread):
            name = _spread_name(binder)
            if name not in search.shapes:
                _fail_unbound(search, binder.span, f"...{name}")
            shape, span = search.shapes[name]
            group = tuple(IndexVariable(f"{name}{i}", dim, span) for i, dim in enumerate(shape))
            inner.scope.bind(name, Indices(group), binder.span)
            variables.extend(group)
            continue
        name = _identifier(binder).name
        if name not in search.extents:
            _fail_unbound(search, binder.span, name)
        if name in inner.scope.names:
            fail(Kind.REPEATED_INDEX, binder.span, name=name)
        extent, span = search.extents[name]
        variable = IndexVariable(name, extent, span)
        inner.scope.bind(name, Position.of(variable), binder.span)
        variables.append(variable)
    return inner, tuple(variables)


def _fail_unbound(search: _Search, span: Span, name: str) -> NoReturn:
    """Tells of a mistake in an accessed tensor rather than of the extent that it leaves unknown."""
    if search.mistakes:
        raise search.mistakes[0]
    fail(Kind.UNBOUND_EXTENT, span, name=name, help=Help.STATE_EXTENT)


def _adopt_declared(
    search: _Search, binders: Sequence[Binder], declared: tuple[ir.Dim, ...]
) -> None:
    """Extents from the declared shape of the result, for indices that no access fixes."""
    groups = [i for i, binder in enumerate(binders) if isinstance(binder, syntax.Spread)]
    if len(groups) > 1 or len(declared) < len(binders) - len(groups):
        return
    if not groups and len(declared) != len(binders):
        return
    extra = len(declared) - len(binders)
    position = 0
    for binder in binders:
        if isinstance(binder, syntax.Spread):
            size = extra + 1
            shape = declared[position : position + size]
            search.shapes.setdefault(_spread_name(binder), (shape, binder.span))
            position += size
        else:
            name = _identifier(binder).name
            search.extents.setdefault(name, (declared[position], binder.span))
            position += 1


def _search(search: _Search, body: syntax.Expression) -> None:
    """Looks at accesses of named tensors first: they cost nothing to look at."""
    accesses = list(_accesses(body, search, frozenset()))
    simple = [a for a in accesses if isinstance(a[0].base, syntax.Name)]
    others = [a for a in accesses if not isinstance(a[0].base, syntax.Name)]
    for node, hidden in (*simple, *others):
        if search.done:
            return
        shape = _shape_of(search, node.base)
        if shape is not None:
            _match(search, node, shape, hidden)


def _accesses(
    node: syntax.Node, search: _Search, hidden: frozenset[str]
) -> Iterator[tuple[syntax.Index, frozenset[str]]]:
    """The accesses that mention an index of the search; `hidden` are bound again further in."""
    if isinstance(node, syntax.IndexLambda):
        hidden = hidden | _bound_by(node.binders)
    if isinstance(node, syntax.Call) and _is_reduction(node.function, search):
        assert isinstance(node.function, syntax.Index)
        hidden = hidden | _bound_by(node.function.items)
        for argument in node.arguments:
            yield from _accesses(argument, search, hidden)
        return
    if isinstance(node, syntax.Index):
        mentioned = set(spread_names(node.items)) | {
            item.name for item in node.items if isinstance(item, syntax.Name)
        }
        if mentioned & ((search.singles | search.groups) - hidden):
            yield node, hidden
    for child in syntax.children(node):
        yield from _accesses(child, search, hidden)


def _is_reduction(function: syntax.Node, search: _Search) -> bool:
    """Whether a called expression is that of an index reduction, such as `sum[k]`."""
    if not (isinstance(function, syntax.Index) and isinstance(function.base, syntax.Name)):
        return False
    value = find(search.frame, function.base.name)
    return isinstance(value, Builtin) and bool(value.reduction)


def _bound_by(binders: Sequence[syntax.Node]) -> frozenset[str]:
    found = [binder_of(b) if isinstance(b, syntax.Expression) else b for b in binders]
    names = {
        _identifier(b).name for b in found if isinstance(b, syntax.Identifier | syntax.BoundedIndex)
    }
    return frozenset(names | set(spread_names(binders)))


def spread_names(items: Sequence[syntax.Node]) -> Iterator[str]:
    """The names of the groups in an index list."""
    for item in items:
        if isinstance(item, syntax.Spread) and item.name is not None:
            yield item.name.name


def _shape_of(search: _Search, base: syntax.Expression) -> tuple[ir.Dim, ...] | None:
    """The shape of what is accessed; None if that is not known without the indices."""
    indices = frozenset(search.singles | search.groups)
    if not isinstance(base, syntax.Name) and _uses(base, search, indices):
        return None
    try:
        with search.frame.session.scratch():
            value = evaluate(base, search.frame)
            if isinstance(value, Tensor | Product):
                return as_tensor(search.frame, base.span, value).shape
            if isinstance(value, Unknown):
                raise value.cause
    except Unknowable:
        raise
    except DiagnosticError as error:
        # Reported when the body is elaborated, or here if it leaves an extent unknown.
        search.mistakes.append(error)
    return None


def _uses(node: syntax.Node, search: _Search, indices: frozenset[str]) -> bool:
    """Whether an expression depends on indices; what it binds itself is another index."""
    if isinstance(node, syntax.Name):
        return node.name in indices
    if isinstance(node, syntax.Spread):
        return node.name is not None and node.name.name in indices
    if isinstance(node, syntax.IndexLambda):
        return _uses(node.body, search, indices - _bound_by(node.binders))
    if isinstance(node, syntax.Call) and _is_reduction(node.function, search):
        assert isinstance(node.function, syntax.Index)
        indices -= _bound_by(node.function.items)
        return any(_uses(argument, search, indices) for argument in node.arguments)
    return any(_uses(child, search, indices) for child in syntax.children(node))


def _match(
    search: _Search, node: syntax.Index, shape: tuple[ir.Dim, ...], hidden: frozenset[str]
) -> None:
    """Pairs the items of an access with the dimensions of what is accessed."""
    sizes = [_item_size(search, item) for item in node.items]
    unknown = [i for i, size in enumerate(sizes) if size is None]
    known = sum(size for size in sizes if size is not None)
    if len(unknown) > 1 or known > len(shape):
        return
    position = 0
    for item, size in zip(node.items, sizes, strict=True):
        length = len(shape) - known if size is None else size
        part = shape[position : position + length]
        position += length
        if isinstance(item, syntax.Spread):
            name = "" if item.name is None else item.name.name
            if name in search.groups - hidden:
                search.shapes.setdefault(name, (part, item.span))
        elif isinstance(item, syntax.Name) and item.name in search.singles - hidden and part:
            search.extents.setdefault(item.name, (part[0], item.span))


def _item_size(search: _Search, item: syntax.IndexItem) -> int | None:
    """How many axes an item takes; None if that is not known."""
    if not isinstance(item, syntax.Spread):
        return 1
    name = "" if item.name is None else item.name.name
    if name in search.shapes:
        return len(search.shapes[name][0])
    if name in search.groups:
        return None
    value = find(search.frame, name) if name else None
    return len(value.variables) if isinstance(value, Indices) else None
