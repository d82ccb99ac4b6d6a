"""What every benchmark prints and how it times: ratios within one run, best of several, machine and versions beside."""

from __future__ import annotations

import os
import platform
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
    """Best wall time of `repeat` runs after one to warm up."""
    work()
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def floor(network: nn.Module, images: Tensor, repeat: int = 3) -> tuple[float, str]:
    """Seconds of one bare forward pass over the images, at the fastest micro-batch and memory layout."""
    best, how = float("inf"), ""
    for layout in (torch.contiguous_format, torch.channels_last):
        net = network.eval().to(memory_format=layout)
        for size in MICRO:
            with torch.no_grad():
                took = seconds(lambda net=net, size=size: [net(b) for b in images.split(size)], repeat)
            if took < best:
                best, how = took, f"micro-batch {size}, {layout}"
    network.to(memory_format=torch.contiguous_format)
    return best, how


def claim(what: str, value: float, bound: float) -> bool:
    """Print a ratio against its bound; True where it holds."""
    print(f"  {what}: {value:.3f} (at most {bound}){'' if value <= bound else '   <- NOT REACHED'}")
    return value <= bound
