"""examples/mnist_rows_lstm.mto in Keras."""

import keras
import numpy as np

data = np.load("examples/data/mnist.npz")
x_train, x_test = (data[f"x_{part}"].astype(np.float32) for part in ("train", "test"))
y_train, y_test = (data[f"y_{part}"] for part in ("train", "test"))

# [counted]
net = keras.Sequential(
    [
        keras.layers.Rescaling(1 / 255),
        keras.layers.LSTM(128),
        keras.layers.Dense(10),
    ]
)
net.compile(
    optimizer=keras.optimizers.Adam(1e-3),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
test = (x_test, y_test)
net.fit(x_train, y_train, batch_size=64, epochs=8, validation_data=test, verbose=2)
# [end]
