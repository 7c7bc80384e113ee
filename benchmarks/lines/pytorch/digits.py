"""examples/digits.mto in PyTorch."""

import numpy as np
import torch
from torch import nn

data = np.load("examples/data/digits.npz")
x_train, x_test = (torch.tensor(data[f"x_{part}"]).float() for part in ("train", "test"))
y_train, y_test = (torch.tensor(data[f"y_{part}"]).long() for part in ("train", "test"))


# [counted]
class MLP(nn.Module):
    def __init__(self, hidden=128):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))

    def forward(self, x):
        return self.layers(x / 16)


torch.manual_seed(0)
net = MLP()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(20):
    for chosen in torch.randperm(len(x_train)).split(64):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x_train[chosen]), y_train[chosen])
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = (net(x_test).argmax(1) == y_test).float().mean()
    # [end]
    print(f"epoch {epoch + 1}: test accuracy {accuracy:.4f}")
