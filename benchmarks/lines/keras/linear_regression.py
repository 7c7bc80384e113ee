"""examples/linear_regression.mto in Keras, on JAX for the gradient (KERAS_BACKEND=jax)."""

import jax
import keras
import numpy as np
from keras import ops

data = np.load("examples/data/digits.npz")
x, x_test = (data[f"x_{part}"].astype(np.float32) / 16 for part in ("train", "test"))
y, y_test = (np.eye(10, dtype=np.float32)[data[f"y_{part}"]] for part in ("train", "test"))

# [counted]
net = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10, kernel_initializer="zeros")])


def half_square(y, found):
    return ops.sum((found - y) ** 2, -1) / 2


def loss(weights, x, y):
    found, _ = net.stateless_call(weights, [], x)
    return ops.mean(half_square(y, found))


def gradient_by_hand(weights, x, y):
    w, b = weights
    e = x @ w + b - y
    return x.T @ e / len(x), e.sum(0) / len(x)


weights = [variable.value for variable in net.trainable_variables]
pairs = zip(jax.grad(loss)(weights, x, y), gradient_by_hand(weights, x, y), strict=True)
apart = max(abs(ours - by_hand).max() for ours, by_hand in pairs)
net.compile(optimizer=keras.optimizers.SGD(0.1), loss=half_square, metrics=["accuracy"])
net.fit(x, y, batch_size=len(x), epochs=2001, verbose=0)
_, accuracy = net.evaluate(x_test, y_test, verbose=0)
# [end]
print(f"the two gradients differ by {apart:.1e} at most, test accuracy {accuracy:.4f}")
