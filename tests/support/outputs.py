"""One trained classifier whose output comes in many forms, and networks that are no classifiers."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Two = namedtuple("Two", "features output")


@dataclass
class Answer:
    embedding: Tensor
    scores: Tensor


class Body(nn.Module):
    """(N, 8) -> three blocks of width 16 -> `last` of the representation and of `outputs` numbers."""

    def __init__(self, last: Callable[[Tensor, Tensor], Any] = lambda h, z: z, outputs: int = 4) -> None:
        super().__init__()
        self.enter = nn.Linear(8, 16)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(3)])
        self.head, self.last = nn.Linear(16, outputs), last

    def forward(self, x: Tensor) -> Any:
        h = self.enter(x)
        for block in self.blocks:
            h = block(h)
        return self.last(h, self.head(h))


def examples(n: int = 96, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs and labels of four classes that a network can learn."""
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()


@cache
def _train(outputs: int) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Body(outputs=outputs)
    x, y = examples(400)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        z = network(x)
        if outputs == 1:
            F.binary_cross_entropy_with_logits(z[:, 0], (y > 1).float()).backward()
        else:
            F.cross_entropy(z, y).backward()
        optimizer.step()
    return {k: v.detach() for k, v in network.state_dict().items()}


def body(last: Callable[[Tensor, Tensor], Any] = lambda h, z: z, outputs: int = 4) -> Body:
    """A trained network, whose output `last` makes of its representation and its logits."""
    network = Body(last, outputs).eval()
    network.load_state_dict(_train(outputs))
    return network
