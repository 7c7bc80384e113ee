"""examples/mnist_cnn.mto in PyTorch."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

data = np.load("examples/data/mnist.npz")
x_train, x_test = (torch.tensor(data[f"x_{part}"]).float() for part in ("train", "test"))
y_train, y_test = (torch.tensor(data[f"y_{part}"]).long() for part in ("train", "test"))


# [counted]
class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, padding=1)
        self.second = nn.Conv2d(32, 64, 3, padding=1)
        self.hidden = nn.Linear(64 * 7 * 7, 128)
        self.head = nn.Linear(128, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(x[:, None] / 255)), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        return self.head(F.relu(self.hidden(x.flatten(1))))


torch.manual_seed(0)
net = CNN()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(5):
    for chosen in torch.randperm(len(x_train)).split(64):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x_train[chosen]), y_train[chosen])
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = (net(x_test).argmax(1) == y_test).float().mean()
    # [end]
    print(f"epoch {epoch + 1}: test accuracy {accuracy:.4f}")
