"""The steps of a lowered function as text, for people.

    entry last(w, h, xs) -> (result0) {
      scan {carried = 1, constants = 1, extent = 100} (w, h, xs) -> (result0) {
        body(w, h, x2) -> (result0) {
          ahead last.scan0.body.ahead0(w, ahead+0)
          last.scan0.body.kernel1(h, w, x2, result0, ahead+0)
        }
      }
    }

Tensors are written as where they are: arguments by name, results by number, others by their offset
in the arena.  A result that stands for an argument of the same name is an update in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count

from mapsto.ir.bodies import alias_pairs
from mapsto.ir.printer import attributes_text
from mapsto.lowering.buffers import Ahead, Arena, Argument, Place, Result
from mapsto.lowering.lowered import ApartCall, BodyPreparation, KernelCall, LoweredFunction

__all__ = ["outline_text"]

_INDENT = "  "


def outline_text(lowered: LoweredFunction) -> str:
    """The steps of a function and of the regions in it, indented."""
    return "\n".join([*_function_lines(lowered, f"entry {lowered.entry.name}"), ""])


def _function_lines(lowered: LoweredFunction, title: str) -> Iterator[str]:
    arguments = _names(lowered)
    aliases = dict(alias_pairs(lowered.function))
    numbers = count()
    results = [
        arguments[aliases[i]] if i in aliases else f"result{next(numbers)}"
        for i in range(len(lowered.function.results))
    ]
    yield f"{title}({', '.join(arguments)}) -> ({', '.join(results)}) {{"
    for call in lowered.preparation:
        yield f"{_INDENT}ahead {_preparation_text(call, arguments)}"
    for step in lowered.calls:
        if isinstance(step, KernelCall):
            yield f"{_INDENT}{_kernel_text(step, arguments)}"
        else:
            yield from (_INDENT + line for line in _apart_lines(step, arguments))
    for value, argument in lowered.plan.copies:
        source = _place_text(lowered.plan.place(value), arguments)
        yield f"{_INDENT}copy {source} -> {arguments[argument]}"
    yield "}"


def _apart_lines(call: ApartCall, arguments: list[str]) -> Iterator[str]:
    op = call.op
    places = [_place_text(place, arguments) for place in call.places]
    given, results = places[: len(op.operands)], places[len(op.operands) :]
    head = " ".join(filter(None, [op.name, attributes_text(op), f"({', '.join(given)})"]))
    head += f" -> ({', '.join(results)})" if results else ""
    if not call.bodies:
        yield head
        return
    yield f"{head} {{"
    for name, body in zip(op.region_names, call.bodies, strict=True):
        yield from (_INDENT + line for line in _function_lines(body, name))
    yield "}"


def _preparation_text(call: KernelCall | BodyPreparation, arguments: list[str]) -> str:
    if isinstance(call, KernelCall):
        return _kernel_text(call, arguments)
    places = (*call.arguments.values(), call.target)
    return f"{call.body.entry.name}({', '.join(_place_text(p, arguments) for p in places)})"


def _kernel_text(call: KernelCall, arguments: list[str]) -> str:
    places = (*call.places, *call.ahead)
    return f"{call.loops.name}({', '.join(_place_text(place, arguments) for place in places)})"


def _names(lowered: LoweredFunction) -> list[str]:
    """The names of the arguments, with numbers where one is there before."""
    names: list[str] = []
    for name, _ in lowered.entry.arguments:
        numbered = (f"{name}${number}" for number in count(1))
        names.append(next(n for n in chain([name], numbered) if n not in names))
    return names


def _place_text(place: Place, arguments: list[str]) -> str:
    match place:
        case Argument(number):
            return arguments[number]
        case Result(number):
            return f"result{number}"
        case Arena(offset):
            return f"arena+{offset}"
        case Ahead(offset):
            return f"ahead+{offset}"
    return "constant"
