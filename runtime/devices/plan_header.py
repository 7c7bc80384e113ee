"""The plans of functions as a C header: tables that a loop over the steps reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["plan_header"]

_TYPES = """\
#ifndef MAPSTO_GPU_PLAN
#define MAPSTO_GPU_PLAN
#include <stddef.h>

typedef struct {
    const char *name;
    size_t bytes;
} mapsto_buffer;

/* A place in a buffer. */
typedef struct {
    int buffer;
    size_t offset;
} mapsto_place;

/* A launch of a kernel; without one, `bytes` to copy from place 1 to place 0, or to set to zero at
   place 0 where it is the only one. */
typedef struct {
    const char *kernel;
    unsigned grid[3], block[3], shared_bytes;
    size_t bytes;
    int count;
    const mapsto_place *places;
} mapsto_step;
#endif
"""

_WORDS_A_LINE = 6

Facts = Mapping[str, Any]


def plan_header(name: str, facts: Facts) -> str:
    """The header of a library of kernels of this name, for what the JSON file says."""
    lines = [f"/* What to launch of {facts['code']}, for {facts['target']}. */", "", _TYPES]
    for function, plan in facts["functions"].items():
        lines += _function(f"{name}_{function}", plan, facts["kernels"])
    return "\n".join(lines)


def _function(prefix: str, plan: Facts, kernels: Facts) -> Iterator[str]:
    buffers = _buffers(plan)
    yield f"enum {{ {', '.join(_enumerators(prefix, buffers))}, {prefix}_BUFFERS }};"
    yield ""
    lines = [f'    {{"{name}", {size}}},' for name, size in buffers]
    yield from _array(f"mapsto_buffer {prefix}_buffers", lines)
    places: list[str] = []
    steps: list[str] = []
    positions = {name: number for number, (name, _) in enumerate(buffers)}
    for step in plan["steps"]:
        words = [_place(place, positions) for place in _places(step)]
        steps.append(f"    {_step(step, kernels, len(words), f'{prefix}_places + {len(places)}')},")
        places += words
    rows = range(0, len(places), _WORDS_A_LINE)
    lines = [f"    {', '.join(places[start : start + _WORDS_A_LINE])}," for start in rows]
    yield from _array(f"mapsto_place {prefix}_places", lines)
    yield from _array(f"mapsto_step {prefix}_steps", steps)
    yield f"enum {{ {prefix}_STEPS = {len(steps)} }};"
    yield ""


def _array(declaration: str, lines: Sequence[str]) -> Iterator[str]:
    """A constant array; C has none without elements."""
    yield f"static const {declaration}[] = {{"
    yield from lines or ["    {0},"]
    yield "};"


def _buffers(plan: Facts) -> list[tuple[str, int]]:
    """Names and bytes of all buffers, in order; each takes at least a byte."""
    found = [(b["name"], b["bytes"]) for b in (*plan["arguments"], *plan["results"])]
    found += [("workspace", plan["workspace_bytes"]), ("error", 4)]
    found += [(constant["name"], constant["bytes"]) for constant in plan["constants"]]
    return [(name, max(1, size)) for name, size in found]


def _enumerators(prefix: str, buffers: Sequence[tuple[str, int]]) -> list[str]:
    return [f"{prefix}_{re.sub(r'[^0-9A-Za-z]', '_', name)}" for name, _ in buffers]


def _places(step: Facts) -> Sequence[Facts]:
    if "kernel" in step:
        found: Sequence[Facts] = step["arguments"]
        return found
    if "copy" in step:
        return [step["copy"]["to"], step["copy"]["from"]]
    return [step["zero"]["to"]]


def _place(place: Facts, positions: Mapping[str, int]) -> str:
    return f"{{{positions[place['buffer']]}, {place.get('offset', 0)}}}"


def _step(step: Facts, kernels: Facts, count: int, places: str) -> str:
    if "kernel" not in step:
        size = (step.get("copy") or step["zero"])["bytes"]
        return f"{{NULL, {{0, 0, 0}}, {{0, 0, 0}}, 0, {size}, {count}, {places}}}"
    kernel = kernels[step["kernel"]]
    grid, block = (", ".join(map(str, extent)) for extent in (step["grid"], kernel["block"]))
    shared = kernel["dynamic_shared_bytes"]
    return f'{{"{step["kernel"]}", {{{grid}}}, {{{block}}}, {shared}, 0, {count}, {places}}}'
