"""The operators of expressions."""

from __future__ import annotations

from enum import Enum

__all__ = ["BinaryOperator", "UnaryOperator"]


class BinaryOperator(Enum):
    """An infix operator; the value is its spelling."""

    ADD = "+"
    SUBTRACT = "-"
    MULTIPLY = "*"
    DIVIDE = "/"
    REMAINDER = "%"
    MATRIX_MULTIPLY = "@"
    POWER = "^"
    EQUAL = "=="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_EQUAL = "<="
    GREATER = ">"
    GREATER_EQUAL = ">="
    AND = "and"
    OR = "or"


class UnaryOperator(Enum):
    """A prefix operator; the value is its spelling."""

    NEGATE = "-"
    NOT = "not"
