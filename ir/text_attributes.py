"""Reads types, dimensions, affine maps and attributes of the text form."""

from __future__ import annotations

import base64
import binascii
from math import prod

import numpy as np

from mapsto.ir.affine import AffineExpr, AffineMap
from mapsto.ir.core import Attribute, DenseArray, SymbolReference
from mapsto.ir.dims import Dim, DimExpression, FloorDiv, floor_div, symbol, symbols
from mapsto.ir.text_tokens import Cursor, Token
from mapsto.ir.types import DType, TensorType

__all__ = ["read_attribute", "read_attributes", "read_type"]

MOST_TERMS = 1000
HIGHEST_DEGREE = 50
MOST_DIGITS = 1000
"""Limits on what a dimension in a text may expand to."""

MOST_AXES = 32
"""Axes of an array; NumPy knows no more."""

_DTYPES = {dtype.value: dtype for dtype in DType}
_WORDS: dict[str, Attribute] = {
    "true": True,
    "false": False,
    "inf": float("inf"),
    "nan": float("nan"),
}


def read_attributes(cursor: Cursor) -> dict[str, Attribute]:
    """`{name = value, ...}`"""
    attributes: dict[str, Attribute] = {}

    def read_one() -> None:
        token = cursor.take()
        if token.kind not in ("name", "string"):
            cursor.fail("expected the name of an attribute", token)
        name = cursor.unquoted(token, token.text)
        if name in attributes:
            cursor.fail(f"the attribute `{name}` stands twice", token)
        cursor.expect("=")
        attributes[name] = read_attribute(cursor)

    cursor.bracketed("{", "}", read_one)
    return attributes


def read_attribute(cursor: Cursor) -> Attribute:
    """Any attribute."""
    token = cursor.token
    if token.kind == "string":
        cursor.take()
        return cursor.unquoted(token, token.text)
    if token.kind == "symbol":
        cursor.take()
        return SymbolReference(cursor.unquoted(token, token.text[1:]))
    if cursor.is_next("["):
        return tuple(cursor.bracketed("[", "]", lambda: read_attribute(cursor)))
    if cursor.is_next("(") and _is_map(cursor):
        return _read_map(cursor)
    if token.kind == "name" and token.text in _DTYPES:
        return _read_dtype_or_type(cursor)
    if cursor.is_next("dense"):
        return _read_dense(cursor)
    return _read_number(cursor)


def read_type(cursor: Cursor) -> TensorType:
    """`f32[n, 64]`"""
    token = cursor.token
    if token.text not in _DTYPES:
        cursor.fail("expected a type, such as f32[n, 64]")
    cursor.take()
    return TensorType(
        _DTYPES[token.text], tuple(cursor.bracketed("[", "]", lambda: read_dim(cursor)))
    )


def _read_dtype_or_type(cursor: Cursor) -> DType | TensorType:
    following = cursor.tokens[cursor.position + 1]
    return read_type(cursor) if following.text == "[" else _DTYPES[cursor.take().text]


def _read_number(cursor: Cursor) -> Attribute:
    """A truth value, a floating-point number, an integer or a dimension."""
    sign = cursor.tokens[cursor.position + cursor.is_next("-")]
    if sign.kind == "float" or (sign.kind == "name" and sign.text in _WORDS):
        negative = cursor.accept("-")
        token = cursor.take()
        value = float(token.text) if token.kind == "float" else _WORDS[token.text]
        if not negative:
            return value
        if not isinstance(value, float):
            cursor.fail("expected a number", token)
        return -value
    return read_dim(cursor)


# ---- dimensions


def read_dim(cursor: Cursor) -> Dim:
    """A sum of products: `2*n + (n + 1) / 2`, where `/` rounds down."""
    total = _read_product(cursor)
    while cursor.is_next("+") or cursor.is_next("-"):
        sign = 1 if cursor.take().text == "+" else -1
        term = _read_product(cursor)
        total = _limited(cursor, total + term * sign)
    return total


def _read_product(cursor: Cursor) -> Dim:
    result = _read_factor(cursor)
    while cursor.is_next("*") or cursor.is_next("/"):
        operator = cursor.take()
        factor = _read_factor(cursor)
        if operator.text == "*":
            result = _limited_product(cursor, result, factor)
            continue
        if factor == 0:
            cursor.fail("a dimension is divided by zero", operator)
        result = _limited(cursor, floor_div(result, factor))
    return result


def _read_factor(cursor: Cursor) -> Dim:
    sign = 1
    while cursor.accept("-"):
        sign = -sign
    token = cursor.take()
    if token.kind == "int":
        return sign * _integer(cursor, token)
    if token.kind in ("name", "quoted"):
        return symbol(cursor.unquoted(token, token.text)) * sign
    if token.text != "(":
        cursor.fail("expected a number or the name of a size", token)
    cursor.enter()
    inner = read_dim(cursor)
    cursor.expect(")")
    cursor.leave()
    return inner * sign


def _integer(cursor: Cursor, token: Token) -> int:
    if len(token.text) > MOST_DIGITS:
        cursor.fail(f"a number of more than {MOST_DIGITS} digits", token)
    return int(token.text)


