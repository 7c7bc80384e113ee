"""Which passes run, in which order, and why; and pipelines as text."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mapsto.ir.errors import PassError
from mapsto.ir.passes import (
    fold,  # noqa: F401 (registers itself)
    fuse,  # noqa: F401
)
from mapsto.ir.passes.barriers import RemoveBarriers
from mapsto.ir.passes.base import Pass, registered_passes
from mapsto.ir.passes.canonicalize import Canonicalize
from mapsto.ir.passes.contractions import Contractions
from mapsto.ir.passes.cse import EliminateCommonSubexpressions
from mapsto.ir.passes.dce import EliminateDeadCode
from mapsto.ir.passes.differentiate import Differentiate
from mapsto.ir.passes.flatten_if import FlattenIf
from mapsto.ir.passes.inline import Inline
from mapsto.ir.passes.loop_contractions import LoopContractions
from mapsto.ir.passes.loops import Loops
from mapsto.ir.passes.masks import DeriveMasks
from mapsto.ir.rewriting import registered_patterns

__all__ = [
    "DEFAULT",
    "ORDER",
    "OrderConstraint",
    "find_pass",
    "order_violations",
    "parse_pipeline",
]

DEFAULT: tuple[Pass, ...] = (
    # First: a custom gradient belongs to a call, so calls must still be there.
    Differentiate(),
    # Derivatives of called functions are calls as well; what follows sees one body.
    Inline(),
    # Differentiation leaves values that no result needs: the less there is, the quicker the rest.
    EliminateDeadCode(),
    # Equal computations have to look equal before they can be shared ...
    Canonicalize(),
    EliminateCommonSubexpressions(),
    # What is known of loops and branches shows in canonical forms; rules see more of what leaves
    # them, and of branches that become selections.
    Loops(),
    # Before contractions take in views and turn products without a sum into other operations.
    LoopContractions(),
    FlattenIf(),
    # ... and contractions take in what only they use, which sharing decides.
    Contractions(),
    # Contractions of one product by different ways end up the same.
    EliminateCommonSubexpressions(),
    # Fewer values are kept for the backward pass.
    DeriveMasks(),
    # What is computed twice on purpose is no longer in danger of being shared.
    RemoveBarriers(),
    # Last: the passes before leave what they have replaced.
    EliminateDeadCode(),
)
"""From elaborated programs to what fusion takes."""


@dataclass(frozen=True)
class OrderConstraint:
    """Where both passes run, `after` runs once more behind the last `before`."""

    before: str
    after: str
    reason: str


ORDER: tuple[OrderConstraint, ...] = (
    OrderConstraint(
        "differentiate", "inline", "the custom gradient of a call is lost with the call"
    ),
    OrderConstraint(
        "inline", "canonicalize", "a call hides what the arguments are, and takes no rule"
    ),
    OrderConstraint(
        "canonicalize", "cse", "equal values that are written differently are not shared"
    ),
    OrderConstraint(
        "canonicalize", "contractions", "contractions match products and views in canonical form"
    ),
    OrderConstraint("inline", "loops", "a call hides that it computes the same at every step"),
    OrderConstraint("canonicalize", "loops", "a condition is known once it is folded"),
    OrderConstraint("loops", "flatten-if", "branches are cheap once they see what is known"),
    OrderConstraint("canonicalize", "loop-contractions", "sums over steps are canonical sums"),
    OrderConstraint("loop-contractions", "contractions", "they take in views of what is stacked"),
    OrderConstraint("loops", "contractions", "contractions take in what leaves a loop"),
    OrderConstraint("loops", "dce", "what left a loop stays behind where nothing uses it"),
    OrderConstraint("flatten-if", "contractions", "what was in branches takes canonical forms"),
    OrderConstraint("flatten-if", "masks", "selections clamp"),
    OrderConstraint("cse", "masks", "the uses of a mask are those of one comparison"),
    OrderConstraint("cse", "barriers", "what is computed again would be kept instead"),
    OrderConstraint("barriers", "fuse", "kernels hold no barriers"),
    OrderConstraint("masks", "dce", "the comparison before stays behind"),
    OrderConstraint("contractions", "dce", "views that were taken into a contraction stay behind"),
    OrderConstraint("cse", "dce", "the second of two equal operations stays behind"),
    OrderConstraint("fold", "dce", "the operands of what was folded stay behind"),
    OrderConstraint("inline", "fuse", "kernels hold no calls"),
    OrderConstraint("contractions", "fuse", "the rules see a body, not the kernels in it"),
    OrderConstraint("dce", "fuse", "what nothing needs would be written to memory"),
)

_ITEM = re.compile(r"(?P<remove>-?)(?P<name>[A-Za-z0-9_][\w.-]*)(?:\{(?P<options>[^{}]*)\})?")


def order_violations(passes: Sequence[Pass]) -> list[OrderConstraint]:
    """The constraints that a pipeline breaks."""
    last = {pass_.name: position for position, pass_ in enumerate(passes)}
    return [
        constraint
        for constraint in ORDER
        if {constraint.before, constraint.after} <= last.keys()
        and last[constraint.before] > last[constraint.after]
    ]


def parse_pipeline(text: str) -> tuple[Pass, ...]:
    """The passes that a text such as `default,my-pass{limit=3},-cse` names.

    `default` stands for the default pipeline, `-name` takes out the passes of that name so far,
    and a pattern's name for the pass that applies it alone.  Raises PassError where a name or an
    option is not known, with the most similar one that is.
    """
    passes: list[Pass] = []
    for item in _split(text):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise PassError(f"`{item}` is no pass; write name, -name or name{{option=value}}")
        if match["remove"]:
            passes = _without(passes, match)
        elif match["name"] == "default" and match["options"] is None:
            passes += DEFAULT
        else:
            passes.append(_with_options(find_pass(match["name"]), match["options"] or ""))
    return tuple(passes)


def find_pass(name: str) -> type[Pass]:
    """The pass, or the pattern as a pass, of this name; PassError with a suggestion for others."""
    known = registered_passes().get(name)
    if known is not None:
        return known
    pattern = registered_patterns().get(name)
    if pattern is not None:
        return pattern.as_pass()
    candidates = ["default", *registered_passes(), *registered_patterns()]
    raise PassError(f"no pass is named `{name}`{_suggestion(name, candidates)}")


def _split(text: str) -> Iterator[str]:
    """The items between commas, but for commas in braces."""
    for item in re.split(r",(?![^{]*\})", text):
        if item.strip():
            yield item.strip()


def _without(passes: list[Pass], match: re.Match[str]) -> list[Pass]:
    name = match["name"]
    kept = [] if name == "default" else [pass_ for pass_ in passes if pass_.name != name]
    if len(kept) == len(passes):
        names = [pass_.name for pass_ in passes]
        raise PassError(f"`-{name}` takes out no pass before it{_suggestion(name, names)}")
    return kept


def _with_options(record: type[Pass], options: str) -> Pass:
    fields = {field.name: field for field in dataclasses.fields(record)}
    types = typing.get_type_hints(record) if fields else {}
    values: dict[str, object] = {}
    for option in filter(None, (part.strip() for part in options.split(","))):
        name, _, value = (part.strip() for part in option.partition("="))
        if name not in fields:
            hint = _suggestion(name, fields) if fields else ", which has none"
            raise PassError(f"no option `{name}` of the pass `{record.name}`{hint}")
        values[name] = _option_value(f"{record.name}{{{name}}}", value, types[name])
    try:
        return record(**values)
    except Exception as error:
        raise PassError(f"the pass `{record.name}` does not take {{{options}}}: {error}") from error


def _option_value(option: str, text: str, type_: object) -> object:
    if type_ is bool:
        if text not in ("true", "false"):
            raise PassError(f"the option {option} is true or false, not `{text}`")
        return text == "true"
    if type_ not in (int, float):
        return text
    try:
        return int(text) if type_ is int else float(text)
    except ValueError as error:
        kind = "an integer" if type_ is int else "a number"
        raise PassError(f"the option {option} is {kind}, not `{text}`") from error


def _suggestion(name: str, candidates: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(candidates), n=1)
    return f"; did you mean `{close[0]}`?" if close else ""
