"""The time of the jackknife, predicted from noise of the widths of a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import cached_property, partial

import torch

from suture.compare.rehearsal.timing import measure_seconds
from suture.compare.setup import Setup
from suture.indices import FOLDS, FROM_MOMENTS, Index, Needs, choose_group_size
from suture.numbers import (
    MomentBlock,
    Moments,
    Pair,
    Spectra,
    Spectrum,
    UnitRowSums,
    merge_all,
    standardise_rows,
    sum_crosses,
)
from suture.representations import Accumulators, AlignedMoments, Cell, pair_turned_cells


def predict_intervals(setup: Setup, accumulators: Accumulators) -> dict[str, float]:
    """Return the seconds of the jackknife as ``{"intervals": seconds}``; empty without intervals.

    Indices and factorisations are timed on noise for each pair of widths. For each block, spectra are
    computed once for each site, and indices once for each cell. Indices of the user are left out.
    """
    settings = setup.settings
    if not settings.jackknife:
        return {}
    seconds, tasks = 0.0, 1
    for alignment, moments in accumulators.tables.items():
        asked = settings.accumulator_settings.select_requests(alignment, *FROM_MOMENTS)
        indices = [r.index for r in asked if r.index.user is None]
        if indices:
            cells = pair_turned_cells(moments, [c for c in setup.cells if c in moments.alignments])
            seconds += _predict_block(moments, cells, indices, settings.jackknife)
            tasks = max(tasks, len(cells))
    if not seconds:
        return {}
    return {"intervals": settings.jackknife * seconds / min(torch.get_num_threads(), tasks)}


def _predict_block(moments: AlignedMoments, cells: list[list[Cell]], indices: Sequence[Index],
                   blocks: int) -> float:
    """Return the seconds for leaving out one block in all cells; cells of one list share factorisations."""
    spectra: dict[Hashable, int] = {}
    trials: dict[tuple[int, int], _Trial] = {}
    seconds = 0.0
    for (i, j), *turned in cells:
        p, q = moments.sources[i].width, moments.targets[j].width
        x, y = moments.find_keys(i, j)
        spectra |= {x: p, y: q}
        if any(index.needs is Needs.BLOCKS for index in indices):
            spectra |= {(x, fold): p for fold in range(FOLDS)} | {
                (y, fold): q for fold in range(FOLDS) if turned}
        if (p, q) not in trials:
            trials[p, q] = _Trial(p, q, indices, blocks)
        trial = trials[p, q]
        # A pair of one matrix with itself needs no decomposition either.
        seconds += trial.measure_turned() if x == y else trial.cell
        seconds += trial.measure_turned() if turned else 0.0
    each = {w: t.measure_spectrum(k) for pq, t in trials.items() for k, w in enumerate(pq)}
    return seconds + sum(each[width] for width in spectra.values())


class _Trial:
    """Seconds of one pair of widths, measured on noise; `cell` are those of merging and all indices."""

    def __init__(self, p: int, q: int, indices: Sequence[Index], blocks: int) -> None:
        self._indices = indices
        self._parts = [_make_noise(p, q, seed) for seed in range(FOLDS)]
        self._pair = _make_pair(self._parts)
        size = choose_group_size(blocks)
        self._merged = [self._parts[0].moments] * (size + math.ceil((blocks - size) / size))
        _compute(indices, _make_pair([_make_noise(4, 3, seed) for seed in range(FOLDS)]))  # imports
        if any(index.needs is Needs.BLOCKS for index in indices):
            _compute([index for index in indices if index.needs is Needs.BLOCKS], self._pair)
        m = self._merged[0]
        self._spectra = [_measure(partial(Spectrum.of, side)) for side in (m.x, m.y)]
        _ = self._pair.x, self._pair.y
        self.cell = _measure(lambda: _compute(indices, replace(self._pair))) + self._measure_merging()

    def _measure_merging(self) -> float:
        m = self._merged[0]
        return _measure(lambda: sum_crosses(self._merged, m.x.shift, m.y.shift))

    def measure_spectrum(self, side: int) -> float:
        """Return the seconds of merging the source (0) or the target (1), and of its spectrum."""
        first, *others = (m.y if side else m.x for m in self._merged)
        return self._spectra[side] + _measure(lambda: first.merge(*others))

    @cached_property
    def _turned(self) -> float:
        _compute(self._indices, self._pair)
        return _measure(lambda: _compute(self._indices, self._pair.turn()))

    def measure_turned(self) -> float:
        """Return the seconds of the indices of a pair whose factorisations are known."""
        return self._turned


def _make_noise(p: int, q: int, seed: int) -> MomentBlock:
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(p + q + 8, width, generator=generator).double() for width in (p, q))
    return MomentBlock(Moments.of(x, y), (UnitRowSums.of(x), UnitRowSums.of(y)),
                       Moments.of(standardise_rows(x), standardise_rows(y)))


def _make_pair(blocks: Sequence[MomentBlock]) -> Pair:
    return replace(Pair.of_block(merge_all(blocks), blocks), spectra=Spectra())


def _compute(indices: Sequence[Index], pair: Pair) -> None:
    for index in indices:
        index(pair)


def _measure(work: Callable[[], object]) -> float:
    return measure_seconds(lambda _: work(), 0, torch.device("cpu"))


