"""examples/physics.mto in JAX, with Flax and Optax."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn


# [counted]
class Field(nn.Module):
    width: int = 32

    @nn.compact
    def __call__(self, x, t):
        y = jnp.stack([x, t])
        for _ in range(3):
            y = nn.tanh(nn.Dense(self.width)(y))
        return -jnp.sin(jnp.pi * x) + t * (1 - x**2) * nn.Dense(1)(y)[0]


net, optimizer = Field(), optax.adam(1e-3)


def residual(parameters, x, t):
    def u(x, t):
        return net.apply(parameters, x, t)

    u_x = jax.grad(u)
    u_t = jax.grad(u, argnums=1)
    u_xx = jax.grad(u_x)
    return u_t(x, t) + u(x, t) * u_x(x, t) - 0.05 * u_xx(x, t)


def loss(parameters, x, t):
    return jnp.mean(jax.vmap(residual, (None, 0, 0))(parameters, x, t) ** 2)


@jax.jit
def step(parameters, state, key):
    across, along = jax.random.split(key)
    x = jax.random.uniform(across, (256,), minval=-1)
    t = jax.random.uniform(along, (256,))
    value, slope = jax.value_and_grad(loss)(parameters, x, t)
    updates, state = optimizer.update(slope, state)
    return optax.apply_updates(parameters, updates), state, value


parameters = net.init(jax.random.key(0), 0.0, 0.0)
state = optimizer.init(parameters)
for i in range(8001):
    parameters, state, value = step(parameters, state, jax.random.key(i))
    # [end]
    if i % 1000 == 0:
        print(f"step {i}: loss {value:.5f}")
