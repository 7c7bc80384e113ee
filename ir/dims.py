"""Symbolic dimensions: integer polynomials over named sizes and floor divisions.

A dimension is an `int` where it is known and a `DimExpression` where it depends on a named size,
such as a batch `n`.  Expressions are kept in a canonical form (a sorted sum of monomials), so
equality of dimensions is equality of objects: `2*d + d == 3*d`, and `(h - 1) + 1` is `h` again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = [
    "Dim",
    "DimExpression",
    "FloorDiv",
    "as_dim",
    "ceil_div",
    "dim_value",
    "floor_div",
    "product",
    "substitute",
    "symbol",
    "symbols",
]


@dataclass(frozen=True, slots=True)
class FloorDiv:
    """The atom `floor(numerator / denominator)`, kept where the division cannot be carried out."""

    numerator: Dim
    denominator: Dim

    def __str__(self) -> str:
        return f"({self.numerator}) / {_parenthesized(self.denominator)}"


Atom = str | FloorDiv
Monomial = tuple[Atom, ...]


@dataclass(frozen=True, slots=True)
class DimExpression:
    """A canonical sum of terms: (monomial, nonzero coefficient), the constant term last."""

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        return _from_terms([*_terms(self), *_terms(other)])

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return _from_terms([(monomial, -c) for monomial, c in self.terms])

    def __sub__(self, other: Dim) -> Dim:
        return self + -other

    def __rsub__(self, other: Dim) -> Dim:
        return -self + other

    def __mul__(self, other: Dim) -> Dim:
        return _from_terms(
            [(_merge(m1, m2), c1 * c2) for m1, c1 in self.terms for m2, c2 in _terms(other)]
        )

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floor_div(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floor_div(other, self)

    def __str__(self) -> str:
        text = ""
        for monomial, coefficient in self.terms:
            sign = ("-" if coefficient < 0 else "") if not text else (" - ", " + ")[coefficient > 0]
            text += sign + _term_text(monomial, abs(coefficient))
        return text

    def __repr__(self) -> str:
        return f"Dim({self})"


Dim = int | DimExpression


def symbol(name: str) -> DimExpression:
    """The dimension that is just the named size."""
    return DimExpression((((name,), 1),))


def as_dim(value: int | str | Dim) -> Dim:
    """A dimension from a number, a symbol's name or a dimension."""
    return symbol(value) if isinstance(value, str) else value


def floor_div(numerator: Dim, denominator: Dim) -> Dim:
    """`floor(numerator / denominator)`, carried out on the terms that divide exactly.

    Raises ZeroDivisionError when the denominator is the constant 0.
    """
    if isinstance(numerator, int) and isinstance(denominator, int):
        return numerator // denominator
    if denominator == 1 or numerator == 0:
        return numerator
    if numerator == denominator:
        return 1
    if not isinstance(denominator, int):
        return _cancel_monomial(numerator, denominator)
    if denominator == 0:
        raise ZeroDivisionError("a dimension is divided by zero")
    exact = [(m, c // denominator) for m, c in _terms(numerator) if c % denominator == 0]
    rest = [(m, c) for m, c in _terms(numerator) if c % denominator]
    if not rest:
        return _from_terms(exact)
    remainder = _from_terms(rest)
    if isinstance(remainder, int):
        return _from_terms([*exact, ((), remainder // denominator)])
    return _from_terms([*exact, ((FloorDiv(remainder, denominator),), 1)])


def ceil_div(size: Dim, width: int) -> Dim:
    """How many pieces of a width cover a size."""
    return floor_div(size + (width - 1), width)


def substitute(dim: Dim, values: Mapping[str, Dim]) -> Dim:
    """The dimension with the named sizes replaced; names without a value stay."""
    if isinstance(dim, int):
        return dim
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        term: Dim = coefficient
        for atom in monomial:
            term = term * _substitute_atom(atom, values)
        total = total + term
    return total


def dim_value(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The number that the dimension is for these sizes; KeyError names a size that is missing."""
    if isinstance(dim, int):
        return dim
    value = substitute(dim, sizes)
    if not isinstance(value, int):
        raise KeyError(next(iter(symbols(value))))
    return value


def symbols(dim: Dim) -> frozenset[str]:
    """The names of the sizes that the dimension depends on."""
    return frozenset() if isinstance(dim, int) else frozenset(_atoms_symbols(dim))


def product(dims: tuple[Dim, ...]) -> Dim:
    """The number of elements of a shape."""
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return total


def _atoms_symbols(dim: DimExpression) -> Iterator[str]:
    for monomial, _ in dim.terms:
        for atom in monomial:
            if isinstance(atom, str):
                yield atom
            else:
                yield from symbols(atom.numerator)
                yield from symbols(atom.denominator)


def _substitute_atom(atom: Atom, values: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, FloorDiv):
        numerator = substitute(atom.numerator, values)
        return floor_div(numerator, substitute(atom.denominator, values))
    value = values.get(atom)
    return symbol(atom) if value is None else value


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    return (((), dim),) if isinstance(dim, int) else dim.terms


def _from_terms(terms: list[tuple[Monomial, int]]) -> Dim:
    merged: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        merged[monomial] = merged.get(monomial, 0) + coefficient
    kept = {m: c for m, c in merged.items() if c}
    if not kept or (len(kept) == 1 and () in kept):
        return kept.get((), 0)
    return DimExpression(tuple(sorted(kept.items(), key=_term_order)))


def _term_order(term: tuple[Monomial, int]) -> tuple[int, tuple[str, ...]]:
    return (-len(term[0]), tuple(str(atom) for atom in term[0]))


def _merge(left: Monomial, right: Monomial) -> Monomial:
    return tuple(sorted(left + right, key=str))


def _cancel_monomial(numerator: Dim, denominator: DimExpression) -> Dim:
    """Exact division by a single term, such as `(2*n*d) / n`; else a `FloorDiv` atom."""
    atom: Dim = DimExpression((((FloorDiv(numerator, denominator),), 1),))
    if len(denominator.terms) != 1:
        return atom
    divisor, factor = denominator.terms[0]
    quotient: list[tuple[Monomial, int]] = []
    for monomial, coefficient in _terms(numerator):
        rest = _without(monomial, divisor)
        if rest is None or coefficient % factor:
            return atom
        quotient.append((rest, coefficient // factor))
    return _from_terms(quotient)


def _without(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    rest = list(monomial)
    for atom in divisor:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


def _term_text(monomial: Monomial, coefficient: int) -> str:
    if not monomial:
        return str(coefficient)
    factors = [f"({atom})" if isinstance(atom, FloorDiv) else atom for atom in monomial]
    return "*".join(([] if coefficient == 1 else [str(coefficient)]) + factors)


def _parenthesized(dim: Dim) -> str:
    is_symbol = isinstance(dim, DimExpression) and symbols(dim) == {str(dim)}
    return str(dim) if isinstance(dim, int) or is_symbol else f"({dim})"
