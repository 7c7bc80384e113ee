"""examples/custom_loop.mto in Keras, on PyTorch for the gradients (KERAS_BACKEND=torch)."""

import sys

import keras
import numpy as np
import torch
from keras import layers, ops

sys.path.append(".")
from examples.custom_loop import classifier, seen

data = np.load("examples/data/digits.npz")
x_train = data["x_train"].astype(np.float32)


# [counted]
def perceptron(inputs, outputs, activation=None, width=128):
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layers.Dense(width),
            layers.LeakyReLU(0.01),
            layers.Dense(width),
            layers.LeakyReLU(0.01),
            layers.Dense(outputs, activation),
        ]
    )


class Adversaries(keras.Model):
    def __init__(self, latent=16):
        super().__init__()
        self.latent = latent
        self.generator = perceptron(latent, 64, "sigmoid")
        self.critic = perceptron(64, 1)
        self.random = keras.random.SeedGenerator(0)
        self.built = True

    def compile(self, forger, judge):
        super().compile()
        self.forger, self.judge = forger, judge

    def forge(self, count):
        return self.generator(keras.random.normal((count, self.latent), seed=self.random))

    def descend(self, loss, optimizer, weights):
        self.zero_grad()
        loss.backward()
        with torch.no_grad():
            optimizer.apply([weight.value.grad for weight in weights], weights)

    def train_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        on_real, on_forged = self.critic(x / 16), self.critic(self.forge(len(x)).detach())
        told = ops.mean(ops.softplus(-on_real)) + ops.mean(ops.softplus(on_forged))
        self.descend(told, self.judge, self.critic.trainable_weights)
        fooled = ops.mean(ops.softplus(-self.critic(self.forge(len(x)))))
        self.descend(fooled, self.forger, self.generator.trainable_weights)
        return {"critic": told, "generator": fooled}


net = Adversaries()
net.compile(
    forger=keras.optimizers.Adam(5e-4, beta_1=0.5),
    judge=keras.optimizers.Adam(5e-4, beta_1=0.5),
)
net.fit(x_train, batch_size=64, epochs=400, verbose=2)
# [end]
forged = ops.convert_to_numpy(net.forge(1000))
share, kinds = seen(classifier(data), forged)
print(f"sure of {share:.2f} of the forgeries, {kinds} kinds among them")
