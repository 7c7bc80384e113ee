"""Matrices under a mask of indices: the ops that compute them, and those that use them up.

    fits    = contract %queries, %keys             a product: rows x keys
    scores  = select %mask, %fits, -1e30           element by element
    weights = exp(%scores - ..)
    top     = contract max %scores                 used up along the keys,
    sums    = contract %weights, %values           ..
    d_keys  = contract %d_scores, %queries         or along the rows

All matrices that depend on each other element by element are found together, those of a backward
pass with those of the forward one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mapsto.ir.bands import Axes, Band, constant_outside
from mapsto.ir.core import Block, Operation, Trait, Value
from mapsto.ir.dims import Dim
from mapsto.ir.liveness import users_of
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.logic import Select
from mapsto.ir.stages import is_heavy

__all__ = [
    "Banded",
    "Matrices",
    "connected_matrices",
    "dependent_matrices",
    "find_banded",
    "is_product",
    "matrix_dims",
    "matrix_side",
]


@dataclass(frozen=True, slots=True, eq=False)
class Matrices:
    """Matrices that depend on each other element by element; `users` are the ops that use them
    up."""

    matrices: frozenset[Value]
    users: Sequence[Contract]


@dataclass(frozen=True, slots=True, eq=False)
class Banded:
    """Matrices of one shape, with the axes of rows and keys, and a band outside of which a mask
    among them does not hold; `users` are the ops that use them up."""

    shape: tuple[int, ...]
    axes: Axes
    band: Band
    matrices: frozenset[Value]
    users: Sequence[Contract]

    @property
    def products(self) -> list[Contract]:
        """The contractions that give matrices."""
        owners = [value.owner for value in self.matrices]
        return [op for op in owners if isinstance(op, Contract)]


def find_banded(block: Block, least_rows: int) -> Iterator[Banded]:
    """Those of a block that nothing else uses, with so many rows at least."""
    selections = [op for op in block.operations if isinstance(op, Select)]
    found = [
        (op.result, axes, outside[1])
        for op in selections
        for axes in _axes(op.result, least_rows)
        if (outside := constant_outside(op.result, axes)) is not None
    ]
    users = users_of(block.operations if found else ())
    seen: set[Value] = set()
    dependents: dict[tuple[Sequence[Dim], Axes], frozenset[Value]] = {}
    for start, axes, band in found:
        key = start.shape, axes
        if key not in dependents:
            dependents[key] = dependent_matrices(block, *key)
        known = dependents[key] - seen
        around = connected_matrices(start, axes, users, known) if start in known else None
        if around is not None:
            seen |= around.matrices
            shape = tuple(extent for extent in start.shape if isinstance(extent, int))
            yield Banded(shape, axes, band, around.matrices, around.users)


def _axes(value: Value, least_rows: int) -> Iterator[Axes]:
    """Pairs of axes that may be rows and keys; the first axis is the batch."""
    known = [extent for extent in value.shape if isinstance(extent, int)]
    if value.dtype.is_float and len(known) == value.type.rank:
        axes = range(1, len(known))
        tall = [axis for axis in axes if known[axis] >= least_rows]
        yield from ((rows, keys) for rows in tall for keys in axes if rows != keys)


def dependent_matrices(block: Block, shape: Sequence[Dim], axes: Axes) -> frozenset[Value]:
    """The values of a shape that are products, or computed from these element by element."""
    found: set[Value] = set()
    for op in block.operations:
        alike = len(op.results) == 1 and op.result.shape == shape
        derived = op.has(Trait.ELEMENTWISE) and any(value in found for value in op.operands)
        if alike and (derived or is_product(op.result, axes)):
            found.add(op.result)
    return frozenset(found)


def connected_matrices(
    start: Value,
    axes: Axes,
    users: Mapping[Value, Sequence[Operation]],
    depends: frozenset[Value],
    several: bool = False,
) -> Matrices | None:
    """The matrices around one, of those that `depends` has; None where something else than `users`
    of whole rows or columns needs them, or of rows along `several` axes."""
    pending, matrices = [start], {start}
    last: dict[Contract, None] = {}
    while pending:
        value = pending.pop()
        op = value.defining_op
        near = [v for v in op.operands if v in depends] if op is not None else []
        for user in users.get(value, ()):
            if user.has(Trait.ELEMENTWISE):
                near.append(user.result)
            elif isinstance(user, Contract) and matrix_side(user, value, axes, several) is not None:
                last[user] = None
            else:
                return None
        pending += [v for v in near if v not in matrices]
        matrices.update(near)
    if any(sum(v in matrices for v in op.operands) != 1 for op in last):
        return None
    return Matrices(frozenset(matrices), list(last))


def is_product(value: Value, axes: Axes) -> bool:
    """Whether a contraction gives the value, with one operand that has the rows, one the keys."""
    op = value.defining_op
    if not isinstance(op, Contract) or not is_heavy(op):
        return False
    sides = [[d in map_.dims for d in axes] for map_ in op.maps]
    return sorted(sides) == [[False, True], [True, False]]


def matrix_side(op: Contract, matrix: Value, axes: Axes, several: bool = False) -> int | None:
    """Which operand of a contraction the matrix is, if it uses it up along rows or keys; it is the
    only operand or has another beside it, which has the axis but not the other one.  With
    `several`, a product may go along other axes as well, as those of heads that share keys."""
    if op.operands.count(matrix) != 1 or not op.attributes["reassociate"]:
        return None
    if len(op.reduced) != 1 and not (several and len(op.operands) == 2):
        return None
    side = op.operands.index(matrix)
    dims = matrix_dims(op, side)
    known = [d for d in dims if d is not None]
    reads = zip(dims, op.maps[side].results, strict=True)
    if any(d is None and (expr.dims or expr.constant != 0) for d, expr in reads):
        return None
    sizes = [1 if d is None else op.extents[d] for d in dims]
    if len(set(known)) < len(known) or tuple(sizes) != matrix.shape:
        return None
    rows, keys = (dims[axis] for axis in axes)
    if len(op.operands) == 1:
        kept = [d for d in dims if d != op.rank]
        return 0 if keys == op.rank and kept == list(range(op.rank)) else None
    along = set(op.reduced)
    if len(op.operands) != 2 or op.kind != "sum" or not along & {rows, keys}:
        return None
    other = op.maps[1 - side].dims
    beside = keys if rows in along else rows
    return side if other >= along and beside not in other and along <= set(known) else None


def matrix_dims(op: Contract, side: int) -> list[int | None]:
    """For each axis of an operand the dimension that it is read along; None for one of size 1, or
    where it is read otherwise."""
    return [expr.single for expr in op.maps[side].results]
