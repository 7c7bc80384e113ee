"""How many kernels the training step of the digits example takes, and what they need of memory."""

from pathlib import Path

import pytest

import mapsto as mt
from mapsto.compiler import Options, lowered
from mapsto.ir.core import Operation
from mapsto.ir.dims import symbol
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.control import Kernel
from mapsto.ir.types import DType, TensorType
from mapsto.lowering.driver import LoweredFunction

DIGITS = Path(__file__).parents[2] / "examples" / "digits.mto"


@pytest.fixture(scope="module", params=[64, symbol("n")], ids=str)
def step(request: pytest.FixtureRequest) -> LoweredFunction:
    """The step, for a batch of 64 and for one of any size."""
    trainer = mt.load(DIGITS).Digits().inner
    n = request.param
    types = {"x": TensorType(DType.F32, (n, 64)), "y": TensorType(DType.I32, (n,))}
    elaborated = trainer.elaborate_step(types)
    return lowered(elaborated, Options()).functions[elaborated.entry]


def kernels(step: LoweredFunction) -> list[Kernel]:
    return [op for op in step.function.block.operations if isinstance(op, Kernel)]


def products(kernel: Kernel) -> list[Operation]:
    ops = kernel.regions[0].block.operations
    return [op for op in ops if isinstance(op, Contract) and len(op.operands) == 2]


def test_the_step_takes_ten_kernels(step: LoweredFunction) -> None:
    """The scaled images, which two products read; two layers; the softmax cross entropy with its
    gradient; the gradient of the hidden layer; for each parameter one kernel that computes its
    gradient and updates it by Adam; the loss and the step counts."""
    assert len(kernels(step)) == 10


def test_five_of_them_are_matrix_products(step: LoweredFunction) -> None:
    assert [len(products(kernel)) for kernel in kernels(step)].count(1) == 5


def test_parameters_and_moments_are_updated_in_place(step: LoweredFunction) -> None:
    assert not step.plan.copies


def test_the_arena_holds_what_is_alive_at_one_time(step: LoweredFunction) -> None:
    if isinstance(step.plan.arena_bytes, int):
        assert step.plan.arena_bytes == step.plan.live_bytes


@pytest.mark.parametrize("n", [1, 2])
def test_what_follows_a_convolution_is_computed_with_it(n: int) -> None:
    """For one image as for several."""
    library = mt.loads("""
map filtered(x: f32[n, 8, 9, 9], w: f32[16, 8, 3, 3], b: f32[16]) -> f32[n, 16, 9, 9]:
    relu(conv2d(x, w, padding=1) * reshape(b, [16, 1, 1]))
""")
    shapes = {"x": (n, 8, 9, 9), "w": (16, 8, 3, 3), "b": (16,)}
    types = {name: TensorType(DType.F32, shape) for name, shape in shapes.items()}
    elaborated = library.filtered.elaborate(types, {})
    (kernel,) = kernels(lowered(elaborated, Options()).functions[elaborated.entry])
    assert len(products(kernel)) == 1
