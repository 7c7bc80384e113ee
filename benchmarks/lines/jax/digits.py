"""examples/digits.mto in JAX, with Flax and Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

data = np.load("examples/data/digits.npz")
x_train, x_test = (data[f"x_{part}"].astype(np.float32) for part in ("train", "test"))
y_train, y_test = (data[f"y_{part}"] for part in ("train", "test"))


# [counted]
class MLP(nn.Module):
    hidden: int = 128

    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.Dense(self.hidden)(x / 16)))


net, optimizer = MLP(), optax.adam(1e-3)
parameters = net.init(jax.random.key(0), x_train[:1])
state = optimizer.init(parameters)


def loss(parameters, x, y):
    logits = net.apply(parameters, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@jax.jit
def step(parameters, state, x, y):
    updates, state = optimizer.update(jax.grad(loss)(parameters, x, y), state)
    return optax.apply_updates(parameters, updates), state


@jax.jit
def accuracy(parameters, x, y):
    return jnp.mean(net.apply(parameters, x).argmax(1) == y)


random = np.random.default_rng(0)
for epoch in range(20):
    order = random.permutation(len(x_train))
    for chosen in np.split(order, range(64, len(order), 64)):
        parameters, state = step(parameters, state, x_train[chosen], y_train[chosen])
    reached = accuracy(parameters, x_test, y_test)
    # [end]
    print(f"epoch {epoch + 1}: test accuracy {reached:.4f}")
