"""What the reference evaluator takes from its arguments; the ops have tests of their own."""

from __future__ import annotations

import numpy as np
import pytest

from mapsto import ir
from mapsto.ir.dims import Dim, symbol
from mapsto.ir.evaluator import infer_sizes
from mapsto.ir.types import DType, TensorType

h, w = symbol("h"), symbol("w")


def function(*shapes: tuple[Dim, ...]) -> ir.Function:
    """A function of tensors of these shapes."""
    types = [TensorType(DType.F32, shape) for shape in shapes]
    builder = ir.Builder(ir.Block(types, [f"x{i}" for i in range(len(types))]))
    return ir.finish_function("f", builder, builder.block.arguments)


def sizes(shapes: list[tuple[Dim, ...]], *found: tuple[int, ...]) -> dict[str, int]:
    return infer_sizes(function(*shapes), [np.zeros(shape) for shape in found])


def test_sizes_stand_alone_or_in_a_linear_dimension() -> None:
    assert sizes([(h, 3)], (4, 3)) == {"h": 4}
    assert sizes([(2 * h + 1, 3)], (7, 3)) == {"h": 3}
    assert sizes([(h * w, 2 * w), (w,)], (15, 10), (5,)) == {"h": 3, "w": 5}
    assert sizes([(h - 2,)], (0,)) == {"h": 2}


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        ([(h, h)], [(3, 4)]),
        ([(2 * h,)], [(7,)]),
        ([(2 * h, h)], [(6, 4)]),
        ([(3,)], [(4,)]),
        ([(h,)], [(4, 4)]),
    ],
)
def test_shapes_that_disagree(shapes: list[tuple[Dim, ...]], found: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="argument x0: "):
        sizes(shapes, *found)
