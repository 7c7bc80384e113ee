"""Running rewrite rules on small functions and comparing both sides by the reference evaluator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mapsto import ir
from mapsto.ir.passes.base import Pass
from mapsto.ir.passes.dce import EliminateDeadCode
from mapsto.ir.verifier import verify

Body = Callable[..., ir.Value | Sequence[ir.Value]]

F32 = ir.DType.F32
N = ir.symbol("n")


def function(body: Body, *types: ir.TensorType) -> ir.Module:
    """The function that the body builds on arguments of these types."""
    block = ir.Block(types, [f"x{i}" for i in range(len(types))])
    build = ir.Builder(block)
    results = body(build, *block.arguments)
    returned = [results] if isinstance(results, ir.Value) else list(results)
    return ir.Module.of(ir.finish_function("f", build, returned))


def tensor(*shape: ir.Dim, dtype: ir.DType = F32) -> ir.TensorType:
    """A tensor type."""
    return ir.TensorType(dtype, shape)


def after(module: ir.Module, *passes: Pass) -> ir.Module:
    """The module after the passes and the removal of dead code; same values on random inputs."""
    changed = module
    for step in (*passes, EliminateDeadCode()):
        changed = step.run(changed)
    arguments = [_random(value.type, i) for i, value in enumerate(module["f"].arguments)]
    for before, result in zip(
        ir.evaluate(module, "f", arguments), ir.evaluate(changed, "f", arguments), strict=True
    ):
        np.testing.assert_allclose(result, before, rtol=1e-4, atol=1e-5)
    return changed


def names(module: ir.Module) -> list[str]:
    """The names of the operations of the function, without `return`."""
    return [op.name for op in module["f"].block.operations[:-1]]


def tree(block: ir.Block) -> list[object]:
    """The names of operations; those in the regions of one as lists after its name."""
    found: list[object] = []
    for op in block.operations[:-1]:
        found.append(op.name)
        found += [tree(region.block) for region in op.regions]
    return found


def left(module: ir.Module) -> list[object]:
    """What the function is left with, as a tree."""
    verify(module)
    return tree(module["f"].block)


def _random(type_: ir.TensorType, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    shape = [size if isinstance(size, int) else 3 for size in type_.shape]
    if type_.dtype is ir.DType.BOOL:
        return random.integers(0, 2, shape).astype(bool)
    if type_.dtype.is_float:
        return random.normal(size=shape).astype(type_.dtype.numpy)
    return random.integers(1, 5, shape).astype(type_.dtype.numpy)
