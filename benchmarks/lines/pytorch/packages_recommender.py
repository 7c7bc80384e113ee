"""examples/packages_recommender.mto in PyTorch."""

import numpy as np
import torch
from torch import nn

data = np.load("examples/data/packages.npz")
train, held_out = (torch.tensor(data[part]).long() for part in ("train", "test"))
users, items = int(train[:, 0].max()) + 1, int(train[:, 1].max()) + 1
has = torch.zeros(users, items, dtype=torch.bool)
has[train[:, 0], train[:, 1]] = True


# [counted]
class Factors(nn.Module):
    def __init__(self, users, items, d=32):
        super().__init__()
        self.user, self.item = nn.Embedding(users, d), nn.Embedding(items, d)
        self.offset = nn.Parameter(torch.zeros(items))
        nn.init.normal_(self.user.weight, std=0.1)
        nn.init.normal_(self.item.weight, std=0.1)

    def forward(self, u, i):
        return self.offset[i] + (self.user(u) * self.item(i)).sum(-1)

    def all(self, u):
        return self.offset + self.user(u) @ self.item.weight.T


torch.manual_seed(0)
net = Factors(users, items)
optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(15):
    for chosen in torch.randperm(len(train)).split(2048):
        user, item = train[chosen].T
        others = torch.randint(items, (len(chosen), 8))
        optimizer.zero_grad()
        margin = net(user[:, None], others) - net(user, item)[:, None]
        loss = nn.functional.softplus(margin).mean()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        scores = net.all(held_out[:, 0]).masked_fill(has[held_out[:, 0]], -torch.inf)
        own = scores.gather(1, held_out[:, 1:])
        rate = ((scores > own).sum(1) < 10).float().mean()
    # [end]
    print(f"epoch {epoch + 1}: hit rate {rate:.3f}")
