"""examples/detection.mto in JAX, with Flax and Optax."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

sys.path.append(".")
from examples.detection import compose, detect, mean_average_precision

data = np.load("examples/data/mnist.npz")
train = compose(data["x_train"], data["y_train"], 8000, seed=1).targets()
held_out = compose(data["x_test"], data["y_test"], 500, seed=2)


# [counted]
class Detector(nn.Module):
    width: int = 16

    @nn.compact
    def __call__(self, x):
        x = x[..., None] / 255
        for times in (1, 2, 3):
            x = nn.relu(nn.Conv(times * self.width, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        for _ in range(2):
            x = nn.relu(nn.Conv(4 * self.width, (3, 3))(x))
        y = nn.Conv(15, (1, 1))(x)
        return y[..., :11], boxes(y[..., 11:])


def boxes(y):
    cell = jnp.stack(jnp.meshgrid(jnp.arange(8), jnp.arange(8)), -1)
    centre = 8 * (cell + nn.sigmoid(y[..., :2]))
    size = 4 * jnp.exp(jnp.clip(y[..., 2:], -4, 4))
    return jnp.concatenate([centre - size, centre + size], -1)


def area(a):
    return (a[..., 2:] - a[..., :2]).prod(-1)


def overlap(a, b):
    sides = jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2])
    shared = jnp.maximum(sides, 0).prod(-1)
    return shared / (area(a) + area(b) - shared)


net, optimizer = Detector(), optax.adam(1e-3)
parameters = net.init(jax.random.key(0), train["x"][:1])
state = optimizer.init(parameters)


def loss(parameters, x, label, box):
    scores, found = net.apply(parameters, x)
    surprise = optax.softmax_cross_entropy_with_integer_labels(scores, label).mean()
    missed = jnp.where(label < 10, 1 - overlap(found, box), 0)
    return 64 * surprise + missed.sum() / len(x)


@jax.jit
def step(parameters, state, batch):
    value, slope = jax.value_and_grad(loss)(parameters, **batch)
    updates, state = optimizer.update(slope, state)
    return optax.apply_updates(parameters, updates), state, value


random = np.random.default_rng(0)
for i in range(1, 2501):
    chosen = random.choice(8000, 32, replace=False)
    batch = {name: array[chosen] for name, array in train.items()}
    parameters, state, value = step(parameters, state, batch)
    # [end]
    if i % 250 == 0:
        print(f"step {i}: loss {value:.3f}")
found = detect(lambda pixels: map(np.array, net.apply(parameters, pixels)), held_out.pixels)
print(f"mean average precision {mean_average_precision(found, held_out):.3f}")
