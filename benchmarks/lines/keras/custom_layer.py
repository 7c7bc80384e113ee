"""examples/custom_layer.mto in Keras."""

import keras
import numpy as np
from keras import ops

data = np.load("examples/data/digits.npz")
x_train, x_test = (data[f"x_{part}"].astype(np.float32) for part in ("train", "test"))
y_train, y_test = (data[f"y_{part}"] for part in ("train", "test"))


# [counted]
@ops.custom_gradient
def quantize(x, step):
    inside = ops.logical_and(x >= -4 * step, x <= 3 * step)

    def gradient(dy):
        return ops.where(inside, dy, 0), ops.zeros_like(step)

    return step * ops.clip(ops.round(x / step), -4, 3), gradient


class Quantized(keras.layers.Layer):
    def __init__(self, units, activation=None):
        super().__init__()
        self.units = units
        self.activation = keras.activations.get(activation)

    def build(self, shape):
        self.w = self.add_weight((shape[-1], self.units), initializer="glorot_uniform")
        self.b = self.add_weight((self.units,), initializer="zeros")

    def call(self, x):
        step = ops.stop_gradient(ops.max(ops.abs(self.w))) / 4
        return self.activation(x @ quantize(self.w, step) + self.b)


net = keras.Sequential(
    [
        keras.layers.Rescaling(1 / 16),
        Quantized(128, "relu"),
        Quantized(10),
    ]
)
net.compile(
    optimizer=keras.optimizers.Adam(1e-3),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
test = (x_test, y_test)
net.fit(x_train, y_train, batch_size=64, epochs=20, validation_data=test, verbose=2)
# [end]
