"""Affine index maps: how an operand of a contraction is read at a point of its iteration domain.

A map over iteration dimensions `d0 .. dk` gives one affine expression for each axis of a tensor:
`(d0, d1, d2) -> (d0, 2*d1 + d2 - 1)` reads a padded, strided window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mapsto.ir.dims import Dim, DimExpression, substitute, symbols

__all__ = ["AffineExpr", "AffineMap", "axis", "identity_map", "projection"]


@dataclass(frozen=True, slots=True)
class AffineExpr:
    """`sum(coefficients[i] * d_i) + constant`; coefficients and constant may be symbolic."""

    coefficients: tuple[Dim, ...]
    constant: Dim = 0

    @property
    def dims(self) -> tuple[int, ...]:
        """The iteration dimensions that the expression depends on, ascending."""
        return tuple(i for i, c in enumerate(self.coefficients) if c != 0)

    @property
    def single(self) -> int | None:
        """The dimension d where the expression is exactly `d`, else None."""
        dims = self.dims
        if len(dims) != 1 or self.constant != 0 or self.coefficients[dims[0]] != 1:
            return None
        return dims[0]

    def __add__(self, other: AffineExpr) -> AffineExpr:
        pairs = zip(self.coefficients, other.coefficients, strict=True)
        return AffineExpr(tuple(a + b for a, b in pairs), self.constant + other.constant)

    def scaled(self, factor: Dim) -> AffineExpr:
        """The expression times a constant."""
        return AffineExpr(tuple(c * factor for c in self.coefficients), self.constant * factor)

    def shifted(self, offset: Dim) -> AffineExpr:
        """The expression plus a constant."""
        return AffineExpr(self.coefficients, self.constant + offset)

    def compose(self, inner: Sequence[AffineExpr]) -> AffineExpr:
        """The expression with each d_i replaced by `inner[i]`, over the dimensions of those."""
        rank = len(inner[0].coefficients) if inner else 0
        total = AffineExpr((0,) * rank, self.constant)
        for coefficient, expr in zip(self.coefficients, inner, strict=True):
            if coefficient != 0:
                total = total + expr.scaled(coefficient)
        return total

    def bounds(self, extents: Sequence[Dim]) -> tuple[Dim, Dim] | None:
        """Least and greatest value over a domain; None where a coefficient's sign is unknown."""
        low, high = self.constant, self.constant
        for coefficient, extent in zip(self.coefficients, extents, strict=True):
            if not isinstance(coefficient, int):
                return None
            if coefficient > 0:
                high = high + (extent - 1) * coefficient
            elif coefficient < 0:
                low = low + (extent - 1) * coefficient
        return low, high

    def text(self, names: Sequence[str]) -> str:
        """The expression with these names for the iteration dimensions."""
        parts = [
            name if c == 1 else f"-{name}" if c == -1 else f"{_factor(c)}*{name}"
            for c, name in zip(self.coefficients, names, strict=True)
            if c != 0
        ]
        if self.constant != 0 or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts).replace("+ -", "- ")


@dataclass(frozen=True, slots=True)
class AffineMap:
    """From points of an iteration domain of rank `rank` to positions in a tensor."""

    rank: int
    results: tuple[AffineExpr, ...]

    @property
    def is_projection(self) -> bool:
        """Whether each axis is read at a dimension of its own, as it is."""
        dims = [expr.single for expr in self.results]
        return None not in dims and len(set(dims)) == len(dims)

    @property
    def dims(self) -> frozenset[int]:
        """All iteration dimensions that the map depends on."""
        return frozenset(d for expr in self.results for d in expr.dims)

    @property
    def symbols(self) -> frozenset[str]:
        """The named sizes in coefficients and constants."""
        dims = [d for expr in self.results for d in (*expr.coefficients, expr.constant)]
        return frozenset().union(*map(symbols, dims))

    def compose(self, inner: Sequence[AffineExpr]) -> AffineMap:
        """The map with each d_i replaced by `inner[i]`."""
        rank = len(inner[0].coefficients) if inner else 0
        return AffineMap(rank, tuple(expr.compose(inner) for expr in self.results))

    def renumbered(self, positions: Sequence[int], rank: int) -> AffineMap:
        """The same map where old dimension i is dimension `positions[i]` of `rank`."""
        return self.compose([axis(p, rank) for p in positions])

    def transform(self, change: Callable[[Dim], Dim]) -> AffineMap:
        """The map with `change` applied to each coefficient and constant."""
        return AffineMap(
            self.rank,
            tuple(
                AffineExpr(tuple(map(change, e.coefficients)), change(e.constant))
                for e in self.results
            ),
        )

    def substitute(self, sizes: dict[str, Dim]) -> AffineMap:
        """The map with named sizes replaced."""
        return self.transform(lambda dim: substitute(dim, sizes))

    def __str__(self) -> str:
        prefix = "d"
        while any(name.startswith(prefix) for name in self.symbols):
            prefix += "d"
        names = [f"{prefix}{i}" for i in range(self.rank)]
        results = ", ".join(expr.text(names) for expr in self.results)
        return f"({', '.join(names)}) -> ({results})"


def axis(dim: int, rank: int) -> AffineExpr:
    """The expression `d_dim` in a domain of this rank."""
    return AffineExpr(tuple(int(i == dim) for i in range(rank)))


def projection(dims: Sequence[int], rank: int) -> AffineMap:
    """The map that reads axis k at iteration dimension `dims[k]`."""
    return AffineMap(rank, tuple(axis(d, rank) for d in dims))


def identity_map(rank: int) -> AffineMap:
    """The map that reads each axis at the dimension of the same number."""
    return projection(range(rank), rank)


def _factor(coefficient: Dim) -> str:
    if isinstance(coefficient, DimExpression) and len(coefficient.terms) > 1:
        return f"({coefficient})"
    return str(coefficient)
