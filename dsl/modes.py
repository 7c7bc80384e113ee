"""Training and evaluation: `train_mode(f)` and `eval_mode(f)` fix what `training` means in a map.

`training` is a truth value that is known during elaboration: true in the step of a `train` block,
false elsewhere.  It is decided by the call, not by the place of the definition: a layer that looks
at it is in training wherever the map that calls it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from mapsto.dsl.calling import Parameters, map_argument
from mapsto.dsl.evaluation import applies, apply
from mapsto.dsl.frame import Frame
from mapsto.dsl.source import Span
from mapsto.dsl.values import Argument, Builtin, Expected, Mode, ModeFlag, Value

__all__ = ["MODES"]

_SIGNATURE = Parameters("f", required=1)
_SUMMARIES = {
    True: "the map as it is in training: `training` is true in it",
    False: "the map as it is in evaluation: `training` is false in it",
}


@applies(Mode)
def _apply(
    function: Mode,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    with frame.session.mode(function.training):
        return apply(function.function, frame, span, arguments, expected)


def _builtin(name: str, training: bool) -> Builtin:
    def make(
        frame: Frame, span: Span, arguments: tuple[Argument, ...], expected: Expected | None
    ) -> Value:
        given = _SIGNATURE.match(name, arguments, span)
        return Mode(map_argument(given["f"]), training)

    return Builtin(name, _SUMMARIES[training], make, usage=_SIGNATURE.usage)


MODES: Mapping[str, Value] = {
    "training": ModeFlag(),
    "train_mode": _builtin("train_mode", True),
    "eval_mode": _builtin("eval_mode", False),
}
"""What the language has for modes, by name."""
