"""examples/fine_tune.mto in JAX, with Flax and Optax."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import traverse_util

sys.path.append(".")
from examples.fine_tune import data_of

mnist, _ = data_of("mnist")
digits, digits_test = data_of("digits")
few = {name: array[:100] for name, array in digits.items()}


# [counted]
class LowRank(nn.Module):
    units: int
    rank: int = 4

    @nn.compact
    def __call__(self, x):
        a = self.param("a", nn.initializers.he_uniform(), (x.shape[-1], self.rank))
        b = self.param("b", nn.initializers.zeros, (self.rank, self.units))
        return nn.Dense(self.units, name="base")(x) + x @ a @ b / self.rank


class Net(nn.Module):
    layer: type[nn.Module] = nn.Dense
    hidden: int = 256

    @nn.compact
    def __call__(self, x):
        x = nn.relu(self.layer(self.hidden, name="layer0")(x / 16))
        x = nn.relu(self.layer(self.hidden, name="layer1")(x))
        return self.layer(10, name="layer2")(x)


def loss(parameters, net, x, y):
    logits = net.apply(parameters, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@partial(jax.jit, static_argnames=("net", "optimizer"))
def step(parameters, state, net, optimizer, x, y):
    updates, state = optimizer.update(jax.grad(loss)(parameters, net, x, y), state)
    return optax.apply_updates(parameters, updates), state


def fit(parameters, net, optimizer, x, y, epochs, batch):
    state = optimizer.init(parameters)
    random = np.random.default_rng(0)
    for _ in range(epochs):
        order = random.permutation(len(x))
        for chosen in np.split(order, range(batch, len(order), batch)):
            parameters, state = step(parameters, state, net, optimizer, x[chosen], y[chosen])
    return parameters


def only(optimizer, learns):
    def labels(parameters):
        return traverse_util.path_aware_map(lambda path, _: learns(path), parameters)

    return optax.multi_transform({True: optimizer, False: optax.set_to_zero()}, labels)


@partial(jax.jit, static_argnames="net")
def accuracy(parameters, net, x, y):
    return jnp.mean(net.apply(parameters, x).argmax(1) == y)


net, adapted = Net(), Net(LowRank)
parameters = net.init(jax.random.key(0), mnist["x"][:1])
first = fit(parameters, net, optax.adam(1e-3), **mnist, epochs=5, batch=64)
thin = adapted.init(jax.random.key(1), mnist["x"][:1])
for name, layer in first["params"].items():
    thin["params"][name]["base"] = layer
last = only(optax.adam(1e-3), lambda path: "layer2" in path)
adapters = only(optax.adam(5e-3), lambda path: "base" not in path)
everything = fit(first, net, optax.adam(1e-3), **few, epochs=60, batch=25)
last_layer = fit(first, net, last, **few, epochs=60, batch=25)
thin = fit(thin, adapted, adapters, **few, epochs=60, batch=25)
reached = [accuracy(learned, net, **digits_test) for learned in (first, everything, last_layer)]
reached.append(accuracy(thin, adapted, **digits_test))
# [end]
for name, share in zip(("before", "everything", "last layer", "adapters"), reached, strict=True):
    print(f"{name}: accuracy {share:.3f}")
