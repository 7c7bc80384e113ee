"""examples/packages_recommender.mto in Keras."""

import keras
import numpy as np
from keras import layers, ops

data = np.load("examples/data/packages.npz")
train, held_out = data["train"], data["test"]
users, items = (int(count) for count in train.max(0) + 1)
has = np.zeros((users, items), bool)
has[train[:, 0], train[:, 1]] = True


# [counted]
class Factors(keras.Model):
    def __init__(self, users, items, d=32):
        super().__init__()
        small = keras.initializers.RandomNormal(stddev=0.1)
        self.items = items
        self.user = layers.Embedding(users, d, embeddings_initializer=small)
        self.item = layers.Embedding(items, d, embeddings_initializer=small)
        self.offset = layers.Embedding(items, 1, embeddings_initializer="zeros")
        self.random = keras.random.SeedGenerator(0)

    def score(self, u, i):
        return self.offset(i)[..., 0] + ops.sum(self.user(u) * self.item(i), -1)

    def call(self, pairs):
        return self.score(pairs[:, 0], pairs[:, 1])

    def all(self, u):
        return self.offset.embeddings[:, 0] + self.user(u) @ ops.transpose(self.item.embeddings)

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        others = keras.random.randint((len(x), 8), 0, self.items, seed=self.random)
        return ops.mean(ops.softplus(self.score(x[:, :1], others) - y_pred[:, None]))


def hit_rate(net):
    scores = ops.where(has[held_out[:, 0]], -np.inf, net.all(held_out[:, 0]))
    own = ops.take_along_axis(scores, held_out[:, 1:], 1)
    return ops.mean(ops.sum(scores > own, 1) < 10)


class HitRate(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs):
        logs["hit_rate"] = hit_rate(self.model)


net = Factors(users, items)
net.compile(optimizer=keras.optimizers.Adam(5e-3))
net.fit(train, batch_size=2048, epochs=15, callbacks=[HitRate()], verbose=2)
# [end]
print(f"hit rate {hit_rate(net):.3f}")
