"""examples/custom_loop.mto in JAX, with Flax and Optax."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

sys.path.append(".")
from examples.custom_loop import classifier, seen

data = np.load("examples/data/digits.npz")
x_train = data["x_train"].astype(np.float32)


# [counted]
class Perceptron(nn.Module):
    outputs: int
    width: int = 128

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.leaky_relu(nn.Dense(self.width)(x))
        return nn.Dense(self.outputs)(x)


generator, critic = Perceptron(64), Perceptron(1)


def forge(parameters, key, count):
    return nn.sigmoid(generator.apply(parameters, jax.random.normal(key, (count, 16))))


def critic_loss(parameters, real, forged):
    on_real, on_forged = critic.apply(parameters, real), critic.apply(parameters, forged)
    return nn.softplus(-on_real).mean() + nn.softplus(on_forged).mean()


def generator_loss(parameters, judging, key, count):
    return nn.softplus(-critic.apply(judging, forge(parameters, key, count))).mean()


optimizer = optax.adam(5e-4, b1=0.5)
forging = generator.init(jax.random.key(0), jnp.zeros((1, 16)))
judging = critic.init(jax.random.key(1), jnp.zeros((1, 64)))
forger, judge = optimizer.init(forging), optimizer.init(judging)


@jax.jit
def step(forging, judging, forger, judge, x, key):
    first, second = jax.random.split(key)
    forged = forge(forging, first, len(x))
    told, slope = jax.value_and_grad(critic_loss)(judging, x / 16, forged)
    updates, judge = optimizer.update(slope, judge)
    judging = optax.apply_updates(judging, updates)
    fooled, slope = jax.value_and_grad(generator_loss)(forging, judging, second, len(x))
    updates, forger = optimizer.update(slope, forger)
    forging = optax.apply_updates(forging, updates)
    return (forging, judging, forger, judge), told, fooled


random, key = np.random.default_rng(0), jax.random.key(2)
for epoch in range(1, 201):
    order = random.permutation(len(x_train))
    for start in range(0, len(order) - 63, 64):
        key, now = jax.random.split(key)
        x = x_train[order[start : start + 64]]
        (forging, judging, forger, judge), told, fooled = step(
            forging, judging, forger, judge, x, now
        )
    # [end]
    if epoch % 20 == 0:
        print(f"epoch {epoch}: critic {told:.3f}, generator {fooled:.3f}")
forged = np.array(forge(forging, key, 1000))
share, kinds = seen(classifier(data), forged)
print(f"sure of {share:.2f} of the forgeries, {kinds} kinds among them")
