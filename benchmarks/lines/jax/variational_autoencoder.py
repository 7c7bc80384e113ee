"""examples/variational_autoencoder.mto in JAX, with Flax and Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

data = np.load("examples/data/mnist.npz")
x_train, x_test = (data[f"x_{part}"].astype(np.float32) for part in ("train", "test"))


# [counted]
class VAE(nn.Module):
    latent: int = 2
    hidden: int = 256

    def setup(self):
        def perceptron(outputs):
            return nn.Sequential(
                [
                    nn.Dense(self.hidden),
                    nn.relu,
                    nn.Dense(self.hidden),
                    nn.relu,
                    nn.Dense(outputs),
                ]
            )

        self.encoder, self.decoder = perceptron(2 * self.latent), perceptron(784)

    def encode(self, x):
        return jnp.split(self.encoder(x.reshape(len(x), -1) / 255), 2, axis=1)

    def decode(self, z):
        return self.decoder(z).reshape(-1, 28, 28)

    def __call__(self, x):
        mean, log_variance = self.encode(x)
        noise = jax.random.normal(self.make_rng("noise"), mean.shape)
        logits = self.decode(mean + jnp.exp(log_variance / 2) * noise)
        rebuilt = optax.sigmoid_binary_cross_entropy(logits, x / 255).sum((1, 2))
        divergence = (mean**2 + jnp.exp(log_variance) - log_variance - 1).sum(1) / 2
        return rebuilt, divergence


net, optimizer = VAE(), optax.adam(1e-3)
parameters = net.init({"params": jax.random.key(0), "noise": jax.random.key(1)}, x_train[:1])
state = optimizer.init(parameters)


@jax.jit
def loss(parameters, x, key):
    rebuilt, divergence = net.apply(parameters, x, rngs={"noise": key})
    return (rebuilt + divergence).mean()


@jax.jit
def step(parameters, state, x, key):
    updates, state = optimizer.update(jax.grad(loss)(parameters, x, key), state)
    return optax.apply_updates(parameters, updates), state


random = np.random.default_rng(0)
for epoch in range(20):
    order = random.permutation(len(x_train))
    for start in range(0, len(order), 64):
        key = jax.random.key(epoch * len(order) + start)
        parameters, state = step(parameters, state, x_train[order[start : start + 64]], key)
    reached = loss(parameters, x_test, jax.random.key(epoch))
    # [end]
    print(f"epoch {epoch + 1}: test loss {reached:.2f}")
