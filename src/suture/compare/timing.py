"""Timing of the stages of a dry run: from passes over a few examples to the time of all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

MOST_TRIED = 32
"""Largest number of examples in a timed pass."""
SHARE = 25
"""A timed pass has at most one example of so many: with the passes beside it, a tenth of a stage."""
LEAST_TRIED = 4
_FEW = 2
QUICK_SECONDS = 0.05
"""A pass runs a second time if it is faster, because others disturb it more."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a stage: a part per pass, and a part per example in it."""

    each_pass: float
    each_example: float

    def predict(self, n: int | None, size: int) -> float | None:
        """Return the seconds for `n` examples in passes of `size`; None if the number is unknown."""
        return None if n is None else math.ceil(n / size) * self.each_pass + n * self.each_example


def choose_tried(counts: list[int | None], micro_batch: int) -> int:
    """Choose the number of examples in a timed pass, from the numbers of examples of all data."""
    known = [n for n in counts if n is not None]
    share = min(known) // SHARE if known else 2 * LEAST_TRIED
    return max(1, min(micro_batch, MOST_TRIED, max(LEAST_TRIED, share)))


def measure_cost(work: Callable[[int], object], tried: int, device: torch.device) -> Cost:
    """Measure what a stage costs: `work` runs it on a number of examples. The first run warms up."""
    few = min(_FEW, tried)
    work(few)
    least, most = (_time(work, n, device) for n in (few, tried))
    if tried == few:
        return Cost(0.0, most / tried)
    each = min(max(0.0, most - least) / (tried - few), most / tried)
    return Cost(most - each * tried, each)


def _time(work: Callable[[int], object], size: int, device: torch.device) -> float:
    best = math.inf
    for _ in range(2):
        start = time.perf_counter()
        work(size)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
        if best > QUICK_SECONDS:
            break
    return best
