"""Networks whose maps have their channels last, as those of Swin, and images for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mixer(nn.Module):
    """Works on the last axis, as the blocks of Swin do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.mix(self.norm(x))).roll(1, 1)


class Permuted(nn.Module):
    """The same with channels first."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Windows(nn.Module):
    """(N, 2, 8, 8) -> stem -> two blocks with channels last, or wrapped so that they have them first ->
    (N, 3)."""

    def __init__(self, width: int = 6, last: bool = True) -> None:
        super().__init__()
        self.last = last
        self.stem = nn.Conv2d(2, width, 2, 2)
        self.blocks = nn.ModuleList([Mixer(width), Mixer(width)])
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        # Channels last in name, first in memory: what follows may rely on that, as `.view` does.
        h = h.permute(0, 2, 3, 1) if self.last else h
        for block in self.blocks:
            h = block(h)
        h = h.permute(0, 3, 1, 2) if self.last else h
        return self.head(h.contiguous().view(len(h), h.shape[1], -1).mean(2))


def first(network: Windows) -> Windows:
    """A copy with channels first."""
    other = Windows(network.head.in_features, last=False)
    other.load_state_dict(network.state_dict())
    other.blocks = nn.ModuleList(Permuted(b) for b in other.blocks)
    return other


IMAGES = torch.randn(60, 2, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3
