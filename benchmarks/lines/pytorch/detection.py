"""examples/detection.mto in PyTorch."""

import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.append(".")
from examples.detection import compose, detect, mean_average_precision

data = np.load("examples/data/mnist.npz")
scenes = compose(data["x_train"], data["y_train"], 8000, seed=1).targets()
x, label, box = (torch.tensor(scenes[name]) for name in ("x", "label", "box"))
held_out = compose(data["x_test"], data["y_test"], 500, seed=2)


# [counted]
def convolution(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU())


class Detector(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.layers = nn.Sequential(
            convolution(1, width),
            nn.MaxPool2d(2),
            convolution(width, 2 * width),
            nn.MaxPool2d(2),
            convolution(2 * width, 3 * width),
            nn.MaxPool2d(2),
            convolution(3 * width, 4 * width),
            convolution(4 * width, 4 * width),
            nn.Conv2d(4 * width, 15, 1),
        )

    def forward(self, x):
        y = self.layers(x[:, None] / 255).permute(0, 2, 3, 1)
        return y[..., :11], boxes(y[..., 11:])


def boxes(y):
    cell = torch.stack(torch.meshgrid(torch.arange(8), torch.arange(8), indexing="xy"), -1)
    centre = 8 * (cell + y[..., :2].sigmoid())
    size = 4 * y[..., 2:].clamp(-4, 4).exp()
    return torch.cat([centre - size, centre + size], -1)


def area(a):
    return (a[..., 2:] - a[..., :2]).prod(-1)


def overlap(a, b):
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    shared = sides.clamp(min=0).prod(-1)
    return shared / (area(a) + area(b) - shared)


def detection_loss(net, x, label, box):
    scores, found = net(x)
    missed = torch.where(label < 10, 1 - overlap(found, box), 0)
    return 64 * F.cross_entropy(scores.flatten(0, 2), label.flatten().long()) + missed.sum() / len(
        x
    )


torch.manual_seed(0)
net = Detector()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for step in range(1, 2501):
    chosen = torch.randint(len(x), (32,))
    optimizer.zero_grad()
    loss = detection_loss(net, x[chosen], label[chosen], box[chosen])
    loss.backward()
    optimizer.step()
    # [end]
    if step % 250 == 0:
        print(f"step {step}: loss {loss:.3f}")


@torch.no_grad()
def arrays(pixels):
    return [part.numpy() for part in net(torch.tensor(pixels))]


found = detect(arrays, held_out.pixels)
print(f"mean average precision {mean_average_precision(found, held_out):.3f}")
