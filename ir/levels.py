"""Which ops may stand where, from stage to stage of compilation.

- elaborated: every op but `kernel`;
- expanded: no `call` and no request for a derivative either;
- fused: kernels, ops that are lowered on their own, other views of memory and constant arrays; in a
  kernel what stands in an expanded function, but for ops that are lowered on their own.

What is said of a function's body holds of the regions of its ops as well, except for kernels.

Each step of lowering checks what it takes and what it gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from mapsto.ir.core import Block, Function, Operation, Trait
from mapsto.ir.errors import VerifyError
from mapsto.ir.ops.control import Kernel
from mapsto.ir.stages import is_external

__all__ = ["ELABORATED", "EXPANDED", "FUSED", "LEVELS", "Level", "check_level"]


@dataclass(frozen=True)
class Level:
    """A stage of compilation: which ops, beside terminators, stand in bodies of functions and of
    kernels, and what to say of others in a function's body."""

    name: str
    in_function: Callable[[Operation], bool]
    in_kernel: Callable[[Operation], bool]
    problem: str


def _is_no_kernel(op: Operation) -> bool:
    return not isinstance(op, Kernel)


def _is_expanded(op: Operation) -> bool:
    return _is_no_kernel(op) and not op.has(Trait.OPAQUE)


def _is_fused(op: Operation) -> bool:
    return isinstance(op, Kernel) or all(is_external(result) for result in op.results)


def _is_in_fused_kernel(op: Operation) -> bool:
    return _is_expanded(op) and not op.has(Trait.APART)


ELABORATED = Level("elaborated", _is_no_kernel, _is_no_kernel, "is made by a later stage")
EXPANDED = Level(
    "expanded",
    _is_expanded,
    _is_expanded,
    "has to be expanded by a pass: let `differentiate,inline,barriers` run",
)
FUSED = Level("fused", _is_fused, _is_in_fused_kernel, "has to be in a kernel")
LEVELS = (ELABORATED, EXPANDED, FUSED)


def check_level(function: Function, level: Level) -> None:
    """Raises VerifyError, which names the op and its source line, where an op of the function does
    not belong to the level."""
    _check_body(function, function.block, level)


def _check_body(function: Function, block: Block, level: Level) -> None:
    for op in block.operations:
        if not (op.has(Trait.TERMINATOR) or level.in_function(op)):
            _fail(function, op, level.problem)
        check = _check_kernel if isinstance(op, Kernel) else _check_body
        for region in op.regions:
            check(function, region.block, level)


def _check_kernel(function: Function, block: Block, level: Level) -> None:
    for op in block.operations:
        if not (op.has(Trait.TERMINATOR) or level.in_kernel(op)):
            _fail(function, op, "does not stand in a kernel")
        for region in op.regions:
            _check_kernel(function, region.block, level)


def _fail(function: Function, op: Operation, problem: str) -> NoReturn:
    where = f"{op.location}: " if op.location is not None else ""
    raise VerifyError(f"{where}`{op.name}` in @{function.name} {problem}")
