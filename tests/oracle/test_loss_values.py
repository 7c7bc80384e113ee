"""Losses and their gradients as PyTorch has them, or as the published formula written in it: to
1e-5 in f32, to 1e-10 in f64."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from loss_cases import CASES, differentiable, inputs, program

import mapsto as mt

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

F = torch.nn.functional
TOLERANCE = {"f32": 1e-5, "f64": 1e-10}
NUMPY = {"f32": np.float32, "f64": np.float64}


def quantile_loss(x: Any, t: Any, q: float) -> Any:
    return torch.where(t > x, q * (t - x), (1 - q) * (x - t)).mean()


def focal(x: Any, t: Any, alpha: float, gamma: float) -> Any:
    p = torch.sigmoid(x)
    positive = -alpha * t * (1 - p) ** gamma * torch.log(p)
    negative = -(1 - alpha) * (1 - t) * p**gamma * torch.log(1 - p)
    return (positive + negative).mean()


def info_nce(a: Any, b: Any, temperature: float) -> Any:
    logits = F.normalize(a) @ F.normalize(b).T / temperature
    return F.cross_entropy(logits, torch.arange(len(a)))


def dice(x: Any, t: Any) -> Any:
    common = (x * t).sum((1, 2))
    return (1 - (2 * common + 1) / (x.sum((1, 2)) + t.sum((1, 2)) + 1)).mean()


def contrastive(a: Any, b: Any, same: Any, margin: float) -> Any:
    r = F.pairwise_distance(a, b)
    return (0.5 * (same * r**2 + (1 - same) * (margin - r).clamp(min=0) ** 2)).mean()


def box_sizes(x: Any) -> tuple[Any, Any]:
    return x[:, 2] - x[:, 0], x[:, 3] - x[:, 1]


def iou_and_union(x: Any, t: Any) -> tuple[Any, Any]:
    low, high = torch.maximum(x[:, :2], t[:, :2]), torch.minimum(x[:, 2:], t[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    union = torch.stack([a.prod(0) for a in map(torch.stack, map(box_sizes, (x, t)))]).sum(0)
    union = union - common
    return common / (union + 1e-7), union


def hull(x: Any, t: Any) -> Any:
    return torch.maximum(x[:, 2:], t[:, 2:]) - torch.minimum(x[:, :2], t[:, :2])


def giou_loss(x: Any, t: Any) -> Any:
    iou, union = iou_and_union(x, t)
    around = hull(x, t).prod(1)
    return (1 - iou + (around - union) / (around + 1e-7)).mean()


def diou_losses(x: Any, t: Any) -> Any:
    apart = (x[:, :2] + x[:, 2:] - t[:, :2] - t[:, 2:]) / 2
    iou, _ = iou_and_union(x, t)
    return 1 - iou + (apart**2).sum(1) / ((hull(x, t) ** 2).sum(1) + 1e-7)


def ciou_loss(x: Any, t: Any) -> Any:
    slopes = [torch.atan(width / height) for width, height in map(box_sizes, (x, t))]
    v = 4 / torch.pi**2 * (slopes[1] - slopes[0]) ** 2
    iou, _ = iou_and_union(x, t)
    alpha = (v / (1 - iou + v + 1e-7)).detach()
    return (diou_losses(x, t) + alpha * v).mean()


THEIRS: Mapping[str, Callable[..., Any]] = {
    "mse(x, t)": F.mse_loss,
    'mse(x, t, reduction="sum")': lambda x, t: F.mse_loss(x, t, reduction="sum"),
    'sum(w * mse(x, t, reduction="none"))': lambda x, t, w: (
        w * F.mse_loss(x, t, reduction="none")
    ).sum(),
    "mae(x, t)": F.l1_loss,
    "huber(x, t)": F.huber_loss,
    "huber(x, t, delta=0.7)": lambda x, t: F.huber_loss(x, t, delta=0.7),
    "smooth_l1(x, t)": F.smooth_l1_loss,
    "smooth_l1(x, t, beta=0.4)": lambda x, t: F.smooth_l1_loss(x, t, beta=0.4),
    "log_cosh(x, t)": lambda x, t: torch.log(torch.cosh(x - t)).mean(),
    "quantile_loss(x, t, quantile=0.9)": lambda x, t: quantile_loss(x, t, 0.9),
    "gaussian_nll(x, t, v)": F.gaussian_nll_loss,
    "gaussian_nll(x, t, v, eps=0.8, full=true)": lambda x, t, v: F.gaussian_nll_loss(
        x, t, v, eps=0.8, full=True
    ),
    "poisson_nll(x, t)": F.poisson_nll_loss,
    "binary_cross_entropy(x, t)": F.binary_cross_entropy_with_logits,
    "binary_cross_entropy(x, t, pos_weight=2.5)": lambda x, t: F.binary_cross_entropy_with_logits(
        x, t, pos_weight=torch.tensor(2.5, dtype=x.dtype)
    ),
    "binary_cross_entropy(x, t, pos_weight=w)": lambda x, t, w: F.binary_cross_entropy_with_logits(
        x, t, pos_weight=w
    ),
    "focal(x, t)": lambda x, t: focal(x, t, 0.25, 2),
    "focal(x, t, alpha=0.6, gamma=1.5)": lambda x, t: focal(x, t, 0.6, 1.5),
    "cross_entropy(x, y)": F.cross_entropy,
    "cross_entropy(30 * x, y)": lambda x, y: F.cross_entropy(30 * x, y),
    "cross_entropy(x, y, weight=w)": F.cross_entropy,
    "cross_entropy(x, y, ignore_index=2)": lambda x, y: F.cross_entropy(x, y, ignore_index=2),
    "cross_entropy(x, y, label_smoothing=0.2)": lambda x, y: F.cross_entropy(
        x, y, label_smoothing=0.2
    ),
    "cross_entropy(x, y, w, ignore_index=2, label_smoothing=0.2)": lambda x, y, w: F.cross_entropy(
        x, y, w, ignore_index=2, label_smoothing=0.2
    ),
    'cross_entropy(x, y, w, label_smoothing=0.2, reduction="sum")': lambda x, y, w: F.cross_entropy(
        x, y, w, label_smoothing=0.2, reduction="sum"
    ),
    'sum(u * cross_entropy(x, y, reduction="none"))': lambda x, y, u: (
        u * F.cross_entropy(x, y, reduction="none")
    ).sum(),
    'sum(u * cross_entropy(x, y, w, 2, 0.1, "none"))': lambda x, y, w, u: (
        u * F.cross_entropy(x, y, w, ignore_index=2, label_smoothing=0.1, reduction="none")
    ).sum(),
    "nll(log_softmax(x), y)": lambda x, y: F.nll_loss(F.log_softmax(x, -1), y),
    "nll(x, y, w, ignore_index=2)": lambda x, y, w: F.nll_loss(x, y, w, ignore_index=2),
    "soft_cross_entropy(x, t)": F.cross_entropy,
    "soft_cross_entropy(x, t, label_smoothing=0.1, weight=w)": lambda x, t, w: F.cross_entropy(
        x, t, w, label_smoothing=0.1
    ),
    "kl_divergence(log_softmax(x), t)": lambda x, t: F.kl_div(
        F.log_softmax(x, -1), t, reduction="batchmean"
    ),
    "kl_divergence(x, u)": lambda x, u: F.kl_div(x, u, reduction="batchmean"),
    "hinge(x, t)": lambda x, t: (1 - x * t).clamp(min=0).mean(),
    "multi_margin(x, y)": F.multi_margin_loss,
    "multi_margin(x, y, margin=2, p=2)": lambda x, y: F.multi_margin_loss(x, y, p=2, margin=2),
    "dice(x, t)": dice,
    "ctc(log_softmax(x), y, m, k)": lambda x, y, m, k: F.ctc_loss(F.log_softmax(x, -1), y, m, k),
    'ctc(log_softmax(x), y, m, k, blank=4, reduction="sum")': lambda x, y, m, k: F.ctc_loss(
        F.log_softmax(x, -1), y, m, k, blank=4, reduction="sum"
    ),
    "cosine_loss(a, b)": lambda a, b: (1 - F.cosine_similarity(a, b)).mean(),
    "cosine_embedding(a, b, t, margin=0.1)": lambda a, b, t: F.cosine_embedding_loss(
        a, b, t, margin=0.1
    ),
    "triplet(a, b, c)": F.triplet_margin_loss,
    "triplet(a, b, c, margin=3)": lambda a, b, c: F.triplet_margin_loss(a, b, c, margin=3),
    "contrastive(a, b, t, margin=4)": lambda a, b, t: contrastive(a, b, t, 4),
    "info_nce(a, b)": lambda a, b: info_nce(a, b, 0.07),
    "info_nce(a, b, temperature=0.5, symmetric=true)": lambda a, b: (
        (info_nce(a, b, 0.5) + info_nce(b, a, 0.5)) / 2
    ),
    "bayesian_ranking(x, z)": lambda x, z: -torch.log(torch.sigmoid(x - z)).mean(),
    "margin_ranking(x, z, t, margin=0.5)": lambda x, z, t: F.margin_ranking_loss(
        x, z, t, margin=0.5
    ),
    "iou_loss(x, t)": lambda x, t: (1 - iou_and_union(x, t)[0]).mean(),
    "giou_loss(x, t)": giou_loss,
    "giou_loss(x + 2, t)": lambda x, t: giou_loss(x + 2, t),
    "diou_loss(x, t)": lambda x, t: diou_losses(x, t).mean(),
    "ciou_loss(x, t)": ciou_loss,
}


def assert_close(found: Any, expected: "torch.Tensor", dtype: str) -> None:
    wanted = expected.detach().numpy()
    assert found.dtype == wanted.dtype
    limit = TOLERANCE[dtype] * max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(found, wanted, rtol=TOLERANCE[dtype], atol=limit)


def as_tensor(array: np.ndarray) -> "torch.Tensor":
    return torch.tensor(array, dtype=torch.int64 if array.dtype == np.int32 else None)


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
@pytest.mark.parametrize("text", CASES)
def test_value_and_gradients(text: str, dtype: str) -> None:
    arrays = [x if x.dtype == np.int32 else x.astype(NUMPY[dtype]) for x in inputs(text).values()]
    positions = differentiable(text)
    tensors = [as_tensor(array) for array in arrays]
    for i in positions:
        tensors[i].requires_grad_()
    loss = THEIRS[text](*tensors)
    loss.backward()
    value_and_gradients = mt.value_and_grad(mt.loads(program(text, dtype)).value, positions)
    value, gradients = value_and_gradients(*arrays)
    assert_close(value, loss, dtype)
    for i, gradient in zip(positions, gradients, strict=True):
        assert_close(gradient, tensors[i].grad, dtype)


def test_every_case_is_compared() -> None:
    assert set(THEIRS) == set(CASES)
