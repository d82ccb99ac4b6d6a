"""The time that the stages of a comparison will take, predicted from passes over a few examples."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from suture.compare.records import Evaluation
from suture.compare.scoring.scores import score_cells
from suture.compare.setup import Setup
from suture.indices import FROM_MOMENTS, STITCH, Index, Needs, NullSource, Request, compute_indices
from suture.numbers import Moments, Pair, estimate_separation
from suture.stitching import StitchingLayer, list_trainable

MOST_TRIED = 32
"""Largest number of examples in a timed pass."""
SHARE = 25
"""A timed pass has at most one example of so many: with the passes beside it, a tenth of a stage."""
LEAST_TRIED = 4
_FEW = 2
QUICK_SECONDS = 0.05
"""A pass runs a second time if it is faster, because others disturb it more."""
SLOW_SECONDS = 0.3
"""A first pass that takes longer needs none before it to warm up, and the second has few examples too."""
_MOST_SCORED = 2000
"""Largest number of examples whose scores are timed."""


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


def measure_cost(work: Callable[[int], object], tried: int, device: torch.device, least: int = 1) -> Cost:
    """Measure what a stage costs: `work` runs it on a number of examples. A quick first run warms up.

    A pass over `least` examples has all that a pass costs without regard to their number.
    """
    few = min(max(_FEW, least), tried)
    base = measure_seconds(work, few, device)
    if base > SLOW_SECONDS:
        tried = min(tried, max(few, LEAST_TRIED))
    else:
        base = measure_seconds(work, few, device)
    if tried == few:
        return Cost(0.0, base / tried)
    most = measure_seconds(work, tried, device)
    if most <= QUICK_SECONDS:
        most = min(most, measure_seconds(work, tried, device))
    each = min(max(0.0, most - base) / (tried - few), most / tried)
    # Of a slow pass no large part comes once, whatever the first one has warmed up.
    each = max(each, most / tried / 3) if base > SLOW_SECONDS else each
    return Cost(most - each * tried, each)


def measure_step(layers: Iterable[StitchingLayer]) -> float:
    """Measure the seconds of an optimiser's step by the sums of Adam, once for each shape.

    PyTorch's optimisers import its compiler, which takes seconds.
    """
    shapes = Counter(p.shape for layer in layers for p in list_trainable(layer))
    seconds = 0.0
    for shape, times in shapes.items():
        start = time.perf_counter()
        _step(shape)
        seconds += times * (time.perf_counter() - start)
    return seconds


def _step(shape: torch.Size) -> None:
    p, mean, square = torch.zeros(3, *shape)
    mean.lerp_(p, 0.1)
    square.mul_(0.999).addcmul_(p, p, value=1e-3)
    p.addcdiv_(mean, square.sqrt().add_(1e-8), value=-1e-3)


def predict_indices(setup: Setup) -> float:
    """Return the seconds of the indices of all cells, with nulls in closed form.

    They are timed on noise of the smallest and of the largest widths. Between them, time grows with the
    operations of a factorisation.
    """
    timed = FROM_MOMENTS - {Needs.UNITS, Needs.BLOCKS}
    indices = [r.index for r in setup.settings.requests if r.index.needs in timed and r.index.user is None]
    if not indices:
        return 0.0
    sizes = [_count_operations(p, q) for p, q in _list_widths(setup)]
    ends = sorted(set(_list_widths(setup)), key=lambda widths: _count_operations(*widths))
    low, high = ends[0], ends[-1]
    took = [_time_indices(indices, *widths) for widths in dict.fromkeys((low, high))]
    span = max(1, _count_operations(*high) - _count_operations(*low))
    rise = max(0.0, took[-1] - took[0]) / span
    return sum(took[0] + rise * (size - _count_operations(*low)) for size in sizes)


def _list_widths(setup: Setup) -> list[tuple[int, int]]:
    return [(setup.source.shapes[i].width, setup.target.shapes[j].width) for i, j in setup.cells]


def _count_operations(p: int, q: int) -> int:
    return p * q * (p + q)


def _time_indices(indices: Sequence[Index], p: int, q: int) -> float:
    generator = torch.Generator().manual_seed(0)
    pair = Pair.of(Moments.of(*(torch.randn(p + q + 8, w, generator=generator) for w in (p, q))))
    inputs = dict.fromkeys(FROM_MOMENTS, pair)
    start = time.perf_counter()
    compute_indices([Request(index) for index in indices], {STITCH: inputs}, nulls={STITCH: NullSource()})
    return time.perf_counter() - start


def predict_scores(setup: Setup, found: Evaluation, n: int) -> float:
    """Return the seconds of the scores and intervals of all cells for `n` test examples.

    Those of one cell are timed on the results `found` for a few examples, repeated.
    """
    if not n:
        return 0.0
    rows = min(n, _MOST_SCORED)
    start = time.perf_counter()
    score_cells(_repeat_examples(found, rows), "dm", 0, {})
    if setup.detection is not None:
        rng = np.random.default_rng(0)
        for _ in setup.detection.ood.names:
            estimate_separation(rng.random(rows), rng.random(rows))
    return (time.perf_counter() - start) * len(setup.cells) * n / rows


def _repeat_examples(found: Evaluation, n: int) -> Evaluation:
    """Return the results of the first cell, of `n` examples that repeat those there are."""
    rows = np.arange(n) % found.examples
    parts = {f.name: getattr(found, f.name) for f in fields(found)}
    cut: dict[str, Any] = {
        name: part[(slice(1),) * (part.ndim - 1)][..., rows] for name, part in parts.items()
        if isinstance(part, np.ndarray) and name != "batches"}
    return replace(found, **cut | {"batches": np.array([n]), "broken": {}})


def measure_seconds(work: Callable[[int], object], size: int, device: torch.device) -> float:
    """Return the wall time of `work` on a number of examples."""
    start = time.perf_counter()
    work(size)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
