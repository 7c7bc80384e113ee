"""examples/detection.mto in Keras."""

import sys

import keras
import numpy as np
from keras import ops

sys.path.append(".")
from examples.detection import compose, detect, mean_average_precision

data = np.load("examples/data/mnist.npz")
train = compose(data["x_train"], data["y_train"], 8000, seed=1).targets()
held_out = compose(data["x_test"], data["y_test"], 500, seed=2)


# [counted]
def convolution(channels):
    return keras.layers.Conv2D(channels, 3, padding="same", activation="relu")


class Detector(keras.Model):
    def __init__(self, width=16):
        super().__init__()
        self.body = keras.Sequential(
            [
                keras.layers.Rescaling(1 / 255),
                keras.layers.Reshape((64, 64, 1)),
                convolution(width),
                keras.layers.MaxPooling2D(2),
                convolution(2 * width),
                keras.layers.MaxPooling2D(2),
                convolution(3 * width),
                keras.layers.MaxPooling2D(2),
                convolution(4 * width),
                convolution(4 * width),
                keras.layers.Conv2D(15, 1),
            ]
        )

    def call(self, x):
        y = self.body(x)
        return y[..., :11], boxes(y[..., 11:])

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        scores, found = y_pred
        surprise = keras.losses.sparse_categorical_crossentropy(y["label"], scores, True)
        missed = ops.where(y["label"] < 10, 1 - overlap(found, y["box"]), 0)
        return ops.mean(ops.sum(surprise + missed, (1, 2)))


def boxes(y):
    cell = ops.stack(ops.meshgrid(ops.arange(8.0), ops.arange(8.0)), -1)
    centre = 8 * (cell + ops.sigmoid(y[..., :2]))
    size = 4 * ops.exp(ops.clip(y[..., 2:], -4, 4))
    return ops.concatenate([centre - size, centre + size], -1)


def area(a):
    return ops.prod(a[..., 2:] - a[..., :2], -1)


def overlap(a, b):
    sides = ops.minimum(a[..., 2:], b[..., 2:]) - ops.maximum(a[..., :2], b[..., :2])
    shared = ops.prod(ops.maximum(sides, 0), -1)
    return shared / (area(a) + area(b) - shared)


net = Detector()
net.compile(optimizer=keras.optimizers.Adam(1e-3))
targets = {"label": train["label"], "box": train["box"]}
net.fit(train["x"], targets, batch_size=32, epochs=10, verbose=2)
# [end]
found = detect(lambda pixels: net.predict(pixels, verbose=0), held_out.pixels)
print(f"mean average precision {mean_average_precision(found, held_out):.3f}")
