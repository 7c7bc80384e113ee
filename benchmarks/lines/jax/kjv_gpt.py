"""examples/kjv_gpt.mto in JAX, with Flax and Optax."""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

sys.path.append(".")
from examples.kjv_gpt import Alphabet, batch

text = Path("examples/data/kjv.txt").read_text("utf-8")
alphabet = Alphabet(text)
train, held_out = np.split(alphabet.encode(text), [1_000_000])


# [counted]
class Block(nn.Module):
    heads: int
    decode: bool

    @nn.compact
    def __call__(self, x, mask):
        d = x.shape[-1]
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, decode=self.decode)(y, mask=mask)
        y = nn.gelu(nn.Dense(4 * d)(nn.LayerNorm()(x)))
        return x + nn.Dense(d)(y)


class GPT(nn.Module):
    vocabulary: int = 72
    context: int = 64
    d: int = 128
    layers: int = 4
    heads: int = 4
    decode: bool = False

    @nn.compact
    def __call__(self, ids, position=0):
        places = position + jnp.arange(ids.shape[1])
        x = nn.Embed(self.vocabulary, self.d)(ids) + nn.Embed(self.context, self.d)(places)
        mask = None if self.decode else nn.make_causal_mask(ids)
        for _ in range(self.layers):
            x = Block(self.heads, self.decode)(x, mask)
        return nn.Dense(self.vocabulary, use_bias=False)(nn.LayerNorm()(x))


net, decoder, optimizer = GPT(), GPT(decode=True), optax.adamw(1e-3, weight_decay=0.01)
whole = jnp.zeros((1, net.context), int)
parameters = net.init(jax.random.key(0), whole)
state = optimizer.init(parameters)


@jax.jit
def loss(parameters, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(net.apply(parameters, x), y).mean()


@jax.jit
def step(parameters, state, x, y):
    value, slope = jax.value_and_grad(loss)(parameters, x, y)
    updates, state = optimizer.update(slope, state, parameters)
    return optax.apply_updates(parameters, updates), state, value


@partial(jax.jit, static_argnames="count")
def write(parameters, key, prompt, count, temperature=0.8):
    given = jnp.pad(prompt, (0, count))

    def following(carried, position):
        cache, character = carried
        ids = character[None, None]
        variables = {**parameters, "cache": cache}
        scores, changed = decoder.apply(variables, ids, position, mutable="cache")
        now = jax.random.fold_in(key, position)
        drawn = jax.random.categorical(now, scores[0, -1] / temperature)
        character = jnp.where(position + 1 < len(prompt), given[position + 1], drawn)
        return (changed["cache"], character), character

    cache = decoder.init(key, whole)["cache"]
    places = jnp.arange(len(prompt) + count - 1)
    _, characters = jax.lax.scan(following, (cache, prompt[0]), places)
    return characters[-count:]


random = np.random.default_rng(0)
for i in range(1, 1001):
    parameters, state, value = step(parameters, state, **batch(train, random))
    if i % 100 == 0:
        fixed = np.random.default_rng(1)
        found = [loss(parameters, **batch(held_out, fixed)) for _ in range(40)]
        # [end]
        print(f"step {i}: loss {value:.3f}, held out {np.mean(found):.3f}")
# [counted]
written = alphabet.encode("And it came to pass")
for i in range(15):
    more = write(parameters, jax.random.key(i), written[-32:], count=32)
    written = np.append(written, more)
# [end]
print(alphabet.decode(written))
