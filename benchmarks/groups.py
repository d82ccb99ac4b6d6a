"""Cuts of stitched batches for training on a CPU: `suture.stitching.grouped_pass.MicroBatch` and others.

One training step of 4 layers into one tail of a ResNet-20 at 32x32, for pieces of several sizes, several of
them concatenated. Exit code 1 if the cut that is taken is not among the fastest ones (single measurements
vary by a tenth).
"""

from __future__ import annotations

import sys
from unittest import mock

import torch

from common import claim, header, seconds
from suture import zoo
from suture.data import MicroBatch
from suture.data.batches import Batches
from suture.networks import choose_micro_batch, prepare
from suture.networks.sites import SitedNetwork
from suture.representations.alignment import Alignment
from suture.stitching import StitchingLayer, TaskRecipe
from suture.stitching.trainer import GroupTrainer

CPU = torch.device("cpu")
N = 128


def cuts(name: str, tail: int) -> tuple[float, dict[tuple[int, int], float]]:
    """Seconds of a step as suture cuts it, and by (piece, how many concatenated)."""
    g = torch.Generator().manual_seed(0)
    images, labels = torch.rand(N, 3, 32, 32, generator=g), torch.randint(0, 10, (N,), generator=g)
    sited = SitedNetwork(prepare(zoo.build(name), images[:4], CPU, "network"), images[:4])

    def step(micro: int) -> None:
        layers = {(i, tail): StitchingLayer(Alignment(sited.shapes[i], sited.shapes[tail])).init_random(i)
                  for i in (0, 2, 4, 8)}
        GroupTrainer(sited, sited, layers, TaskRecipe(epochs=1), micro).fit(Batches([(images, labels)]), CPU)

    taken = seconds(lambda: step(choose_micro_batch(sited.peak, CPU)), 5)
    others = {}
    for piece in (16, 32, 64, 128):
        for k in (1, 2):
            with mock.patch.object(MicroBatch, "count_at_once", lambda self, size, k=k: k):
                others[piece, k] = seconds(lambda piece=piece: step(2 * piece), 5)  # MicroBatch halves it
    return taken, others


def main() -> int:
    """Print the ratios."""
    header("groups", N)
    passed = []
    for name, tail in (("resnet20_strided", 4), ("resnet20", 7)):
        taken, others = cuts(name, tail)
        fastest, slowest = (f(others.values()) for f in (min, max))
        for (piece, k), took in others.items():
            print(f"  {name}, site {tail}: {k} x {piece} images: {took / fastest:.2f} of the fastest")
        print(f"  slowest / fastest: {slowest / fastest:.2f}")
        passed.append(claim(f"{name}: the cut that is taken / the fastest", taken / fastest, 1.25))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
