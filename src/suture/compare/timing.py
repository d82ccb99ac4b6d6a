"""The time that the stages of a comparison will take, predicted from passes over a few examples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from suture.compare.setup import Setup
from suture.indices import FROM_MOMENTS, Needs
from suture.numbers import Moments, Pair

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


def predict_intervals(setup: Setup) -> dict[str, float]:
    """Return the seconds of the jackknife as ``{"intervals": seconds}``; empty without intervals.

    Indices are timed once on noise for each pair of widths. Each cell computes them once for each block.
    """
    settings = setup.settings
    timed = FROM_MOMENTS - {Needs.UNITS, Needs.BLOCKS}
    indices = [r.index for r in settings.requests if r.index.needs in timed and r.index.user is None]
    if not settings.jackknife or not indices:
        return {}
    widths = [(setup.source.shapes[i].width, setup.target.shapes[j].width) for i, j in setup.cells]
    took = {}
    for p, q in set(widths):
        generator = torch.Generator().manual_seed(0)
        pair = Pair.of(Moments.of(*(torch.randn(p + q + 8, w, generator=generator) for w in (p, q))))
        start = time.perf_counter()
        for index in indices:
            index(pair)
        took[p, q] = time.perf_counter() - start
    cells_at_once = min(torch.get_num_threads(), len(widths))
    return {"intervals": settings.jackknife * sum(took[w] for w in widths) / cells_at_once}


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
