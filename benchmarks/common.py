"""What every benchmark prints and how it times: ratios of medians within one run, machine and versions
beside."""

from __future__ import annotations

import copy
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

MICRO = (10, 25, 32, 50, 100)


def header(name: str, n: int) -> None:
    """Name, n, machine and versions."""
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor())
    print(f"{name}: n = {n} images, {cpu}, {os.cpu_count()} cores, torch {torch.__version__} "
          f"with {torch.get_num_threads()} threads, Python {platform.python_version()}")


def seconds(work: Callable[[], object], repeat: int = 3) -> float:
    """Median wall time of `repeat` runs after one to warm up.

    Not the best: what is compared with it runs for minutes, through the machine's good and bad moments alike.
    """
    work()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class Floor:
    """One bare forward pass of the network as it is over the images, at its fastest micro-batch.

    Its speed in channels-last layout, which suture uses where it can, is measured beside it.
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        self.images = images
        self._times: list[float] = []
        self.network = copy.deepcopy(network).eval()
        fast = copy.deepcopy(self.network).to(memory_format=torch.channels_last)
        some = images[:200]
        took = {size: self._pass(self.network, size, some) for size in MICRO}
        self.size = min(took, key=took.__getitem__)
        self.channels_last = min(self._pass(fast, size, some) for size in MICRO) / took[self.size]

    @staticmethod
    @torch.no_grad()
    def _pass(net: nn.Module, size: int, images: Tensor) -> float:
        return seconds(lambda: [net(b) for b in images.split(size)])

    def measure(self) -> float:
        """Time it once more, now; the seconds are the mean of all measurements (before and after the
        work)."""
        self._times.append(self._pass(self.network, self.size, self.images))
        return self.seconds

    @property
    def seconds(self) -> float:
        """Mean of the measurements so far."""
        return statistics.mean(self._times)

    def __str__(self) -> str:
        times = ", ".join(f"{t:.2f}" for t in self._times)
        return (f"floor: {self.seconds:.2f} s ({times}), {len(self.images) / self.seconds:.0f} images/s at "
                f"micro-batch {self.size}; in channels-last layout it would take "
                f"{self.channels_last:.2f} of that")


def claim(what: str, value: float, bound: float) -> bool:
    """Print a ratio against its bound; True where it holds."""
    print(f"  {what}: {value:.3f} (at most {bound}){'' if value <= bound else '   <- NOT REACHED'}")
    return value <= bound
