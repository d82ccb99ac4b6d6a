"""One network stitched to itself, trained: what the tests of training share."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import torch

import suture
from suture import TaskRecipe
from suture.data.batches import Batches
from suture.networks.calls import freeze
from suture.networks.sites import SitedNetwork
from suture.representations.alignment import Alignment
from suture.stitching import StitchingLayer
from suture.stitching.trainer import GroupTrainer
from tests.support.networks import NETWORKS, images

CPU = torch.device("cpu")
N = 24


class Fit:
    """One network stitched to itself (or to another), small layers, their training.

    In float64: in float32 rounding, which grouping changes, flips a ReLU once in a while, and Adam makes it
    grow.
    """

    def __init__(self, recipe: TaskRecipe, cells: list[tuple[int, int]] | None = None, *,
                 network: str = "awkward",
                 micro: int = 10_000, labels: bool = True, make: type[StitchingLayer] = StitchingLayer,
                 held: bool = False, batch: int | None = None, two: bool = False,
                 dtype: torch.dtype = torch.float64) -> None:
        self.network, example = NETWORKS[network]()
        self.network.to(dtype)
        x = images(*example.shape[1:3], N).to(dtype)
        y = torch.arange(N) % 4
        self.data = (x, y)
        with freeze(self.network):
            self.target = SitedNetwork(self.network, x)
            other = copy.deepcopy(self.network)
            self.source = SitedNetwork(other, x) if two else self.target
            n = len(self.target.sites)
            self.cells = cells or list(product(range(n), repeat=2))
            self.layers = {c: self.layer(c, make) for c in self.cells}
            data: Any = [(x, y)] if batch is None else list(zip(x.split(batch), y.split(batch), strict=True))
            held_out = None
            if held:
                # Held-out labels that the network does not predict: the layers stop one after the other.
                data, held_out = [(x[:16], y[:16])], Batches([(x[16:], y[16:].flip(0))])
            if not labels:
                data = [b for b, _ in data]
            self.trainer = GroupTrainer(self.source, self.target, self.layers, recipe, micro)
            self.curves = self.trainer.fit(Batches(data), CPU, held_out=held_out)

    def layer(self, cell: tuple[int, int], make: type[StitchingLayer] = StitchingLayer) -> StitchingLayer:
        i, j = cell
        alignment = Alignment(self.target.shapes[i], self.target.shapes[j])
        return make(alignment).init_random(100 * i + j).to(self.data[0].dtype)


def too_late(result: suture.Comparison) -> None:
    raise AssertionError("the error comes after work was done")


def assert_same(one: StitchingLayer, other: StitchingLayer, tolerance: float = 1e-5) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert float((a - b).detach().norm()) <= tolerance * float(b.detach().norm())


def moved(fit: Fit, cell: tuple[int, int]) -> float:
    start = fit.layer(cell)
    return float((fit.layers[cell].weight - start.weight).detach().norm() / start.weight.detach().norm())