def _limited_product(cursor: Cursor, left: Dim, right: Dim) -> Dim:
    if _term_count(left) * _term_count(right) > MOST_TERMS:
        cursor.fail(f"a dimension of more than {MOST_TERMS} terms")
    return _limited(cursor, left * right)


def _limited(cursor: Cursor, dim: Dim) -> Dim:
    """The dimension; TextError where it has grown beyond what programs need."""
    if isinstance(dim, int):
        return dim
    if _term_count(dim) > MOST_TERMS or _degree(dim) > HIGHEST_DEGREE:
        cursor.fail(f"a dimension of more than {MOST_TERMS} terms or degree {HIGHEST_DEGREE}")
    return dim


def _term_count(dim: Dim) -> int:
    return len(dim.terms) if isinstance(dim, DimExpression) else 1


def _degree(dim: Dim) -> int:
    """The greatest number of factors of a term, those in divisions counted in."""
    if isinstance(dim, int):
        return 0
    return max(
        sum(
            1 + _degree(atom.numerator) + _degree(atom.denominator)
            if isinstance(atom, FloorDiv)
            else 1
            for atom in monomial
        )
        for monomial, _ in dim.terms
    )


# ---- affine maps


def _is_map(cursor: Cursor) -> bool:
    """Whether the parenthesis that follows holds the dimensions of a map."""
    position = cursor.position + 1
    while cursor.tokens[position].kind == "name" or cursor.tokens[position].text == ",":
        position += 1
    return [t.text for t in cursor.tokens[position : position + 2]] == [")", "->"]


def _read_map(cursor: Cursor) -> AffineMap:
    """`(d0, d1) -> (d0, 2*d1 - 1)`"""
    names = cursor.bracketed("(", ")", lambda: cursor.expect_kind("name", "a dimension").text)
    if len(set(names)) != len(names):
        cursor.fail("a dimension of the map stands twice")
    cursor.expect("->")
    positions = {name: i for i, name in enumerate(names)}
    results = cursor.bracketed("(", ")", lambda: _read_affine(cursor, positions))
    return AffineMap(len(names), tuple(results))


def _read_affine(cursor: Cursor, positions: dict[str, int]) -> AffineExpr:
    start = cursor.token
    dim = read_dim(cursor)
    constant: Dim = 0
    coefficients: list[Dim] = [0] * len(positions)
    for monomial, number in (((), dim),) if isinstance(dim, int) else dim.terms:
        used = [a for a in monomial if isinstance(a, str) and a in positions]
        rest = [a for a in monomial if a not in positions]
        hidden = any(_mentions(a, positions) for a in rest)
        if len(used) > 1 or hidden:
            cursor.fail("not affine in the dimensions of the map", start)
        term: Dim = number
        for atom in rest:
            term = term * DimExpression((((atom,), 1),))
        if used:
            coefficients[positions[used[0]]] += term
        else:
            constant = constant + term
    return AffineExpr(tuple(coefficients), constant)


def _mentions(atom: str | FloorDiv, names: dict[str, int]) -> bool:
    if isinstance(atom, str):
        return False
    return bool((symbols(atom.numerator) | symbols(atom.denominator)) & names.keys())


# ---- arrays


def _read_dense(cursor: Cursor) -> DenseArray:
    """`dense<f32[2], [1.0, 2.0]>`, or with the elements' bytes in base 64"""
    cursor.expect("dense")
    cursor.expect("<")
    start = cursor.token
    type_ = read_type(cursor)
    shape = [dim for dim in type_.shape if isinstance(dim, int) and dim >= 0]
    if len(shape) != type_.rank or type_.rank > MOST_AXES or type_.dtype is DType.BF16:
        cursor.fail("an array has a known shape and an element type that NumPy has", start)
    cursor.expect(",")
    if cursor.token.kind == "string":
        flat = _decoded(cursor, type_.dtype)
    else:
        flat = _listed(cursor, type_.dtype)
    cursor.expect(">")
    if flat.size != prod(shape):
        cursor.fail(f"{flat.size} elements for the shape {shape}", start)
    return DenseArray(flat.reshape(shape))


def _decoded(cursor: Cursor, dtype: DType) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
    token = cursor.take()
    try:
        data = base64.b64decode(token.text[1:-1], validate=True)
    except (binascii.Error, ValueError):
        cursor.fail("not base 64", token)
    if len(data) % dtype.bytes:
        cursor.fail("not a whole number of elements", token)
    flat = np.frombuffer(data, dtype.numpy)
    if dtype is DType.BOOL and flat.view(np.uint8).max(initial=0) > 1:
        cursor.fail("not the bytes of truth values", token)
    return flat


def _listed(cursor: Cursor, dtype: DType) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
    start = cursor.token
    items = cursor.bracketed("[", "]", lambda: _read_number(cursor))
    expected = bool if dtype is DType.BOOL else float if dtype.is_float else int
    if not all(type(item) is expected for item in items):
        cursor.fail(f"an element is not of type {dtype}", start)
    try:
        with np.errstate(all="ignore"):
            return np.array(items, dtype.numpy)
    except (OverflowError, ValueError):
        cursor.fail(f"an element is out of the range of {dtype}", start)
