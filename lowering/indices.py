"""Index expressions of the loop IR: integer polynomials over loop variables, sizes and a few atoms.

An index is an `int` where it is known and an `IndexExpression` otherwise.  As in `mapsto.ir.dims`,
an expression is kept as a canonical sorted sum of monomials, so equal indices are equal objects and
an index that is affine in a variable is recognized by looking at its terms (`linear_parts`).
Expressions are keys of many tables, so they remember their hashes.

Atoms: a loop variable is its name (`i`); a size (symbolic dimension) is its name after a dollar
sign (`$n`), so the two cannot collide; `Composite` holds what is not polynomial (floor division,
modulo, minimum, maximum); `ValueOf` holds an integer scalar expression, such as a gathered row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mapsto.ir.dims import Dim, FloorDiv, product, symbol
from mapsto.ir.dims import floor_div as dim_quotient

if TYPE_CHECKING:
    from mapsto.lowering.loops import Expression

__all__ = [
    "Atom",
    "Composite",
    "Index",
    "IndexExpression",
    "ValueOf",
    "as_index",
    "atom_index",
    "atoms",
    "evaluate_index",
    "flat_offset",
    "floor_div",
    "folded",
    "from_dim",
    "linear_parts",
    "maximum",
    "minimum",
    "modulo",
    "size",
    "split_offset",
    "substitute_index",
    "to_dim",
    "value_of",
    "variable",
]


@dataclass(frozen=True, slots=True)
class Composite:
    """An operation that a polynomial cannot hold; `kind` is `floordiv`, `mod`, `min` or `max`.

    Division rounds down and the modulus takes the divisor's sign, as in Python.
    """

    kind: str
    left: Index
    right: Index
    _hash: int = field(init=False, repr=False, compare=False)
    _text: str = field(init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            object.__setattr__(self, "_hash", hash((self.kind, self.left, self.right)))
            return self._hash

    def __reduce__(self) -> tuple[type[Composite], tuple[object, ...]]:
        return Composite, (self.kind, self.left, self.right)

    def __str__(self) -> str:
        try:
            return self._text
        except AttributeError:
            object.__setattr__(self, "_text", self._written())
            return self._text

    def _written(self) -> str:
        if self.kind in ("min", "max"):
            return f"{self.kind}({self.left}, {self.right})"
        sign = "//" if self.kind == "floordiv" else "%"
        return f"({_factor_text(self.left)} {sign} {_factor_text(self.right)})"


@dataclass(frozen=True, slots=True)
class ValueOf:
    """The value of an integer scalar expression, used as an index (a gather)."""

    expression: Expression

    def __str__(self) -> str:
        return f"index({self.expression})"


Atom = str | Composite | ValueOf
Monomial = tuple[Atom, ...]
Terms = tuple[tuple[Monomial, int], ...]


@dataclass(frozen=True, slots=True)
class IndexExpression:
    """A canonical sum of terms: (monomial, nonzero coefficient), the constant term last."""

    terms: Terms
    _hash: int = field(init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            object.__setattr__(self, "_hash", hash(self.terms))
            return self._hash

    def __reduce__(self) -> tuple[type[IndexExpression], tuple[object, ...]]:
        return IndexExpression, (self.terms,)

    def __add__(self, other: Index) -> Index:
        return from_terms([*self.terms, *index_terms(other)])

    __radd__ = __add__

    def __neg__(self) -> Index:
        return IndexExpression(tuple((monomial, -c) for monomial, c in self.terms))

    def __sub__(self, other: Index) -> Index:
        return self + -other

    def __rsub__(self, other: Index) -> Index:
        return -self + other

    def __mul__(self, other: Index) -> Index:
        if isinstance(other, int):
            return _scaled(self, other)
        right = other.terms
        return from_terms([(_merged(m1, m2), c1 * c2) for m1, c1 in self.terms for m2, c2 in right])

    __rmul__ = __mul__

    def __floordiv__(self, other: Index) -> Index:
        return floor_div(self, other)

    def __rfloordiv__(self, other: Index) -> Index:
        return floor_div(other, self)

    def __mod__(self, other: Index) -> Index:
        return modulo(self, other)

    def __str__(self) -> str:
        text = ""
        for monomial, coefficient in self.terms:
            sign = ("-" if coefficient < 0 else "") if not text else (" - ", " + ")[coefficient > 0]
            text += sign + _term_text(monomial, abs(coefficient))
        return text

    def __repr__(self) -> str:
        return f"Index({self})"


Index = int | IndexExpression


def variable(name: str) -> IndexExpression:
    """The value of the loop variable of that name."""
    return IndexExpression((((name,), 1),))


def size(name: str) -> IndexExpression:
    """The value of the symbolic dimension of that name."""
    return IndexExpression(((("$" + name,), 1),))


def atom_index(atom: Atom) -> IndexExpression:
    """The index that is just the atom."""
    return IndexExpression((((atom,), 1),))


def value_of(expression: Expression) -> IndexExpression:
    """The index that an integer scalar expression computes."""
    return atom_index(ValueOf(expression))


def as_index(value: Index | Dim | str) -> Index:
    """An index from a number, a loop variable's name, a dimension or an index."""
    if isinstance(value, int | IndexExpression):
        return value
    return variable(value) if isinstance(value, str) else from_dim(value)


