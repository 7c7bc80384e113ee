"""examples/fine_tune.mto in Keras."""

import sys

import keras
from keras import layers

sys.path.append(".")
from examples.fine_tune import data_of

mnist, _ = data_of("mnist")
digits, digits_test = data_of("digits")
few = {name: array[:100] for name, array in digits.items()}


# [counted]
def network(hidden=256):
    return keras.Sequential(
        [
            keras.Input((64,)),
            layers.Rescaling(1 / 16),
            layers.Dense(hidden, activation="relu"),
            layers.Dense(hidden, activation="relu"),
            layers.Dense(10),
        ]
    )


def fit(net, data, epochs, batch, rate=1e-3):
    net.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    net.fit(**data, batch_size=batch, epochs=epochs, verbose=0)


def accuracy(net):
    return net.evaluate(**digits_test, verbose=0, return_dict=True)["accuracy"]


def copy(net):
    copied = network()
    copied.set_weights(net.get_weights())
    return copied


keras.utils.set_random_seed(0)
first = network()
fit(first, mnist, epochs=5, batch=64)
everything, last_layer, adapted = (copy(first) for _ in range(3))
for layer in last_layer.layers[:-1]:
    layer.trainable = False
for layer in adapted.layers[1:]:
    layer.enable_lora(4, lora_alpha=1)
    layer.bias.trainable = False
fit(everything, few, epochs=60, batch=25)
fit(last_layer, few, epochs=60, batch=25)
fit(adapted, few, epochs=60, batch=25, rate=5e-3)
reached = [accuracy(net) for net in (first, everything, last_layer, adapted)]
# [end]
for name, share in zip(("before", "everything", "last layer", "adapters"), reached, strict=True):
    print(f"{name}: accuracy {share:.3f}")
