"""Moments and indices of all pairs of 8 networks against bare forward passes (issue 18, speed).

The floor is the sum of one bare forward pass of each network as it is over the same images, at the fastest
micro-batch. The study is `suture.study` in one process, without a folder: 28 pairs and 8 networks with
themselves, ResNet-20 at 32x32, 8 sites, CKA. Exit code 1 if the claim does not hold.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

import suture
from common import Floor, claim, header
from suture import zoo

SITES = ["layer1.1", "layer1.2", "layer2.0", "layer2.1", "layer2.2", "layer3.0", "layer3.1", "layer3.2"]


def main() -> int:
    """Print the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--networks", type=int, default=8)
    args = parser.parse_args()
    g = torch.Generator().manual_seed(0)
    data = torch.rand(args.n, 3, 32, 32, generator=g), torch.randint(0, 10, (args.n,), generator=g)
    networks = {f"seed {k}": zoo.build("resnet20", seed=k).eval() for k in range(args.networks)}
    header("study_pass", args.n)
    floor = Floor(next(iter(networks.values())), data[0])
    floor.measure()
    marks: dict[str, list[float]] = {}

    def progress(stage: str, done: int, total: int | None) -> None:
        marks.setdefault(stage, []).append(time.perf_counter())

    began = time.perf_counter()
    study = suture.study(networks, data, methods=[], indices=["cka"], sites=SITES, progress=progress)
    took = time.perf_counter() - began
    floor.measure()
    passes = marks["moments"]
    print(f"  {floor}")
    print(f"  {study}: {took:.1f} s, of which {passes[0] - began:.1f} s before the end of the first batch and "
          f"{began + took - passes[-1]:.1f} s after the pass")
    return 0 if claim("study / bare forward passes of all networks", took / (args.networks * floor.seconds),
                      1.5) else 1


if __name__ == "__main__":
    sys.exit(main())
