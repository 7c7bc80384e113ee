"""examples/physics.mto in Keras, on JAX for the nested derivatives (KERAS_BACKEND=jax)."""

import jax
import keras
import numpy as np
from keras import layers, ops


# [counted]
class Field(keras.Model):
    def __init__(self, width=32):
        super().__init__()
        hidden = [layers.Dense(width, "tanh") for _ in range(3)]
        self.net = keras.Sequential([*hidden, layers.Dense(1)])

    def call(self, points):
        x, t = points[:, 0], points[:, 1]
        return -ops.sin(np.pi * x) + t * (1 - x**2) * self.net(points)[:, 0]

    def residual(self, x, t):
        def u(x, t):
            return self(ops.stack([x, t])[None])[0]

        u_x = jax.grad(u)
        u_t = jax.grad(u, argnums=1)
        u_xx = jax.grad(u_x)
        return u_t(x, t) + u(x, t) * u_x(x, t) - 0.05 * u_xx(x, t)

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        return ops.mean(jax.vmap(self.residual)(x[:, 0], x[:, 1]) ** 2)


def points():
    random = np.random.default_rng(0)
    while True:
        yield (random.uniform([-1, 0], [1, 1], (256, 2)).astype(np.float32),)


net = Field()
net.compile(optimizer=keras.optimizers.Adam(1e-3))
net.fit(points(), steps_per_epoch=1000, epochs=8, verbose=2)
# [end]
