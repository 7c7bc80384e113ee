"""Derivatives of contractions, which are contractions again.

A sum of products is linear in each factor, and its transpose is the scatter that `affine_scatter`
turns into reads.  The other reductions are sums of tangents with weights: an extremum shares its
derivative equally between the terms that attain it, a product weighs each term by the product of
the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.ir.affine import AffineMap, axis, identity_map, projection
from mapsto.ir.affine_scatter import AffineScatter, Term, emit_product
from mapsto.ir.bounds import in_bounds
from mapsto.ir.builder import Builder
from mapsto.ir.core import Value
from mapsto.ir.dims import product
from mapsto.ir.errors import MissingDerivative
from mapsto.ir.ops.contraction import Contract, contract
from mapsto.ir.ops.elementwise import Add, Div, Mul, Sub
from mapsto.ir.ops.functions import Max
from mapsto.ir.ops.logic import Cast, Eq
from mapsto.ir.ops.shaping import Broadcast, Reshape

__all__ = ["contract_jvp", "contract_transpose"]


def contract_jvp(
    op: Contract, build: Builder, result: Value, tangents: Sequence[Value | None]
) -> Value | None:
    """The tangent of a contraction of any kind."""
    if all(tangent is None for tangent in tangents):
        return None
    if op.kind == "sum" or not op.reduced:
        return _tangent_of_sum(op, build, tangents, None, op.rank)
    if op.kind == "prod":
        weight = _product_of_others(op, build)
        return _tangent_of_sum(op, build, tangents, weight, op.rank)
    attained = _attained(op, build, result)
    total = _tangent_of_sum(op, build, tangents, attained, op.rank)
    assert total is not None
    return build.emit(Mul, total, _inverse_count(op, build, attained))


def contract_transpose(
    op: Contract, build: Builder, cotangent: Value, linear: Sequence[bool]
) -> list[Value | None]:
    """The cotangent of the one operand that the contraction, a sum, is linear in."""
    if linear.count(True) != 1 or (op.reduced and op.kind != "sum"):
        raise MissingDerivative(op)
    position = linear.index(True)
    terms = _terms(op)
    terms[position] = Term(cotangent, projection(range(op.rank), len(op.extents)))
    scatter = AffineScatter(
        op.operands[position].shape, op.maps[position].results, op.extents, tuple(terms)
    )
    result = scatter.emit(build)
    return [result if is_linear else None for is_linear in linear]


def _terms(op: Contract) -> list[Term]:
    return [Term(value, map_) for value, map_ in zip(op.operands, op.maps, strict=True)]


def _domain_term(op: Contract, value: Value) -> Term:
    """A factor with one element for each point of the op's domain."""
    return Term(value, identity_map(len(op.extents)))


def _tangent_of_sum(
    op: Contract,
    build: Builder,
    tangents: Sequence[Value | None],
    weight: Value | None,
    rank: int,
) -> Value | None:
    """The sum over the factors of the product with that factor replaced by its tangent."""
    total: Value | None = None
    for i, tangent in enumerate(tangents):
        if tangent is None:
            continue
        terms = _terms(op)
        terms[i] = Term(tangent, op.maps[i])
        if weight is not None:
            terms.append(_domain_term(op, weight))
        part = _sum(build, terms, op, rank)
        total = part if total is None else build.emit(Add, total, part)
    return total


def _sum(build: Builder, terms: Sequence[Term], op: Contract, rank: int) -> Value:
    values, maps = [term.value for term in terms], [term.map for term in terms]
    return contract(build, values, maps, op.extents, rank)


def _product_over_domain(op: Contract, build: Builder) -> Value:
    """The product of the operands at each point of the domain, 0 where one is outside."""
    return emit_product(build, _terms(op), op.extents, len(op.extents))


def _validity(op: Contract, build: Builder) -> list[Term]:
    """Factors that are 1 where every operand is read inside its tensor, and outside elsewhere."""
    return [
        Term(build.like(1, value), map_)
        for value, map_ in zip(op.operands, op.maps, strict=True)
        if not in_bounds(map_, op.extents, value.shape)
    ]


def _attained(op: Contract, build: Builder, result: Value) -> Value:
    """1 at the points of the domain whose term is the extremum, and 0 elsewhere."""
    terms = _product_over_domain(op, build)
    extremum = build.emit(Broadcast, result, shape=op.extents, dims=tuple(range(op.rank)))
    return build.emit(Cast, build.emit(Eq, terms, extremum), dtype=result.dtype)


def _inverse_count(op: Contract, build: Builder, attained: Value) -> Value:
    """1 over the number of terms that attain the extremum; 1 where there is no term at all."""
    valid = _validity(op, build)
    count = _sum(build, [_domain_term(op, attained), *valid], op, op.rank)
    one = build.like(1, count)
    return build.emit(Div, one, build.emit(Max, count, one) if valid else count)


def _product_of_others(op: Contract, build: Builder) -> Value:
    """For each point of the domain, the product of the other terms of its reduction.

    Exact where terms are zero, and so in all derivatives: the products of the terms before and
    after, where what is read outside counts as 1.
    """
    domain = _product_over_domain(op, build)
    valid = _validity(op, build)
    if valid:
        inside = _sum(build, valid, op, len(op.extents))
        outside = build.emit(Sub, build.like(1, domain), inside)
        domain = build.emit(Add, domain, outside)
    outer, count = op.extents[: op.rank], product(op.extents[op.rank :])
    if count in (0, 1):
        return build.like(1, domain)
    rows = build.emit(Reshape, domain, shape=(*outer, count))
    before = _partial_product(build, rows, -1)
    others = build.emit(Mul, before, _partial_product(build, rows, 1))
    return build.emit(Reshape, others, shape=op.extents)


def _partial_product(build: Builder, rows: Value, direction: int) -> Value:
    """For each element of the last axis, the product of those before (-1) or after (1) it."""
    rank = rows.type.rank
    # One more than there can be where the number has a name: it may be 0, and in a second
    # derivative is one less than in the first.  What is read past the ends counts as 1.
    last = rows.shape[-1]
    extents = (*rows.shape, last - 1 if isinstance(last, int) else last)
    exprs = [axis(d, rank + 1) for d in range(rank)]
    step = axis(rank, rank + 1).shifted(1).scaled(direction)
    exprs[-1] = exprs[-1] + step
    return contract(build, [rows], [AffineMap(rank + 1, tuple(exprs))], extents, rank, "prod")
