"""Networks for the laws: the zoo's, and home-made ones with everything that trips capture and replay."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from suture import zoo


class Awkward(nn.Module):
    """A skip connection, one ReLU module called everywhere in place, an in-place sum, a dictionary as
    output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.blocks = nn.ModuleList([AwkwardBlock(6, 8, self.relu), AwkwardBlock(8, 5, self.relu)])
        self.head = nn.Linear(5, 4)
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)["hidden"]
        pooled = x.mean((2, 3))
        return {"logits": self.head(pooled), "pooled": pooled}


class AwkwardBlock(nn.Module):
    def __init__(self, inner: int, outer: int, relu: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.short = (nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer),
                                          nn.Conv2d(inner, outer, 1))
        self.relu = relu

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out = self.bn(self.conv(x))
        out += self.short(x)
        return {"hidden": self.relu(out), "extra": out.mean()}


class Twice(nn.Module):
    """One block called three times; tuples as outputs; two inputs by keyword; `.view` on a map."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.block = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.pair = Pair()
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        h = self.enter(x.view(x.size(0), -1)) * scale[:, None]
        for _ in range(3):
            h = self.block(h)
        h, count = self.pair(h)
        return self.out(h), count


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner(x).relu_(), torch.tensor(x.size(0))


class Signal(nn.Module):
    """Blocks of Conv1d: padding that is cut off, a residual, a transposed linear layer at the end."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([SignalBlock(2, width), SignalBlock(width, width), SignalBlock(width, 9)])
        self.head = nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(2))


class SignalBlock(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(inner, outer, 3, padding=2), nn.BatchNorm1d(outer)
        self.mix = nn.Linear(outer, outer)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)[..., :-2]).relu()
        return x + self.mix(x.transpose(1, 2)).transpose(1, 2)


def volume() -> nn.Module:
    return nn.Sequential(nn.Sequential(nn.Conv3d(2, 5, 3, padding=1), nn.BatchNorm3d(5), nn.ReLU()),
                         nn.Sequential(nn.Conv3d(5, 6, 3, (1, 2, 2), 1), nn.ReLU(inplace=True)),
                         nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 4))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 9), nn.ReLU(inplace=True), nn.Linear(9, 3))


def images(channels: int, size: int, n: int = 5) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1))


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def vectors(n: int = 5) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(2))


def settled(network: nn.Module) -> nn.Module:
    """Batch norm statistics that are not the initial ones, so that eval mode does something."""
    for k, m in enumerate(network.modules()):
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            g = torch.Generator().manual_seed(k)
            m.running_mean.normal_(0, 0.3, generator=g)
            m.running_var.uniform_(0.5, 2, generator=g)
    return network


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return settled(make())


NETWORKS: dict[str, Callable[[], tuple[nn.Module, object]]] = {
    "resnet_digits": lambda: (settled(zoo.build("resnet_digits")), images(1, 8)),
    "resnet18": lambda: (settled(zoo.build("resnet18")), images(3, 8)),
    "resnet20": lambda: (settled(zoo.build("resnet20")), images(3, 4)),
    "resnet20_strided": lambda: (settled(zoo.build("resnet20_strided")), images(3, 8)),
    "awkward": lambda: (_seeded(Awkward), images(2, 7)),
    "twice": lambda: (_seeded(Twice), {"x": vectors().view(5, 2, 3), "scale": vectors()[:, 0]}),
    "mlp": lambda: (_seeded(mlp), vectors()),
    "signal": lambda: (_seeded(Signal), noise(5, 2, 11)),
    "volume": lambda: (_seeded(volume), noise(5, 2, 3, 4, 4)),
}


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Equal tensors under equal names."""
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
