"""examples/physics.mto in PyTorch."""

import itertools
import math

import torch
from torch import nn

torch.manual_seed(0)


# [counted]
class Field(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        sizes = [2, width, width, width]
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        hidden = [part for layer in layers for part in (layer, nn.Tanh())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, 1))

    def forward(self, x, t):
        rest = self.layers(torch.stack([x, t], 1))[:, 0]
        return -torch.sin(math.pi * x) + t * (1 - x**2) * rest


def derivative(u, x):
    return torch.autograd.grad(u.sum(), x, create_graph=True)[0]


def residual(net, x, t):
    x.requires_grad_()
    t.requires_grad_()
    u = net(x, t)
    u_x = derivative(u, x)
    return derivative(u, t) + u * u_x - 0.05 * derivative(u_x, x)


net = Field()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for step in range(8001):
    optimizer.zero_grad()
    loss = (residual(net, torch.rand(256) * 2 - 1, torch.rand(256)) ** 2).mean()
    loss.backward()
    optimizer.step()
    # [end]
    if step % 1000 == 0:
        print(f"step {step}: loss {loss:.5f}")
