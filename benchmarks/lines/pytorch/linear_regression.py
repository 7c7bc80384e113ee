"""examples/linear_regression.mto in PyTorch."""

import numpy as np
import torch

data = np.load("examples/data/digits.npz")
x, x_test = (torch.tensor(data[f"x_{part}"]).float() / 16 for part in ("train", "test"))
y_test = torch.tensor(data["y_test"])
y = torch.eye(10)[torch.tensor(data["y_train"]).long()]


# [counted]
def predict(w, b, x):
    return x @ w + b


def loss(w, b, x, y):
    return ((predict(w, b, x) - y) ** 2).sum() / (2 * len(x))


def gradient_by_hand(w, b, x, y):
    e = predict(w, b, x) - y
    return x.T @ e / len(x), e.sum(0) / len(x)


def gradient(w, b, x, y):
    return torch.autograd.grad(loss(w, b, x, y), (w, b))


w, b = (torch.zeros(*shape, requires_grad=True) for shape in ((64, 10), (10,)))
pairs = zip(gradient(w, b, x, y), gradient_by_hand(w, b, x, y), strict=True)
apart = max((ours - by_hand).abs().max() for ours, by_hand in pairs)
for _ in range(2001):
    dw, db = gradient(w, b, x, y)
    with torch.no_grad():
        w -= 0.1 * dw
        b -= 0.1 * db
accuracy = (predict(w, b, x_test).argmax(1) == y_test).float().mean()
# [end]
print(f"the two gradients differ by {apart:.1e} at most, test accuracy {accuracy:.4f}")