def from_dim(dim: Dim) -> Index:
    """The index expression of a dimension."""
    if isinstance(dim, int):
        return dim
    total: Index = 0
    for monomial, coefficient in dim.terms:
        term: Index = coefficient
        for atom in monomial:
            term = term * (size(atom) if isinstance(atom, str) else _from_floor_div(atom))
        total = total + term
    return total


def to_dim(index: Index) -> Dim:
    """The dimension of an index over sizes.  Raises ValueError where it is no dimension."""
    total: Dim = 0
    for monomial, coefficient in index_terms(index):
        total = total + product(tuple(map(_atom_dim, monomial))) * coefficient
    return total


def _atom_dim(atom: Atom) -> Dim:
    if isinstance(atom, str) and atom.startswith("$"):
        return symbol(atom[1:])
    if isinstance(atom, Composite) and atom.kind == "floordiv":
        return dim_quotient(to_dim(atom.left), to_dim(atom.right))
    raise ValueError(f"`{atom}` is not a dimension")


def _from_floor_div(atom: FloorDiv) -> Index:
    return floor_div(from_dim(atom.numerator), from_dim(atom.denominator))


def floor_div(left: Index, right: Index) -> Index:
    """`floor(left / right)`, carried out on the terms that divide exactly.

    Raises ZeroDivisionError when `right` is the constant 0.
    """
    if isinstance(left, int) and isinstance(right, int):
        return left // right
    if right == 1 or left == 0:
        return left
    if left == right:
        return 1
    if not isinstance(right, int):
        return atom_index(Composite("floordiv", left, right))
    exact, rest = _split_multiples(left, right)
    quotient = from_terms([(m, c // right) for m, c in exact])
    if isinstance(rest, int):
        return quotient + rest // right
    return quotient + atom_index(Composite("floordiv", rest, right))


def modulo(left: Index, right: Index) -> Index:
    """`left - right * floor(left / right)`, after dropping the terms that `right` divides."""
    if isinstance(left, int) and isinstance(right, int):
        return left % right
    if right == 1 or left in (0, right):
        return 0
    if not isinstance(right, int):
        return atom_index(Composite("mod", left, right))
    rest = _split_multiples(left, right)[1]
    return rest % right if isinstance(rest, int) else atom_index(Composite("mod", rest, right))


def minimum(left: Index, right: Index) -> Index:
    """The smaller of the two; decided here where their difference is a number."""
    return _extremum("min", left, right)


def maximum(left: Index, right: Index) -> Index:
    """The larger of the two; decided here where their difference is a number."""
    return _extremum("max", left, right)


def _extremum(kind: str, left: Index, right: Index) -> Index:
    difference = left - right
    if isinstance(difference, int):
        return left if (difference < 0) == (kind == "min") else right
    return atom_index(Composite(kind, left, right))


def linear_parts(index: Index, name: str) -> tuple[Index, Index] | None:
    """`(a, b)` with `index == a * name + b` and neither depending on the variable, or None."""
    if isinstance(index, int):
        return 0, index
    slope: list[tuple[Monomial, int]] = []
    rest: list[tuple[Monomial, int]] = []
    for monomial, coefficient in index.terms:
        times = monomial.count(name)
        others = tuple(atom for atom in monomial if atom != name) if times else monomial
        if times > 1 or any(not isinstance(atom, str) and _mentions(atom, name) for atom in others):
            return None
        (slope if times else rest).append((others, coefficient))
    return from_terms(slope), _from_sorted(rest)


def atoms(index: Index) -> Iterator[Atom]:
    """Every atom of the index, those inside composite atoms included."""
    if isinstance(index, int):
        return
    for monomial, _ in index.terms:
        for atom in monomial:
            yield atom
            if isinstance(atom, Composite):
                yield from atoms(atom.left)
                yield from atoms(atom.right)


def _mentions(atom: Composite | ValueOf, name: str) -> bool:
    if isinstance(atom, Composite):
        return name in atoms(atom.left) or name in atoms(atom.right)
    return True


def substitute_index(index: Index, values: Mapping[str, Index]) -> Index:
    """The index with loop variables (or `$`-prefixed sizes) replaced; other names stay."""
    return map_atoms(index, lambda atom: values.get(atom) if isinstance(atom, str) else None)


def map_atoms(index: Index, replace: Callable[[Atom], Index | None]) -> Index:
    """The index with each atom replaced by what `replace` gives; None keeps the atom."""
    if isinstance(index, int):
        return index
    terms: list[tuple[Monomial, int]] = []
    for monomial, coefficient in index.terms:
        kept: Monomial = ()
        sums: Index = 1
        for atom in monomial:
            value = replace(atom) if type(atom) is str else _mapped_atom(atom, replace)
            if value is None:
                kept += (atom,)
            elif isinstance(value, int):
                coefficient *= value
            elif len(value.terms) == 1:
                kept += value.terms[0][0]
                coefficient *= value.terms[0][1]
            else:
                sums = value * sums
        ordered = tuple(sorted(kept, key=str)) if len(kept) > 1 else kept
        if isinstance(sums, int):
            terms.append((ordered, coefficient))
        else:
            terms.extend((_merged(ordered, m), coefficient * c) for m, c in sums.terms)
    return from_terms(terms)


def _mapped_atom(atom: Atom, replace: Callable[[Atom], Index | None]) -> Index | None:
    value = replace(atom)
    if value is not None or not isinstance(atom, Composite):
        return value
    left, right = map_atoms(atom.left, replace), map_atoms(atom.right, replace)
    return COMPOSITES[atom.kind](left, right)


COMPOSITES: Mapping[str, Callable[[Index, Index], Index]] = {
    "floordiv": floor_div,
    "mod": modulo,
    "min": minimum,
    "max": maximum,
}


def evaluate_index(index: Index, values: Mapping[str, int]) -> int:
    """The number that the index is; KeyError names an atom without a value."""
    result = substitute_index(index, values)
    if not isinstance(result, int):
        raise KeyError(str(next(atoms(result))))
    return result


def flat_offset(indices: Iterable[Index], shape: Iterable[Dim]) -> Index:
    """The row-major element offset of a multi-dimensional index."""
    offset: Index = 0
    for index, extent in zip(indices, shape, strict=True):
        offset = offset * from_dim(extent) + index
    return rejoined(offset)


def rejoined(index: Index) -> Index:
    """The index with quotients and remainders of one division put together again: `a*(x // a) +
    x % a` is x, and `a*((x // a) % b) + x % a` is x % (a*b)."""
    terms = dict(index_terms(index))
    for monomial, coefficient in terms.items():
        atom = monomial[0] if len(monomial) == 1 else None
        if not isinstance(atom, Composite) or atom.kind != "mod":
            continue
        found = _quotient_of(atom, coefficient, terms)
        if found is not None:
            del terms[monomial], terms[found[0]]
            return rejoined(from_terms(terms.items()) + found[1] * coefficient)
    return index


def _quotient_of(
    remainder: Composite, coefficient: int, terms: Mapping[Monomial, int]
) -> tuple[Monomial, Index] | None:
    """The term that `remainder` belongs to, and what the two are together."""
    whole, divisor = remainder.left, remainder.right
    if not isinstance(divisor, int):
        return None
    quotient = floor_div(whole, divisor)
    for monomial, times in terms.items():
        if times != coefficient * divisor or len(monomial) != 1:
            continue
        atom = monomial[0]
        if atom_index(atom) == quotient:
            return monomial, whole
        if isinstance(atom, Composite) and atom.kind == "mod" and atom.left == quotient:
            return monomial, modulo(whole, divisor * atom.right)
    return None


def split_offset(offset: Index, shape: Sequence[Dim]) -> list[Index]:
    """The multi-dimensional index at a row-major offset into `shape`, the inverse of `flat_offset`.

    A shape with an extent of 0 has no elements; the indices given for it stand in code that never
    runs.
    """
    indices: list[Index] = []
    for extent in reversed(shape[1:]):
        divisor = from_dim(extent) or 1
        indices.append(modulo(offset, divisor))
        offset = floor_div(offset, divisor)
    return [*([offset] if shape else []), *reversed(indices)]


def folded(index: Index) -> Index:
    """The index with `c*(x // c) + x % c` as `x`, as a flat index of a split one has it."""
    for monomial, coefficient in index_terms(index):
        atom = monomial[0] if len(monomial) == 1 else None
        if isinstance(atom, Composite) and atom.kind == "mod" and isinstance(atom.right, int):
            quotient = (Composite("floordiv", atom.left, atom.right),)
            if (quotient, coefficient * atom.right) in index_terms(index):
                whole = atom_index(atom) + atom.right * IndexExpression(((quotient, 1),))
                return folded(index + coefficient * (atom.left - whole))
    return index


def index_terms(index: Index) -> Terms:
    """The terms of an index, a number being one constant term."""
    return (((), index),) if isinstance(index, int) else index.terms


def from_terms(terms: Iterable[tuple[Monomial, int]]) -> Index:
    """The canonical sum of terms that may repeat."""
    merged: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        merged[monomial] = merged.get(monomial, 0) + coefficient
    if not all(merged.values()):
        merged = {monomial: c for monomial, c in merged.items() if c}
    if len(merged) < 2:
        return _from_sorted(list(merged.items()))
    try:
        return IndexExpression(tuple(sorted(merged.items(), key=_name_order)))
    except TypeError:
        return IndexExpression(tuple(sorted(merged.items(), key=_text_order)))


def _from_sorted(terms: list[tuple[Monomial, int]]) -> Index:
    """The sum of distinct terms that are in order."""
    if len(terms) == 1 and not terms[0][0]:
        return terms[0][1]
    return IndexExpression(tuple(terms)) if terms else 0


def _scaled(index: IndexExpression, factor: int) -> Index:
    if factor in (0, 1):
        return index if factor else 0
    return IndexExpression(tuple((monomial, c * factor) for monomial, c in index.terms))


def _split_multiples(index: Index, divisor: int) -> tuple[list[tuple[Monomial, int]], Index]:
    exact = [(m, c) for m, c in index_terms(index) if c % divisor == 0]
    return exact, from_terms((m, c) for m, c in index_terms(index) if c % divisor)


def _name_order(term: tuple[Monomial, int]) -> tuple[int, Monomial]:
    """The order of terms; TypeError where names alone do not decide it."""
    return -len(term[0]), term[0]


def _text_order(term: tuple[Monomial, int]) -> tuple[int, list[str]]:
    return -len(term[0]), list(map(str, term[0]))


def _merged(left: Monomial, right: Monomial) -> Monomial:
    if not left or not right:
        return left or right
    return tuple(sorted(left + right, key=str))


def _term_text(monomial: Monomial, coefficient: int) -> str:
    if not monomial:
        return str(coefficient)
    return "*".join(([] if coefficient == 1 else [str(coefficient)]) + [str(a) for a in monomial])


def _factor_text(index: Index) -> str:
    simple = isinstance(index, int) or (len(index.terms) == 1 and index.terms[0][1] == 1)
    return str(index) if simple else f"({index})"
