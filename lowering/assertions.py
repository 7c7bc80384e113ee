"""The assertions of a program, each with an error code of its own."""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.core import Location

__all__ = ["FIRST_CODE", "Assertion", "AssertionTable"]

FIRST_CODE = 1000
"""Smaller codes are the same for all programs."""


@dataclass(frozen=True, slots=True)
class Assertion:
    """What is wrong where it fails, and where it stands in the source."""

    message: str
    location: Location | None


class AssertionTable:
    """Gives codes to assertions while a program is written."""

    def __init__(self) -> None:
        self._codes: dict[Assertion, int] = {}

    def code(self, message: str, location: Location | None) -> int:
        """The code of an assertion; the same wherever it was inlined to."""
        return self._codes.setdefault(Assertion(message, location), FIRST_CODE + len(self._codes))

    @property
    def by_code(self) -> dict[int, Assertion]:
        """The assertions so far."""
        return {code: assertion for assertion, code in self._codes.items()}
