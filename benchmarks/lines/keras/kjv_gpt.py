"""examples/kjv_gpt.mto in Keras."""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

sys.path.append(".")
from examples.kjv_gpt import Alphabet, batch

text = Path("examples/data/kjv.txt").read_text("utf-8")
alphabet = Alphabet(text)
train, held_out = np.split(alphabet.encode(text), [1_000_000])


# [counted]
class Attention(layers.Layer):
    def __init__(self, d, heads):
        super().__init__()
        self.split = layers.Reshape((-1, 3 * heads, d // heads))
        self.join = layers.Reshape((-1, d))
        self.project = layers.Dense(3 * d)
        self.out = layers.Dense(d)

    def call(self, x, cache=None, position=0):
        q, k, v = ops.split(self.split(self.project(x)), 3, axis=2)
        if cache is None:
            return self.out(self.join(ops.dot_product_attention(q, k, v, is_causal=True)))
        keys, values = (
            ops.slice_update(old, (0, position, 0, 0), new)
            for old, new in zip(cache, (k, v), strict=True)
        )
        places = position + ops.arange(x.shape[1])
        mask = ops.arange(keys.shape[1]) <= places[:, None]
        y = ops.dot_product_attention(q, keys, values, mask=mask[None, None])
        return self.out(self.join(y)), (keys, values)


class Block(layers.Layer):
    def __init__(self, d, heads):
        super().__init__()
        self.norm1, self.norm2 = layers.LayerNormalization(), layers.LayerNormalization()
        self.attention = Attention(d, heads)
        self.hidden, self.out = layers.Dense(4 * d), layers.Dense(d)

    def feed_forward(self, x):
        hidden = self.hidden(self.norm2(x))
        return x + self.out(ops.gelu(hidden, approximate=True))

    def call(self, x):
        return self.feed_forward(x + self.attention(self.norm1(x)))

    def step(self, x, cache, position):
        seen, cache = self.attention(self.norm1(x), cache=cache, position=position)
        return self.feed_forward(x + seen), cache


class GPT(keras.Model):
    def __init__(self, vocabulary=72, context=64, d=128, blocks=4, heads=4):
        super().__init__()
        self.empty = ops.zeros((1, context, heads, d // heads))
        self.tokens = layers.Embedding(vocabulary, d)
        self.positions = layers.Embedding(context, d)
        self.blocks = [Block(d, heads) for _ in range(blocks)]
        self.norm = layers.LayerNormalization()
        self.head = layers.Dense(vocabulary, use_bias=False)

    def embed(self, ids, position):
        return self.tokens(ids) + self.positions(position + ops.arange(ids.shape[1]))

    def call(self, ids):
        x = self.embed(ids, 0)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def read(self, ids, caches, position):
        x = self.embed(ids, position)
        kept = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block.step(x, cache, position)
            kept.append(cache)
        return self.head(self.norm(x))[:, -1], kept

    def write(self, prompt, count, seed, temperature=0.8):
        caches = [(self.empty, self.empty)] * len(self.blocks)
        scores, caches = self.read(prompt[None], caches, 0)
        written = []
        for position in range(len(prompt), len(prompt) + count):
            character = keras.random.categorical(scores / temperature, 1, seed=seed)
            scores, caches = self.read(character, caches, position)
            written.append(int(character[0, 0]))
        return written


def passages(text, seed):
    random = np.random.default_rng(seed)
    while True:
        yield tuple(batch(text, random).values())


net = GPT()
net.compile(
    optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.01),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
net.fit(
    passages(train, 0),
    steps_per_epoch=100,
    epochs=10,
    validation_data=passages(held_out, 1),
    validation_steps=40,
    verbose=2,
)
seed = keras.random.SeedGenerator(0)
written = alphabet.encode("And it came to pass")
for _ in range(15):
    written = np.append(written, net.write(written[-32:], 32, seed))
# [end]
print(alphabet.decode(written))
