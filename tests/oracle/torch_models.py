"""Whole models that the speed table has not, or has at one size, as a user of PyTorch writes them.

Submodules have the names that they have in the language, so that weights are copied by path.
"""

import itertools

import torch
from torch import nn
from torch.nn import functional as F

__all__ = [
    "CNN",
    "GPT",
    "MLP",
    "VAE",
    "BiLSTM",
    "UNet",
    "ViT",
]


class MLP(nn.Module):
    """A perceptron with two hidden layers."""

    def __init__(self, inputs: int = 64, hidden: int = 32, classes: int = 10) -> None:
        super().__init__()
        sizes = (inputs, hidden, hidden, classes)
        pairs = itertools.pairwise(sizes)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class CNN(nn.Module):
    """Two convolutions with batch norms and pooling."""

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(2 * width)
        self.head = nn.Linear(2 * width * 4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.first_norm(self.first(x))), 2)
        x = F.max_pool2d(F.relu(self.second_norm(self.second(x))), 2)
        return self.head(x.flatten(1))


class Attention(nn.Module):
    """Self-attention of several heads."""

    def __init__(self, d: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value = (nn.Linear(d, d) for _ in range(3))
        self.output = nn.Linear(d, d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, d = x.shape

        def split(y: torch.Tensor) -> torch.Tensor:
            return y.view(n, t, self.heads, d // self.heads).transpose(1, 2)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.output(y.transpose(1, 2).reshape(n, t, d))


class FeedForward(nn.Module):
    """Two layers for each position."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """A block of a transformer, norms first."""

    def __init__(self, d: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.attention, self.feed_forward = Attention(d, heads, causal), FeedForward(d)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class GPT(nn.Module):
    """Radford et al., "Language models are unsupervised multitask learners", 2019."""

    def __init__(
        self,
        vocabulary: int = 65,
        context: int = 64,
        d: int = 128,
        layers: int = 4,
        heads: int = 4,
        causal: bool = True,
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, d), nn.Embedding(context, d)
        self.blocks = nn.ModuleList(Block(d, heads, causal) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, vocabulary, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class ViT(nn.Module):
    """Dosovitskiy et al., "An image is worth 16x16 words", 2020; reads the mean of the patches."""

    def __init__(
        self, side: int = 8, patch: int = 2, d: int = 32, layers: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, d, patch, patch)
        self.positions = nn.Parameter(torch.randn((side // patch) ** 2, d) * 0.02)
        self.blocks = nn.ModuleList(Block(d, heads, False) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


def rest_at_zero(lstm: nn.LSTM) -> None:
    """Sets the second bias of each gate to 0, where training leaves it."""
    for name, parameter in lstm.named_parameters():
        if name.startswith("bias_hh"):
            nn.init.zeros_(parameter)
            parameter.requires_grad_(False)


class BiLSTM(nn.Module):
    """A recurrent network that reads in both directions; the mean over time is classified.

    One of PyTorch's two biases of each gate rests at 0: only their sum matters to the result, but
    an optimizer moves both.
    """

    def __init__(self, inputs: int = 8, hidden: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, classes)
        rest_at_zero(self.lstm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0].mean(1))


class Double(nn.Module):
    """Two convolutions with group norms."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(a, outputs, 3, padding=1) for a in (inputs, outputs))
        self.first_norm, self.second_norm = (nn.GroupNorm(4, outputs) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(x)))


class UNet(nn.Module):
    """Ronneberger et al., "U-Net: convolutional networks for image segmentation", 2015."""

    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.down1, self.down2 = Double(1, width), Double(width, 2 * width)
        self.bottom = Double(2 * width, 4 * width)
        self.rise2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.up2 = Double(4 * width, 2 * width)
        self.rise1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.up1 = Double(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        y = self.bottom(F.max_pool2d(second, 2))
        y = self.up2(torch.cat([second, self.rise2(y)], 1))
        return self.head(self.up1(torch.cat([first, self.rise1(y)], 1)))


class VAE(nn.Module):
    """Kingma and Welling, "Auto-encoding variational Bayes", 2013; the noise is an input."""

    def __init__(self, inputs: int = 64, hidden: int = 32, latent: int = 4) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([nn.Linear(inputs, hidden), nn.Linear(hidden, 2 * latent)])
        self.decoder = nn.ModuleList([nn.Linear(latent, hidden), nn.Linear(hidden, inputs)])

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        mean, log_variance = self.encoder[1](torch.tanh(self.encoder[0](x))).chunk(2, -1)
        z = mean + torch.exp(log_variance / 2) * noise
        logits = self.decoder[1](torch.tanh(self.decoder[0](z)))
        rebuilt = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
        divergence = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(-1)
        return (rebuilt + divergence).mean()
