"""examples/variational_autoencoder.mto in Keras."""

import keras
import numpy as np
from keras import layers, ops

data = np.load("examples/data/mnist.npz")
x_train, x_test = (data[f"x_{part}"].astype(np.float32) for part in ("train", "test"))


# [counted]
class VAE(keras.Model):
    def __init__(self, latent=2, hidden=256):
        super().__init__()
        self.encoder = keras.Sequential(
            [
                layers.Rescaling(1 / 255),
                layers.Flatten(),
                layers.Dense(hidden, "relu"),
                layers.Dense(hidden, "relu"),
                layers.Dense(2 * latent),
            ]
        )
        self.decoder = keras.Sequential(
            [
                layers.Dense(hidden, "relu"),
                layers.Dense(hidden, "relu"),
                layers.Dense(784),
                layers.Reshape((28, 28)),
            ]
        )
        self.random = keras.random.SeedGenerator(0)

    def call(self, x):
        mean, log_variance = ops.split(self.encoder(x), 2, axis=1)
        noise = keras.random.normal(ops.shape(mean), seed=self.random)
        return self.decoder(mean + ops.exp(log_variance / 2) * noise), mean, log_variance

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        logits, mean, log_variance = y_pred
        rebuilt = ops.sum(ops.binary_crossentropy(x / 255, logits, from_logits=True), (1, 2))
        divergence = ops.sum(mean**2 + ops.exp(log_variance) - log_variance - 1, 1) / 2
        return ops.mean(rebuilt + divergence)


net = VAE()
net.compile(optimizer=keras.optimizers.Adam(1e-3))
net.fit(x_train, batch_size=64, epochs=20, validation_data=(x_test, None), verbose=2)
# [end]
