"""The 8x8 direct-matching grid of ResNet-18 at 32x32 against bare forward passes (issue 2, speed and memory).

The floor is one bare forward pass of the network as it is over the same images, at the fastest micro-batch.
Everything is timed through `suture.compare`. Exit code 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import suture
from common import Floor, claim, header
from suture import zoo
from suture.networks.sites import SitedNetwork
from suture.networks.sites.capture_and_replay import RecordedPass


def images_of(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, 32, 32, generator=g), torch.randint(0, 10, (n,), generator=g)


Data = tuple[torch.Tensor, torch.Tensor]


def compare_timed(network: torch.nn.Module, data: Data, methods: list[str],
                  ood: str | None = None) -> dict[str, float]:
    """Seconds of each part of a comparison, from its own progress and stages; `ood` names a detector."""
    marks: dict[str, float] = {}
    start: dict[str, float] = {}

    def progress(stage: str, done: int, total: int | None) -> None:
        marks[stage] = time.perf_counter()

    begun = time.perf_counter()
    suture.compare(network, data=data, methods=methods, indices=(), progress=progress, batch_size=100,
                   ood=ood, on_stage=lambda c: start.setdefault(c.meta["stages"][-1], time.perf_counter()))
    total = time.perf_counter() - begun
    parts = {"solves": start["moments"] - marks["moments"], "total": total}
    if "dm" in start:
        parts["evaluation"] = marks["evaluating dm"] - start["moments"]
        parts["stage"] = start["dm"] - start["moments"]
    return parts


@contextmanager
def tails_timed() -> Iterator[list[float]]:
    """While open, the seconds of every tail that runs are collected."""
    took: list[float] = []
    tail = SitedNetwork.tail

    def timed(self: SitedNetwork, index: int, x: torch.Tensor, done: RecordedPass) -> object:
        start = time.perf_counter()
        output = tail(self, index, x, done)
        took.append(time.perf_counter() - start)
        return output

    SitedNetwork.tail = timed  # type: ignore[method-assign, assignment]
    try:
        yield took
    finally:
        SitedNetwork.tail = tail  # type: ignore[method-assign]


def time_moments(network: torch.nn.Module, data: Data) -> tuple[float, float]:
    """Seconds of the streaming pass alone: what twice the images cost more, dry run and solves cancelled. And
    of the solves."""
    half = data[0][: len(data[0]) // 2], data[1][: len(data[1]) // 2]
    pairs = [(compare_timed(network, data, []), compare_timed(network, half, [])) for _ in range(3)]
    return (2 * statistics.median(whole["total"] - part["total"] for whole, part in pairs),
            statistics.median(run["solves"] for pair in pairs for run in pair))


def peak(n: int) -> float:
    """Peak resident MiB of a fresh process that makes the moments of `n` examples, streamed."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import grid; grid.stream({n})"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(out.stdout.split()[-1])


def stream(n: int) -> None:
    """For `peak`: a comparison on a stream that holds one batch at a time."""
    class Stream:
        def __iter__(self):
            for k in range(n // 50):
                g = torch.Generator().manual_seed(k)
                yield torch.rand(50, 3, 32, 32, generator=g), torch.randint(0, 10, (50,), generator=g)

    suture.compare(zoo.build("resnet18"), data=Stream(), methods=["dm"], ood=None,
                   sites=["layer1.0", "layer4.1"])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> int:
    """Print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=400)
    parser.add_argument("--skip-evaluation", action="store_true")
    args = parser.parse_args()
    network = zoo.build("resnet18")
    data = images_of(args.n)
    header("grid", args.n)
    floor = Floor(network, data[0])
    floor.measure()
    took, solves = time_moments(network, data)
    base = floor.measure()
    print(f"  {floor}")
    passed = [claim("moments pass / floor", took / base, 1.5)]
    if not args.skip_evaluation:
        with tails_timed() as tails:
            parts = compare_timed(network, data, ["dm"])
        needed = sum(tails)
        base = floor.measure()
        print(f"  {floor}")
        print(f"  sum of tails / floor: {needed / base:.2f}; solves take {solves:.2f} s whatever n")
        passed.append(claim("evaluation / sum of tails", parts["evaluation"] / needed, 1.15))
        passed.append(claim("whole grid / floor", parts["total"] / base, 27))
        at = 2000
        passed.append(claim(f"solves / floor of {at} images", solves / (base * at / args.n), 0.05))
        small, large = peak(200), peak(800)
        passed.append(claim("peak memory, 4 N examples / N", large / small, 1.05))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
