"""examples/custom_layer.mto in PyTorch."""

import numpy as np
import torch
from torch import nn

data = np.load("examples/data/digits.npz")
x_train, x_test = (torch.tensor(data[f"x_{part}"]).float() for part in ("train", "test"))
y_train, y_test = (torch.tensor(data[f"y_{part}"]).long() for part in ("train", "test"))


# [counted]
class Quantize(torch.autograd.Function):
    @staticmethod
    def forward(context, x, step):
        context.save_for_backward(x, step)
        return step * torch.clip(torch.round(x / step), -4, 3)

    @staticmethod
    def backward(context, dy):
        x, step = context.saved_tensors
        inside = (x >= -4 * step) & (x <= 3 * step)
        return torch.where(inside, dy, 0), None


class Quantized(nn.Module):
    def __init__(self, inputs, units):
        super().__init__()
        self.w = nn.Parameter(torch.empty(inputs, units))
        self.b = nn.Parameter(torch.zeros(units))
        nn.init.xavier_uniform_(self.w)

    def forward(self, x):
        step = self.w.detach().abs().max() / 4
        return x @ Quantize.apply(self.w, step) + self.b


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(Quantized(64, 128), nn.ReLU(), Quantized(128, 10))

    def forward(self, x):
        return self.layers(x / 16)


torch.manual_seed(0)
net = Net()
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
