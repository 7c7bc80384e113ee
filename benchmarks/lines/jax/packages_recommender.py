"""examples/packages_recommender.mto in JAX, with Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

data = np.load("examples/data/packages.npz")
train, held_out = data["train"], data["test"]
users, items = train.max(0) + 1
has = np.zeros((users, items), bool)
has[train[:, 0], train[:, 1]] = True
has = jnp.array(has)


# [counted]
def init(key, d=32):
    first, second = jax.random.split(key)
    return {
        "user": 0.1 * jax.random.normal(first, (users, d)),
        "item": 0.1 * jax.random.normal(second, (items, d)),
        "offset": jnp.zeros(items),
    }


def score(parameters, u, i):
    return parameters["offset"][i] + (parameters["user"][u] * parameters["item"][i]).sum(-1)


def score_all(parameters, u):
    return parameters["offset"] + parameters["user"][u] @ parameters["item"].T


def loss(parameters, user, item, others):
    margin = score(parameters, user[:, None], others) - score(parameters, user, item)[:, None]
    return jax.nn.softplus(margin).mean()


optimizer = optax.adam(5e-3)


@jax.jit
def step(parameters, state, user, item, key):
    others = jax.random.randint(key, (len(user), 8), 0, items)
    updates, state = optimizer.update(jax.grad(loss)(parameters, user, item, others), state)
    return optax.apply_updates(parameters, updates), state


@jax.jit
def hit_rate(parameters, held_out):
    scores = jnp.where(has[held_out[:, 0]], -jnp.inf, score_all(parameters, held_out[:, 0]))
    own = jnp.take_along_axis(scores, held_out[:, 1:], 1)
    return jnp.mean((scores > own).sum(1) < 10)


parameters = init(jax.random.key(0))
state = optimizer.init(parameters)
random = np.random.default_rng(0)
for epoch in range(15):
    order = random.permutation(len(train))
    for start in range(0, len(order) - 2047, 2048):
        user, item = train[order[start : start + 2048]].T
        key = jax.random.key(epoch * len(order) + start)
        parameters, state = step(parameters, state, user, item, key)
    rate = hit_rate(parameters, held_out)
    # [end]
    print(f"epoch {epoch + 1}: hit rate {rate:.3f}")
