"""Moments and indices of all pairs of 8 networks against bare forward passes (issue 18, speed).

The floor is the sum of one bare forward pass of each network as it is over the same images, at the fastest
micro-batch. The study is `suture.study` in one process, without a folder: 28 pairs and 8 networks with
themselves, ResNet-20 at 32x32, 8 sites, CKA. Exit code 1 if the claim does not hold.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import suture
from common import Floor, claim, header
from suture import zoo

SITES = ["layer1.1", "layer1.2", "layer2.0", "layer2.1", "layer2.2", "layer3.0", "layer3.1", "layer3.2"]


def main() -> int:
    """Print the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--networks", type=int, default=8)
    parser.add_argument("--network", default="resnet20")
    args = parser.parse_args()
    g = torch.Generator().manual_seed(0)
    data = torch.rand(args.n, 3, 32, 32, generator=g), torch.randint(0, 10, (args.n,), generator=g)
    networks = {f"seed {k}": zoo.build(args.network, seed=k).eval() for k in range(args.networks)}
    header("study_pass", args.n)
    size = Floor(next(iter(networks.values())), data[0][:400]).size
    stages: dict[str, float] = {}
    floor = run_bare(networks, data[0], size)
    began = time.process_time()
    study = suture.study(networks, data, methods=[], indices=["cka"], sites=SITES,
                         progress=lambda stage, *_: stages.update({stage: time.process_time() - began}))
    took = time.process_time() - began
    floor = (floor + run_bare(networks, data[0], size)) / 2
    print(f"  {study} of {args.network}: {took:.1f} s, of which {took - stages['moments']:.1f} s for "
          f"indices; bare forward passes: {floor:.1f} s at micro-batch {size}")
    print("  multiply-adds of the cross products / of the forward passes: "
          f"{count_products(networks['seed 0'], data[0], args.networks):.2f}")
    return 0 if claim("study / bare forward passes of all networks", took / floor, 1.5) else 1


@torch.no_grad()
def count_products(network: nn.Module, images: Tensor, networks: int) -> float:
    """Return the multiply-adds of the cross products of all pairs over those of the forward passes.

    A product of two sites is made at the smaller of their grids.
    """
    with FlopCounterMode(display=False) as counter:
        network(images[:1])
    shapes = [info.shape for info in suture.find_sites(network, images[:2]) if info.site.path in SITES]
    products = sum(a.width * b.width * min(math.prod(a.size), math.prod(b.size))
                   for a in shapes for b in shapes)
    return products * math.comb(networks, 2) / (networks * counter.get_total_flops() / 2)


@torch.no_grad()
def run_bare(networks: Mapping[str, nn.Module], images: Tensor, size: int) -> float:
    """Return the seconds of one bare forward pass of each network."""
    began = time.process_time()
    for network in networks.values():
        for piece in images.split(size):
            network(piece)
    return time.process_time() - began


if __name__ == "__main__":
    sys.exit(main())
