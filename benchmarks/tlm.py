"""One epoch of task loss matching for all cells, grouped, against one cell at a time (issue 3, speed).

The loop that published code runs: for each cell, the source in full, the target in full with the stitched
representation put in by a hook, backward, one cell after the other, whole batches through the networks as
they are.
Its cost hardly depends on the source site, so it is timed for the first and the last one and taken times the
number of sources. suture trains all cells in its prepared copies. The loop at the floor's micro-batch is
timed beside it.
Exit code 1 if a claim does not hold.

Bare forwards per cell and image are claimed for He et al.'s ResNet-20 alone, whose stages cost the same.
Where all blocks share one spatial size the last stage takes most of the work and lies in nearly every tail:
forward and input gradient of the tails are 1.4 bare forwards by operation count.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import Floor, claim, header, seconds
from suture import TaskRecipe, zoo
from suture.data.batches import Batches
from suture.networks import choose_micro_batch, fold_batch_norms, prepare
from suture.networks.calls import disable_gradients, freeze
from suture.networks.sites import SitedNetwork
from suture.representations.alignment import Alignment
from suture.stitching import StitchingLayer
from suture.stitching.trainer import GroupTrainer

BOUNDS = {"resnet18": 3.0, "resnet20": 5.0, "resnet20_strided": 5.0}
PER_CELL = {"resnet20_strided": 0.65}
CPU = torch.device("cpu")
BATCH = 256
"""The paper's."""


def prepared(network: nn.Module, x: Tensor) -> tuple[nn.Module, SitedNetwork, int]:
    """The private copy that `suture.compare` would run, its sites and its micro-batch."""
    net = prepare(network, x[:4], CPU, "network")
    sited = SitedNetwork(net, x[:4])
    fold_batch_norms(net, x[:4], {s.path for s in sited.sites})
    return net, sited, choose_micro_batch(sited.peak, CPU)


def layers_of(sited: SitedNetwork) -> dict[tuple[int, int], StitchingLayer]:
    return {(i, j): StitchingLayer(Alignment(sited.shapes[i], sited.shapes[j])).init_random(i * 100 + j)
            for i, j in product(range(len(sited.sites)), repeat=2)}


def grouped(network: nn.Module, x: Tensor, y: Tensor, batch: int) -> float:
    """Seconds of one epoch over all cells."""
    _, sited, micro = prepared(network, x)
    recipe = TaskRecipe(epochs=1, batch_size=batch)
    trainer = GroupTrainer(sited, sited, layers_of(sited), recipe, micro)
    trainer.fit(Batches((x[:32], y[:32]), size=batch), CPU)
    start = time.perf_counter()
    trainer.fit(Batches((x, y), size=batch), CPU)
    return time.perf_counter() - start


def one_by_one(network: nn.Module, x: Tensor, y: Tensor, batch: int, micro: int) -> float:
    """Seconds of one epoch of the published loop over all cells, from those of the first and the last
    source."""
    net = network.eval().requires_grad_(False)
    sited = SitedNetwork(net, x[:4])
    layers = layers_of(sited)
    sites = [net.get_submodule(s.path) for s in sited.sites]

    def step(i: int, j: int, layer: StitchingLayer, optimizer: torch.optim.Optimizer, rows: slice) -> None:
        optimizer.zero_grad()
        for a, b in zip(x[rows].split(micro), y[rows].split(micro), strict=True):
            kept: list[Tensor] = []
            hook = sites[i].register_forward_hook(lambda m, args, out, x=kept: x.append(out))
            with torch.no_grad():
                net(a)
            hook.remove()
            hook = sites[j].register_forward_hook(lambda m, args, out, x=kept: layer(x[0]))
            (F.cross_entropy(net(a), b, reduction="sum") / batch).backward()
            hook.remove()
        optimizer.step()

    total, last = 0.0, len(sites) - 1
    for (i, j), layer in layers.items():
        if i not in (0, last):
            continue
        optimizer = torch.optim.Adam(layer.parameters())
        start = time.perf_counter()
        for k in range(0, len(x), batch):
            step(i, j, layer, optimizer, slice(k, k + batch))
        total += time.perf_counter() - start
    return total * len(sites) / 2


def needed(network: nn.Module, x: Tensor) -> float:
    """Seconds that the front once, and for each target its tail's forward and input gradient for every
    source, take."""
    net, sited, micro = prepared(network, x)
    some = x[:micro]
    with freeze(net), disable_gradients():
        done = sited.run_full(some)
        xs = sited.pick_representations(done)
        total = seconds(lambda: sited.front(some), 5)

    def backward(j: int) -> None:
        start = xs[j].detach().requires_grad_(True)
        sited.tail(j, start, done).sum().backward()

    with freeze(net):
        total += len(xs) * sum(seconds(lambda j=j: backward(j), 5) for j in range(len(xs)))
    return total * len(x) / len(some)


def main() -> int:
    """Print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=256)
    parser.add_argument("--network", choices=sorted(BOUNDS), action="append")
    args = parser.parse_args()
    passed = []
    for name in args.network or sorted(BOUNDS):
        network = zoo.build(name)
        g = torch.Generator().manual_seed(0)
        x, y = torch.rand(args.n, 3, 32, 32, generator=g), torch.randint(0, 10, (args.n,), generator=g)
        header(f"tlm, {name}", args.n)
        floor = Floor(network, x)
        floor.measure()
        together = grouped(network, x, y, BATCH)
        parts = needed(network, x)
        alone, split = (one_by_one(network, x, y, BATCH, micro) for micro in (BATCH, floor.size))
        base = floor.measure()
        cells = len(SitedNetwork(network, x[:4]).sites) ** 2
        print(f"  {floor}")
        print(f"  {cells} cells, one epoch: grouped {together:.1f} s, one by one {alone:.1f} s "
              f"({split:.1f} s at micro-batch {floor.size}: {split / together:.2f} times grouped); "
              f"front and tails with input gradients {parts:.1f} s")
        passed.append(claim("grouped / one by one", together / alone, 1 / BOUNDS[name]))
        passed.append(claim("grouped / (front + tails and input gradients)", together / parts, 1.2))
        per_cell = together / base / cells
        if name in PER_CELL:
            passed.append(claim("bare forwards per cell and image", per_cell, PER_CELL[name]))
        else:
            print(f"  bare forwards per cell and image: {per_cell:.2f}")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
