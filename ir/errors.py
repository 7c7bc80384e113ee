"""Errors of the IR: each names the op and, where known, the source line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mapsto.ir.core import Location, Operation

__all__ = [
    "AssertionFailed",
    "IRError",
    "MissingDerivative",
    "MissingLowering",
    "PassError",
    "PluginError",
    "SettingError",
    "TextError",
    "TypeRuleError",
    "VerifyError",
]


class IRError(Exception):
    """Base of the errors that the IR raises."""


class TypeRuleError(IRError):
    """Operands or attributes do not fit the shape rule of their op."""

    def __init__(self, message: str, op: Operation | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.op = op

    def __str__(self) -> str:
        location = self.op.location if self.op is not None else None
        return self.message if location is None else f"{location}: {self.message}"


class MissingDerivative(IRError):
    """An op without a derivative stands between the result and what is differentiated."""

    def __init__(self, op: Operation, reason: str = "") -> None:
        self.op = op
        self.reason = reason or op.not_differentiable
        where = f"{op.location}: " if op.location else ""
        why = f": {self.reason}" if self.reason else ""
        super().__init__(f"{where}the op `{op.name}` has no derivative{why}")


class MissingLowering(IRError):
    """An op that the target has no row for."""

    def __init__(self, op: Operation, target: str) -> None:
        self.op = op
        where = f"{op.location}: " if op.location else ""
        super().__init__(f"{where}the op `{op.name}` has no lowering to {target}")


class AssertionFailed(RuntimeError):
    """An assertion of a program does not hold; `location` is where it stands in the source."""

    def __init__(self, message: str, location: Location | None = None) -> None:
        where = f"{location}: " if location is not None else ""
        super().__init__(f"{where}assertion failed: {message}")
        self.message = message
        self.location = location


class VerifyError(IRError):
    """A module breaks an invariant of the IR."""


class SettingError(IRError):
    """An environment variable has a value that means nothing."""


class TextError(IRError):
    """A text is not the text form of a module; the message has line and column."""


class PassError(IRError):
    """A pass failed or gave a broken module; the message names the pass."""


class PluginError(IRError):
    """An extension could not be loaded; the message has its file and line."""
