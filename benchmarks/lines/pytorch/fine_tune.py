"""examples/fine_tune.mto in PyTorch."""

import copy
import sys

import torch
from torch import nn

sys.path.append(".")
from examples.fine_tune import data_of


def tensors(arrays):
    return torch.tensor(arrays["x"]), torch.tensor(arrays["y"]).long()


mnist, _ = map(tensors, data_of("mnist"))
digits, digits_test = map(tensors, data_of("digits"))
few = digits[0][:100], digits[1][:100]


# [counted]
class Net(nn.Module):
    def __init__(self, hidden=256):
        super().__init__()
        sizes = [(64, hidden), (hidden, hidden), (hidden, 10)]
        self.layers = nn.ModuleList(nn.Linear(*size) for size in sizes)

    def forward(self, x):
        x = x / 16
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class LowRank(nn.Module):
    def __init__(self, base, rank=4):
        super().__init__()
        self.base, self.rank = base.requires_grad_(False), rank
        self.a = nn.Parameter(torch.empty(base.in_features, rank))
        self.b = nn.Parameter(torch.zeros(rank, base.out_features))
        nn.init.kaiming_uniform_(self.a.T)

    def forward(self, x):
        return self.base(x) + x @ self.a @ self.b / self.rank


def fit(net, x, y, epochs, batch, rate=1e-3):
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=rate)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x[chosen]), y[chosen])
            loss.backward()
            optimizer.step()


@torch.no_grad()
def accuracy(net, x, y):
    return (net(x).argmax(1) == y).float().mean()


torch.manual_seed(0)
first = Net()
fit(first, *mnist, epochs=5, batch=64)
everything, last_layer, adapted = (copy.deepcopy(first) for _ in range(3))
last_layer.requires_grad_(False)
last_layer.layers[-1].requires_grad_(True)
adapted.layers = nn.ModuleList(LowRank(layer) for layer in adapted.layers)
fit(everything, *few, epochs=60, batch=25)
fit(last_layer, *few, epochs=60, batch=25)
fit(adapted, *few, epochs=60, batch=25, rate=5e-3)
reached = [accuracy(net, *digits_test) for net in (first, everything, last_layer, adapted)]
# [end]
for name, share in zip(("before", "everything", "last layer", "adapters"), reached, strict=True):
    print(f"{name}: accuracy {share:.3f}")
