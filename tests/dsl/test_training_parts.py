"""What a training step may contain: gradients of several batches, and scaled losses."""

from __future__ import annotations

import numpy as np
from elaborating import initial_slots, run_slots

from mapsto import ir
from mapsto.dsl.program import Program
from mapsto.dsl.training import Gradients

TEXT = """
module Scale():
    param w: f32[2] ~ ones

    map (x: f32[n, 2]) -> f32[n]: x @ w

train Fit(net = Scale(), optimizer = SGD(lr=1.0)):
    loss(x: f32[n, 2]) = mean(net(x))
"""


def test_gradient_sum() -> None:
    sums = Program.loads(TEXT).instantiate("GradientSum")
    type = ir.TensorType(ir.DType.F32, (2,))
    methods = {name: sums.elaborate(name, {"g": type}) for name in ("add", "mean")}
    slots = {"total": np.zeros(2, np.float32), "count": np.zeros((), np.float32)}
    given = [np.float32([1, 2]), np.float32([3, 4]), np.float32([5, 9])]
    assert run_slots(methods["add"], slots, {"g": given[0]}) == 1
    assert run_slots(methods["add"], slots, {"g": given[1]}) == 2
    assert run_slots(methods["mean"], slots, {"g": given[2]}).tolist() == [3, 5]
    # It begins anew.
    assert run_slots(methods["mean"], slots, {"g": given[2]}).tolist() == [5, 9]


def test_a_step_with_the_gradients_that_were_kept() -> None:
    trainer = Program.loads(TEXT).trainer("Fit")
    types = {"x": ir.TensorType(ir.DType.F32, (ir.symbol("n"), 2))}
    keep = trainer.elaborate_step(types, gradients=Gradients.KEEP)
    use = trainer.elaborate_step(types, gradients=Gradients.USE_WITH_KEPT)
    assert not {spec.path for spec in keep.updated} & {"w"}
    assert [spec.path for spec in keep.states] == [
        "gradients.loss.w.total",
        "gradients.loss.w.count",
    ]
    slots = initial_slots(trainer)
    run_slots(keep, slots, {"x": np.float32([[1, 2]])})
    assert slots["w"].tolist() == [1, 1]
    run_slots(use, slots, {"x": np.float32([[3, 0]])})
    assert slots["w"].tolist() == [1 - 2, 1 - 1]


def test_loss_scale() -> None:
    scale = Program.loads(TEXT).instantiate("LossScale", {"first": 8.0, "longest": 2})
    truth, number = ir.TensorType(ir.DType.BOOL), ir.TensorType(ir.DType.F32)
    adjust = scale.elaborate("adjust", {"all_finite": truth})
    scaled = scale.elaborate("scaled", {"loss": number})
    slots = {"scale": np.full((), 8, np.float32), "good": np.zeros((), np.int32)}
    found = []
    for finite in (True, True, True, False, True, False, False, False, False, False):
        found.append(float(run_slots(adjust, slots, {"all_finite": np.bool_(finite)})))
    assert found == [8, 16, 16, 8, 8, 4, 2, 1, 1, 1]
    assert run_slots(scaled, slots, {"loss": np.float32(3)}) == 3


def test_finite_gradients() -> None:
    scale = Program.loads(TEXT).instantiate("LossScale")
    types = {"g": ir.TensorType(ir.DType.F32, (2,)), "others": ir.TensorType(ir.DType.BOOL)}
    is_finite = scale.elaborate("is_finite", types)
    for g, others, expected in (
        ([1, -1e38], True, True),
        ([1, 2], False, False),
        ([np.nan, 2], True, False),
        ([1, -np.inf], True, False),
    ):
        given = {"g": np.float32(g), "others": np.bool_(others)}
        assert run_slots(is_finite, {}, given) == expected
