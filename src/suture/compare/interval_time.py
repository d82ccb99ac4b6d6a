"""The time that intervals of indices will take, predicted before it is spent."""

from __future__ import annotations

import time

import torch

from suture.compare.setup import Setup
from suture.indices import FROM_MOMENTS, Needs
from suture.numbers import Moments, Pair


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
