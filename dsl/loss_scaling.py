"""Training in f16: the loss is scaled, and a step whose gradients overflow changes nothing.

The factor lives in the library's module `LossScale`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mapsto import ir
from mapsto.dsl.evaluation import apply, lookup
from mapsto.dsl.frame import Frame, SlotKey
from mapsto.dsl.instances import Instance, instantiate, member
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import as_tensor
from mapsto.dsl.values import (
    Argument,
    Builtin,
    Closure,
    Expected,
    Group,
    ModuleClass,
    Tensor,
    Truth,
    Value,
)

__all__ = ["LossScaling"]


class LossScaling:
    """The factor of the losses of a training, and what depends on it; `span` is the block's."""

    def __init__(self, frame: Frame, span: Span) -> None:
        module = lookup(frame, "LossScale", span)
        assert isinstance(module, ModuleClass)
        self.instance = instantiate(module, frame, span, ())
        self.span = span

    def scaled(self, loss: Closure) -> Value:
        """The loss times the factor; behind it, as a further result, the loss itself."""

        def run(
            frame: Frame, span: Span, arguments: tuple[Argument, ...], expected: Expected | None
        ) -> Value:
            value = apply(loss, frame, span, arguments)
            own = value if isinstance(value, Group) else Group((value,))
            names = ("scaled", *own.names) if own.names else ()
            scaled = self._call(frame, "scaled", own.items[0])
            return Group((scaled, *own.items), names=names)

        return Builtin(loss.title, "", run)

    def unscaled(self, frame: Frame, gradient: Tensor) -> Tensor:
        """The gradient of the loss, from that of the scaled one."""
        return self._call(frame, "unscaled", gradient)

    def all_finite(self, frame: Frame, gradients: Iterable[Tensor]) -> Tensor:
        """Whether no gradient has overflowed; the factor is adjusted to that."""
        found: Value = Truth(True)
        for gradient in gradients:
            found = self._call(frame, "is_finite", gradient, found)
        self._call(frame, "adjust", found)
        return as_tensor(frame, self.span, found)

    def restore_unless(
        self, frame: Frame, finite: Tensor, before: Mapping[SlotKey, ir.Value], kept: set[Instance]
    ) -> None:
        """Gives parameters and states the values of `before` where the gradients are not finite,
        but for the states of instances in `kept`."""
        session = frame.session
        for key, new in session.renewed.items():
            old = before.get(key, session.parameters[key])
            if new is not old:
                chosen = self._call(frame, "chosen", finite, Tensor(new), Tensor(old))
                session.renewed[key] = chosen.value
        for key, cell in session.states.items():
            old = before.get(key, cell.initial)
            if key[0] not in kept and cell.current is not old:
                chosen = self._call(frame, "chosen", finite, Tensor(cell.current), Tensor(old))
                cell.current = chosen.value

    def _call(self, frame: Frame, name: str, *values: Value) -> Tensor:
        method = member(self.instance, name, self.span)
        given = tuple([Argument(None, value, self.span) for value in values])
        return as_tensor(frame, self.span, apply(method, frame, self.span, given))
