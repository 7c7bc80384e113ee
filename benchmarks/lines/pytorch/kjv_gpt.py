"""examples/kjv_gpt.mto in PyTorch."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.append(".")
from examples.kjv_gpt import Alphabet, batch

text = Path("examples/data/kjv.txt").read_text("utf-8")
alphabet = Alphabet(text)
train, held_out = np.split(alphabet.encode(text), [1_000_000])


def passages(text, random):
    return (torch.tensor(part).long() for part in batch(text, random).values())


# [counted]
class Attention(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)

    def forward(self, x, cache=None):
        q, k, v = self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if cache is not None:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        return self.out(y.transpose(1, 2).flatten(2)), (k, v)


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention = Attention(d, heads)
        self.feed_forward = nn.Sequential(
            nn.Linear(d, 4 * d), nn.GELU(approximate="tanh"), nn.Linear(4 * d, d)
        )

    def forward(self, x, cache=None):
        seen, cache = self.attention(self.norm1(x), cache)
        x = x + seen
        return x + self.feed_forward(self.norm2(x)), cache


class GPT(nn.Module):
    def __init__(self, vocabulary=72, context=64, d=128, layers=4, heads=4):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, d)
        self.positions = nn.Embedding(context, d)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, vocabulary, bias=False)

    def forward(self, ids, caches=None, position=0):
        places = torch.arange(position, position + ids.shape[1])
        x = self.tokens(ids) + self.positions(places)
        kept = []
        for block, cache in zip(self.blocks, caches or [None] * len(self.blocks), strict=True):
            x, cache = block(x, cache)
            kept.append(cache)
        return self.head(self.norm(x)), kept

    @torch.no_grad()
    def write(self, prompt, count, temperature=0.8):
        scores, caches = self(prompt[None])
        written = []
        for position in range(len(prompt), len(prompt) + count):
            chances = torch.softmax(scores[0, -1] / temperature, 0)
            written.append(torch.multinomial(chances, 1))
            scores, caches = self(written[-1][None], caches, position)
        return torch.cat(written)


def surprise(net, x, y):
    return F.cross_entropy(net(x)[0].flatten(0, 1), y.flatten())


torch.manual_seed(0)
net = GPT()
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
random = np.random.default_rng(0)
for step in range(1, 1001):
    optimizer.zero_grad()
    loss = surprise(net, *passages(train, random))
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        fixed = np.random.default_rng(1)
        with torch.no_grad():
            found = [surprise(net, *passages(held_out, fixed)).item() for _ in range(40)]
        # [end]
        print(f"step {step}: loss {loss:.3f}, held out {np.mean(found):.3f}")
# [counted]
written = torch.tensor(alphabet.encode("And it came to pass"))
for _ in range(15):
    written = torch.cat([written, net.write(written[-32:], 32)])
# [end]
print(alphabet.decode(written))
