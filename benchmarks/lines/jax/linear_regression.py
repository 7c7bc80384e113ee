"""examples/linear_regression.mto in JAX."""

import jax
import jax.numpy as jnp
import numpy as np

data = np.load("examples/data/digits.npz")
x, x_test = (data[f"x_{part}"].astype(np.float32) / 16 for part in ("train", "test"))
y = np.eye(10, dtype=np.float32)[data["y_train"]]


# [counted]
def predict(w, b, x):
    return x @ w + b


def loss(w, b, x, y):
    return ((predict(w, b, x) - y) ** 2).sum() / (2 * len(x))


@jax.jit
def gradient_by_hand(w, b, x, y):
    e = predict(w, b, x) - y
    return x.T @ e / len(x), e.sum(0) / len(x)


gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))


@jax.jit
def descend(w, b, x, y):
    dw, db = gradient(w, b, x, y)
    return w - 0.1 * dw, b - 0.1 * db


w, b = jnp.zeros((64, 10)), jnp.zeros(10)
pairs = zip(gradient(w, b, x, y), gradient_by_hand(w, b, x, y), strict=True)
apart = max(jnp.abs(ours - by_hand).max() for ours, by_hand in pairs)
for _ in range(2001):
    w, b = descend(w, b, x, y)
accuracy = (predict(w, b, x_test).argmax(1) == data["y_test"]).mean()
# [end]
print(f"the two gradients differ by {apart:.1e} at most, test accuracy {accuracy:.4f}")
