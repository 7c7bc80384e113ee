"""examples/custom_loop.mto in PyTorch."""

import sys

import numpy as np
import torch
from torch import nn
from torch.nn.functional import softplus

sys.path.append(".")
from examples.custom_loop import classifier, seen

data = np.load("examples/data/digits.npz")
x_train = torch.tensor(data["x_train"]).float()


# [counted]
def perceptron(inputs, outputs, width=128):
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.LeakyReLU(),
        nn.Linear(width, width),
        nn.LeakyReLU(),
        nn.Linear(width, outputs),
    )


class Generator(nn.Module):
    def __init__(self, latent=16):
        super().__init__()
        self.latent = latent
        self.layers = perceptron(latent, 64)

    def forward(self, count):
        return self.layers(torch.randn(count, self.latent)).sigmoid()


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = perceptron(64, 1)

    def forward(self, x):
        return self.layers(x)[:, 0]


def critic_loss(critic, real, forged):
    return softplus(-critic(real)).mean() + softplus(critic(forged)).mean()


def generator_loss(generator, critic, count):
    return softplus(-critic(generator(count))).mean()


torch.manual_seed(0)
generator, critic = Generator(), Critic()
forger = torch.optim.Adam(generator.parameters(), lr=5e-4, betas=(0.5, 0.999))
judge = torch.optim.Adam(critic.parameters(), lr=5e-4, betas=(0.5, 0.999))
for epoch in range(1, 201):
    for chosen in torch.randperm(len(x_train)).split(64)[:-1]:
        judge.zero_grad()
        told = critic_loss(critic, x_train[chosen] / 16, generator(64).detach())
        told.backward()
        judge.step()
        forger.zero_grad()
        fooled = generator_loss(generator, critic, 64)
        fooled.backward()
        forger.step()
    # [end]
    if epoch % 20 == 0:
        print(f"epoch {epoch}: critic {told:.3f}, generator {fooled:.3f}")
forged = generator(1000).detach().numpy()
share, kinds = seen(classifier(data), forged)
print(f"sure of {share:.2f} of the forgeries, {kinds} kinds among them")
