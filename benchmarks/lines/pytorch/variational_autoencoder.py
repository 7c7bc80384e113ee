"""examples/variational_autoencoder.mto in PyTorch."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

data = np.load("examples/data/mnist.npz")
x_train, x_test = (torch.tensor(data[f"x_{part}"]).float() for part in ("train", "test"))


# [counted]
class VAE(nn.Module):
    def __init__(self, latent=2, hidden=256):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(784, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 2 * latent),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 784),
        )

    def encode(self, x):
        return self.encoder(x.flatten(1) / 255).chunk(2, 1)

    def decode(self, z):
        return self.decoder(z).view(-1, 28, 28)

    def evidence(self, x):
        mean, log_variance = self.encode(x)
        logits = self.decode(mean + torch.exp(log_variance / 2) * torch.randn_like(mean))
        rebuilt = F.binary_cross_entropy_with_logits(logits, x / 255, reduction="none").sum((1, 2))
        divergence = (mean**2 + log_variance.exp() - log_variance - 1).sum(1) / 2
        return rebuilt, divergence


torch.manual_seed(0)
net = VAE()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(20):
    for chosen in torch.randperm(len(x_train)).split(64):
        optimizer.zero_grad()
        rebuilt, divergence = net.evidence(x_train[chosen])
        loss = (rebuilt + divergence).mean()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        rebuilt, divergence = net.evidence(x_test)
    # [end]
    print(f"epoch {epoch + 1}: test loss {(rebuilt + divergence).mean():.2f}")
