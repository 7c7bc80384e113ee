"""Effects: what a program does beside giving results.  They stay, in order, and have no results."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mapsto.ir.array_text import PLACEHOLDER, message_text
from mapsto.ir.builder import Builder
from mapsto.ir.core import Array, Operation, Trait, Value
from mapsto.ir.errors import AssertionFailed, TypeRuleError
from mapsto.ir.types import DType, TensorType, scalar

__all__ = ["Assert", "Print"]


class _Effect(Operation):
    """Works on operands that are in memory; a derivative has the effect once, on primal values."""

    traits = Trait.EFFECT | Trait.APART

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        return []


class Print(_Effect):
    """Writes a line of text with the operands at its placeholders, `{}`."""

    name = "print"
    attribute_types = {"text": str}

    @property
    def text(self) -> str:
        """The text."""
        text = self.attributes["text"]
        assert isinstance(text, str)
        return text

    def infer(self) -> tuple[TensorType, ...]:
        places = self.text.count(PLACEHOLDER)
        if places != len(self.operands):
            raise TypeRuleError(f"print of {len(self.operands)} operands at {places} places")
        return ()

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        dtypes = [operand.dtype for operand in self.operands]
        sys.stdout.write(message_text(self.text, operands, dtypes))
        return ()


class Assert(_Effect):
    """Stops the program with a message unless the operand holds."""

    name = "assert"
    arity = 1
    attribute_types = {"message": str}

    @property
    def message(self) -> str:
        """What is wrong where the operand does not hold."""
        message = self.attributes["message"]
        assert isinstance(message, str)
        return message

    def infer(self) -> tuple[TensorType, ...]:
        if self.operands[0].type != scalar(DType.BOOL):
            raise TypeRuleError(f"assert of {self.operands[0].type}, not bool[]")
        return ()

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        if not operands[0]:
            raise AssertionFailed(self.message, self.location)
        return ()
