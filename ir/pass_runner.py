"""Runs passes and does the chores around them: verifies, times, observes, names who is guilty."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mapsto.ir.core import Module
from mapsto.ir.errors import IRError, MissingDerivative, PassError, VerifyError
from mapsto.ir.passes.base import Pass
from mapsto.ir.value_check import find_difference
from mapsto.ir.verifier import verify

__all__ = ["Observer", "PassRunner", "PassTimes", "PrintAfter"]


class Observer:
    """Is told of each pass that has run; this one does nothing with it."""

    def after(self, pass_: Pass, module: Module, seconds: float) -> None:
        """Called with the module that the pass gave, once it is known to be well-formed."""


@dataclass(frozen=True)
class PrintAfter(Observer):
    """Writes the module after each pass of a name, or after every pass for the name `all`."""

    name: str
    text_of: Callable[[Module], str]
    write: Callable[[str], object] = print

    def after(self, pass_: Pass, module: Module, seconds: float) -> None:
        if self.name in ("all", pass_.name):
            self.write(f"// after {pass_.name} ({seconds * 1e3:.1f} ms)\n{self.text_of(module)}")


class PassTimes(Observer):
    """Collects how long each pass took: (name, seconds) in order."""

    def __init__(self) -> None:
        self.times: list[tuple[str, float]] = []

    def after(self, pass_: Pass, module: Module, seconds: float) -> None:
        self.times.append((pass_.name, seconds))


@dataclass(frozen=True)
class PassRunner:
    """A sequence of passes.

    `verify` checks the module after each pass.  `check_values` also evaluates every function
    before and after on random inputs, by the reference evaluator, which is slow on large shapes.
    `stop_after` is the name of the pass whose first run is the last.
    """

    passes: Sequence[Pass]
    verify: bool = True
    check_values: bool = False
    observer: Observer = field(default_factory=Observer)
    stop_after: str = ""

    def run(self, module: Module) -> Module:
        """The module after the passes.

        Raises PassError, which names the pass, where a pass fails, gives an ill-formed module or
        changes values; MissingDerivative, the one error that is the program's, as it is.
        """
        if self.verify:
            verify(module)
        for pass_ in self.passes:
            module = self._run_pass(pass_, module)
            if pass_.name == self.stop_after:
                break
        return module

    def _run_pass(self, pass_: Pass, module: Module) -> Module:
        start = time.perf_counter()
        result = _guarded(pass_, module)
        seconds = time.perf_counter() - start
        if self.verify:
            _check_form(pass_, result)
        if self.check_values:
            difference = find_difference(module, result)
            if difference is not None:
                raise PassError(f"the pass `{pass_.name}` changes values: {difference}")
        self.observer.after(pass_, result, seconds)
        return result


def _guarded(pass_: Pass, module: Module) -> Module:
    try:
        result = pass_.run(module)
    except MissingDerivative:
        raise
    except IRError as error:
        raise PassError(f"the pass `{pass_.name}` failed: {error}") from error
    except Exception as error:
        kind = type(error).__name__
        raise PassError(f"the pass `{pass_.name}` failed: {kind}: {error}") from error
    if not isinstance(result, Module):
        kind = type(result).__name__
        raise PassError(f"the pass `{pass_.name}` gave no module but an object of type {kind}")
    return result


def _check_form(pass_: Pass, module: Module) -> None:
    try:
        verify(module)
    except VerifyError as error:
        text = f"the pass `{pass_.name}` gave an ill-formed module: {error}"
        raise PassError(text) from error
    except Exception as error:
        # What a pass gives may be broken in ways that no check foresees.
        text = f"the pass `{pass_.name}` gave a broken module: {type(error).__name__}: {error}"
        raise PassError(text) from error
