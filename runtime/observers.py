"""Whoever is told how a training goes: a progress bar, lines of text, callbacks of the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from mapsto.runtime.history import Epoch, Evaluation

__all__ = ["Callback", "Observer", "Observers"]


class Observer(Protocol):
    """Is told of progress.  A method that returns True ends the training after what it was told of.

    An observer may leave out methods.  One with `state()` and `restore(state)`, a value that JSON
    can hold, is saved in checkpoints and resumed from them.
    """

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> object:
        """After each step; steps count from 1, `steps` is 0 where a stream does not say."""

    def on_epoch(self, epoch: Epoch) -> object:
        """After each epoch."""


Callback = Callable[[Epoch], object] | Observer | object
"""A function of each finished epoch, or an observer."""

_METHODS = ("on_step", "on_epoch", "on_evaluation")


class Observers:
    """Several observers as one.  Raises TypeError for what is neither function nor observer."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self._callbacks = list(callbacks)
        for callback in self._callbacks:
            if not callable(callback) and not any(hasattr(callback, name) for name in _METHODS):
                raise TypeError(f"{callback!r} is no callback: it has none of {_METHODS}")
        self._step = self._methods("on_step")
        self._epoch = self._methods("on_epoch")
        self._epoch += [c for c in self._callbacks if callable(c) and not hasattr(c, "on_epoch")]
        self._evaluation = self._methods("on_evaluation")

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> bool:
        """Tells all; whether one wants to stop."""
        return True in [told(epoch, step, steps, loss) for told in self._step]

    def on_epoch(self, epoch: Epoch) -> bool:
        """Tells all; whether one wants to stop."""
        return True in [told(epoch) for told in self._epoch]

    def on_evaluation(self, evaluation: Evaluation) -> bool:
        """Tells all of an evaluation inside an epoch; whether one wants to stop."""
        return True in [told(evaluation) for told in self._evaluation]

    def state(self) -> dict[str, Any]:
        """The states of those that have one, by their position."""
        with_state = ((str(i), c) for i, c in enumerate(self._callbacks) if hasattr(c, "state"))
        return {position: callback.state() for position, callback in with_state}

    def restore(self, states: Mapping[str, Any]) -> None:
        """Gives each its state back, where it has one."""
        for position, callback in enumerate(self._callbacks):
            if hasattr(callback, "restore") and str(position) in states:
                callback.restore(states[str(position)])

    def _methods(self, name: str) -> list[Callable[..., object]]:
        return [getattr(c, name) for c in self._callbacks if hasattr(c, name)]
