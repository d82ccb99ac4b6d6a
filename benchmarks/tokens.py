"""Moments and direct matching between all blocks of a ViT-Ti at 32x32 against bare forward passes (issue 3,
speed).

ViT-Ti: 12 blocks, 192 dimensions, 3 heads, patch 4, so 64 tokens and no class token; random weights.
Exit code 1 if the claim does not hold.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
from torch import Tensor, nn

import suture
from common import Floor, claim, header


class ViT(nn.Module):
    """Images (N, 3, 32, 32) -> 64 tokens of 192 dimensions -> 12 blocks -> logits (N, 10)."""

    def __init__(self, depth: int = 12, width: int = 192, heads: int = 3) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 4, 4)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.blocks = nn.Sequential(*(
            nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True,
                                       norm_first=True) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(tokens)).mean(1))


class _Stop(Exception):
    """Raised where only what comes before is timed."""


def _stop_after_moments(result: suture.Comparison) -> None:
    raise _Stop


def moments(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Seconds up to the end of the moments stage: the pass, the dry run and 144 solves."""
    start = time.perf_counter()
    try:
        suture.compare(network, data=(x, y), methods=["dm"], indices=(), ood=None, sites="blocks.*",
                       batch_size=100, on_stage=_stop_after_moments)
    except _Stop:
        return time.perf_counter() - start
    raise AssertionError("the moments stage was not reported")


def main() -> int:
    """Print the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=600)
    args = parser.parse_args()
    torch.manual_seed(0)
    network = ViT().eval()
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(args.n, 3, 32, 32, generator=g), torch.randint(0, 10, (args.n,), generator=g)
    header("tokens", args.n)
    floor = Floor(network, x)
    floor.measure()
    half = x[: args.n // 2], y[: args.n // 2]
    pairs = [(moments(network, x, y), moments(network, *half)) for _ in range(3)]
    pass_alone = 2 * statistics.median(a - b for a, b in pairs)
    whole = statistics.median(a for a, _ in pairs)
    base = floor.measure()
    print(f"  {floor}")
    print(f"  with dry run and 144 solves, which do not grow with n: {whole / base:.2f} floors")
    return 0 if claim("moments pass of 12x12 cells / floor", pass_alone / base, 1.6) else 1


if __name__ == "__main__":
    sys.exit(main())
