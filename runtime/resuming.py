"""Where a training stands, in the metadata of its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from mapsto.ir.core import Array
from mapsto.runtime.errors import CheckpointError
from mapsto.runtime.fit_options import FitOptions
from mapsto.runtime.history import History
from mapsto.runtime.observers import Observers

__all__ = ["Position", "read_position", "restore", "write_position"]

_FORMAT = "mapsto training 2"


@dataclass(slots=True)
class Position:
    """Finished epochs are in `history`; the rest is about the one after them."""

    history: History = field(default_factory=History)
    step: int = 0
    examples: int = 0
    totals: dict[str, float] = field(default_factory=dict)
    """Sums of each figure times the examples that it is a mean over."""
    seconds: float = 0.0
    steps: int = 0
    """Steps from the beginning of the training."""
    last_loss: float = 0.0

    def add(self, figures: Mapping[str, float], examples: int) -> None:
        """Takes the figures of a step."""
        self.steps += 1
        self.examples += examples
        self.last_loss = figures["loss"]
        for name, value in figures.items():
            self.totals[name] = self.totals.get(name, 0.0) + value * examples

    def means(self) -> dict[str, float]:
        """The figures over the examples of the epoch so far."""
        return {name: total / self.examples for name, total in self.totals.items()}

    def begin_epoch(self) -> None:
        """Forgets the epoch that is over."""
        self.step, self.examples, self.totals, self.seconds = 0, 0, {}, 0.0


def write_position(
    position: Position, identity: Mapping[str, str], options: FitOptions, observers: Observers
) -> dict[str, str]:
    """The metadata of a checkpoint."""
    counts = {"step": position.step, "examples": position.examples, "steps": position.steps}
    state = {
        **counts,
        "seconds": position.seconds,
        "totals": {name: total.hex() for name, total in position.totals.items()},
        "monitor": options.monitor.state(),
        "observers": observers.state(),
    }
    return {
        "format": _FORMAT,
        "data": json.dumps({"seed": str(options.seed), **_rhythm(options), **identity}),
        "position": json.dumps(state),
        "history": json.dumps(position.history.to_json()),
    }


def read_position(
    metadata: Mapping[str, str],
    identity: Mapping[str, str],
    options: FitOptions,
    observers: Observers,
) -> Position:
    """The position in the metadata; monitor and observers go on from what they were.

    Raises CheckpointError where it is no training's, or one with other data or another rhythm.
    """
    source = options.checkpoint
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(f"{source}: not a training checkpoint")
    try:
        known = json.loads(metadata["data"])
        state = json.loads(metadata["position"])
        history = History.from_json(json.loads(metadata["history"]))
        totals = {name: float.fromhex(total) for name, total in state["totals"].items()}
        counts = (int(state["step"]), int(state["examples"]))
        position = Position(history, *counts, totals, float(state["seconds"]), int(state["steps"]))
        _check_identity(known, {"seed": str(options.seed), **_rhythm(options), **identity}, source)
        options.monitor.restore(state["monitor"])
        observers.restore(state["observers"])
    except CheckpointError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{source}: damaged metadata: {error}") from None
    return position


def _rhythm(options: FitOptions) -> dict[str, str]:
    return {"accumulate": str(options.accumulate)}


def _check_identity(found: Mapping[str, str], wanted: Mapping[str, str], source: object) -> None:
    for name in dict.fromkeys([*wanted, *found]):
        if found.get(name) != wanted.get(name):
            made = f"was made with {name} {found.get(name, 'unknown')}"
            raise CheckpointError(f"{source}: {made}, not {wanted.get(name, 'unknown')}")


def restore(targets: Mapping[str, Array], arrays: Mapping[str, Array], source: str) -> None:
    """Copies arrays into the live ones of the same names; all of them or, on an error, none."""
    for name in sorted(set(targets) ^ set(arrays)):
        verb = "lacks" if name in targets else "has an unknown"
        raise CheckpointError(f"{source}: {verb} array `{name}`")
    for name, target in targets.items():
        found = arrays[name]
        if found.shape != target.shape or found.dtype != target.dtype:
            raise CheckpointError(
                f"{source}: array `{name}` is {found.dtype}{list(found.shape)},"
                f" expected {target.dtype}{list(target.shape)}"
            )
    for name, target in targets.items():
        target[...] = arrays[name]
