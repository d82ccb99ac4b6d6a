"""Accumulators of the statistics that the indices of all cells need, filled in one pass.

The statistics are moments, sampled rows and Gram matrices, in these alignments:

- ``stitch``: rows are positions, aligned as by the stitching layer. Direct matching is solved from these.
- ``pool``: rows are examples, averaged over their positions without padding tokens and prefix tokens.
- ``within``: rows of ``pool`` of kept examples, about the means of their classes.
- ``flatten``: rows are examples, with all channels at all positions (C*H*W features).
- ``paper``: the mixture of Balogh and Jelasity (2025), on the first 1,000 test examples. CKA is flattened.
  For PWCCA and OPD rows are positions where both shapes agree, else examples averaged over positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from suture._base import NO_KEEPER, Keeper, Progress, SutureError, expect
from suture.indices import (
    FOLDS,
    FROM_MOMENTS,
    STITCH,
    WITHIN,
    FlatKernels,
    Needs,
    Request,
    SiteStatistics,
    Value,
    compute_indices,
)
from suture.numbers import MomentBlock, Pair, SharedWork, ShiftedSums
from suture.representations.accumulator_settings import AccumulatorSettings
from suture.representations.aligned_moments import AlignedMoments, Cell, find_shared_sequences
from suture.representations.alignment import DEFAULT_RULE, AlignmentRule
from suture.representations.left_out import CellIntervals, LeftOut
from suture.representations.null_rows import NullRows
from suture.representations.pooled_moments import PooledMoments
from suture.representations.row_sample import RowSample
from suture.representations.shapes import Kind, Shape
from suture.representations.token_masks import Masks, TokenMasks, select_mask
from suture.representations.views import View, get_row_mask, to_grid


class Accumulators:
    """Accumulators for all indices of all cells and for direct matching, filled in one pass over the data.

    Args:
        sources, targets: shapes of the representations at the sites of each side.
        rule: how positions are matched.
        same: True if both sides are the same representations (self-stitching).

    Raises:
        SutureError: no two shapes can be aligned, or tokens of texts are to be flattened.
    """

    scratch = ("settings", "_shapes")
    """Attributes that a checkpoint need not hold."""

    def __init__(self, sources: Sequence[Shape], targets: Sequence[Shape], settings: AccumulatorSettings,
                 rule: AlignmentRule = DEFAULT_RULE, *, same: bool = False) -> None:
        self.settings, self._same = settings, same
        self._shapes = list(sources), list(targets)
        how: dict[str, Any] = {"same": same, "precision": settings.precision, "folds": settings.blocks}
        self._stitch = (AlignedMoments(sources, targets, rule, **how,
                                       higher=bool(settings.select_requests(STITCH, Needs.HIGHER)),
                                       closed=bool(settings.select_closed(STITCH)))
                        if settings.fits_layers or settings.select_requests(STITCH)
                        or not settings.requests else None)
        self._pooled = PooledMoments(sources, targets, settings, same=same)
        tables = {STITCH: {} if self._stitch is None else self._stitch.alignments,
                  "pool": self._pooled.alignments}
        self._rows = {a: RowSample(of, stitched=a == STITCH, most=settings.sample, seed=settings.seed,
                                   precision=settings.precision)
                      for a, of in tables.items() if settings.select_requests(a, Needs.ROWS)}
        flat = settings.select_requests("flatten")
        for s in (*sources, *targets) if flat else ():
            expect(not s.varies, "representations of one size for the alignments 'flatten' and 'paper'",
                   f"{s}, tokens of texts", "write @pool")
        self._flat = FlatKernels.for_indices((r.index for r in flat), len(sources), len(targets), same=same,
                                             precision=settings.precision)
        self.own = ([ShiftedSums(s.width, settings.precision) for s in sources]
                     if settings.select_requests(STITCH) and not same else [])
        self._nulls = NullRows(self._shapes, {} if self._stitch is None else self._stitch.alignments,
                               self._pooled.alignments, settings, self._rows.get("pool"), same=same)
        self.examples = 0

    @property
    def parts(self) -> list[Any]:
        """The accumulators of all statistics that can be merged (`suture.representations.shards`)."""
        return [p for p in (self._stitch, self._pooled, *self._rows.values(), self._nulls) if p is not None]

    @property
    def stitch(self) -> AlignedMoments:
        """Moments of the matrices that the stitching layers map; a `SutureError` without them."""
        if self._stitch is None:
            raise SutureError("expected moments of the stitched matrices, none were wanted; ask for a method "
                              "or an index without @")
        return self._stitch

    @property
    def has_stitch(self) -> bool:
        return self._stitch is not None

    @property
    def unaligned(self) -> Mapping[Cell, str]:
        """Cells whose positions cannot be aligned, with the reason; they have means over positions only."""
        return {} if self._stitch is None else self._stitch.unaligned

    @property
    def nbytes_planned(self) -> int:
        """Number of bytes that all cells will need, known before the first batch."""
        parts: list[Any] = [*self._pooled.wanted.values(), *self._rows.values(), self._nulls]
        parts += [] if self._stitch is None else [self._stitch]
        features = [s.width * s.rows for side in self._shapes[:2 - self._same] for s in side]
        return (sum(int(part.nbytes_planned) for part in parts) + sum(s.nbytes for s in self.own)
                + (0 if self._flat is None else self._flat.nbytes_planned(features)))

    @torch.no_grad()
    def update(self, xs: Sequence[Tensor], ys: Sequence[Tensor], mask_x: Masks = None,
               mask_y: Masks = None, labels: Tensor | None = None, shared: SharedWork | None = None) -> None:
        """Add one batch, with `labels` for indices within classes; see `AlignedMoments.update`."""
        self._nulls.note_labels(len(xs[0]), labels)
        self.examples += len(xs[0])
        if self._stitch is not None:
            self._stitch.update(xs, ys, mask_x, mask_y, shared)
        if self._flat is not None:
            self._flat.update(xs, ys)
        for x, shape, sums in zip(xs, self._shapes[0], self.own, strict=bool(self.own)):
            rows = get_row_mask(shape, View.ALL, mask_x)
            sums.update(to_grid(x, shape, View.ALL).flatten(1, -2),
                        mask=None if rows is None else rows.flatten(1), shared=shared)
        if self._pooled.wanted or self._rows or self._nulls.wanted:
            self._add_examples(*self._drop_all_padding(xs, ys, mask_x, mask_y))

    def _add_examples(self, xs: Sequence[Tensor], ys: Sequence[Tensor], mask_x: Masks,
                      mask_y: Masks) -> None:
        """Add the statistics that have one row per example."""
        if not len(xs[0]):
            return
        if STITCH in self._rows:
            self._rows[STITCH].update(xs, ys, mask_x, mask_y)
        self._nulls.update(xs, ys, mask_x, mask_y)
        if self._pooled.wanted or "pool" in self._rows or self._nulls.pools:
            px, py = (self._pooled.pool(side, tensors, self._fill_mask(mask, other))
                      for side, tensors, mask, other in ((0, xs, mask_x, mask_y), (1, ys, mask_y, mask_x)))
            if "pool" in self._rows:
                self._rows["pool"].update(px, py, None, None)
            self._nulls.update_pooled(px, py)
            if self._pooled.wanted:
                self._pooled.update(px, py)

    def _fill_mask(self, own: Masks, other: Masks) -> Masks:
        """Return a side's masks, with the other side's where tokens of a sequence are matched without one."""
        shared = find_shared_sequences(*self._shapes)
        if not (isinstance(own, TokenMasks) or isinstance(other, TokenMasks)):
            return other if own is None and shared else own
        count = 1 + max(s.sequence for of in self._shapes for s in of)
        found = {k: select_mask(own, k) for k in range(count)}
        return TokenMasks(tuple(select_mask(other, k) if m is None and k in shared else m
                                for k, m in found.items()))

    def _drop_all_padding(self, xs: Sequence[Tensor], ys: Sequence[Tensor], mask_x: Masks,
                          mask_y: Masks) -> tuple[Sequence[Tensor], Sequence[Tensor], Masks, Masks]:
        """Drop examples of padding tokens only, which have no mean and no position to draw."""
        found = [rows.flatten(1).any(1)
                 for shapes, mask in zip(self._shapes, (mask_x, mask_y), strict=True)
                 for s in shapes if (rows := get_row_mask(s, View.GRID, mask)) is not None]
        if not found or bool((kept := torch.stack(found).all(0)).all()):
            return xs, ys, mask_x, mask_y
        self._nulls.drop_labels(kept)
        first, second = (None if m is None else m[kept] for m in (mask_x, mask_y))
        return [x[kept] for x in xs], [y[kept] for y in ys], first, second

    @property
    def tables(self) -> dict[str, AlignedMoments]:
        """Moments by alignment, and ``"standard"`` those of standardised rows."""
        found = {STITCH: self._stitch, "pool": self._pooled.wanted.get("plain"),
                 "standard": self._pooled.wanted.get("standard")}
        return {name: moments for name, moments in found.items() if moments is not None}

    def get_pair(self, i: int, j: int, alignment: str = STITCH,
                 left: Mapping[str, LeftOut] = MappingProxyType({})) -> Pair:
        """Return the moments of one cell in one alignment; `left` says which block is left out.

        If an index needs blocks, the rows are in `FOLDS` of them.
        """
        self._pooled.flush()
        moments, out = self.tables[alignment], left.get(alignment)
        pair = (out or moments).get_pair(i, j)
        if (alignment != STITCH
            or all(s[k].kind is Kind.VECTOR for s, k in zip(self._shapes, (i, j), strict=True))):
            pair = self._pooled.add_unit_sums(pair, i, j, left.get("standard"))
        if not self.settings.select_requests(alignment, Needs.BLOCKS):
            return pair
        folds = moments.get_folds(i, j, FOLDS, None if out is None else out.number)
        return replace(pair, blocks=tuple(map(MomentBlock, folds)))

    def compute_values(self, i: int, j: int) -> dict[str, Value]:
        """Compute the requested indices of one cell by name, without those of the alignment ``paper``."""
        return self.compute_all_values([(i, j)])[i, j]

    def compute_all_values(self, cells: Sequence[Cell],
                           progress: Progress | None = None,
                           keeper: Keeper = NO_KEEPER) -> dict[Cell, dict[str, Value]]:
        """Compute the requested indices of many cells, several cells at once.

        LAPACK runs in one thread per cell, because more threads do not speed it up. The user's own functions
        run one at a time. `progress` is called as ``progress("indices", cells done, cells)``.
        """
        self._pooled.flush()
        self._nulls.check_labels()
        threads = torch.get_num_threads()
        known, own = ([r for r in self.settings.requests if bool(r.index.user) == users]
                      for users in (False, True))
        found: dict[Cell, dict[str, Value]] = {}
        torch.set_num_threads(1)
        try:
            with (keeper.keep("indices", {"found": found}, "moments") as kept,
                  ThreadPoolExecutor(threads) as pool):
                kept.fill_unless_changed()
                # A few cells at a time, because each job holds the moments of its cell.
                for start in range(len(found), len(cells), 4 * threads):
                    some = cells[start:start + 4 * threads]
                    jobs = [self._prepare_job(*cell, known) for cell in some]
                    for cell, values in zip(some, pool.map(lambda job: job(), jobs), strict=True):
                        values |= self._prepare_job(*cell, own)()
                        found[cell] = {r.name: values[r.name] for r in self.settings.requests
                                       if r.name in values}
                        if progress:
                            progress("indices", len(found), len(cells))
                    kept.step(len(found))
                kept.finish(len(found))
                if self.settings.jackknife:
                    intervals = CellIntervals(self, found)
                    intervals.run(pool, keeper, progress)
                    for cell, values in intervals.compute_values().items():
                        found[cell] |= values
        finally:
            torch.set_num_threads(threads)
        return found

    def _prepare_job(self, i: int, j: int, requests: Sequence[Request]) -> Callable[[], dict[str, Value]]:
        """Return a function that computes indices of one cell from data looked up beforehand."""
        data: dict[str, Any] = {}
        why = self.unaligned.get((i, j), "")
        missing = {r.name: Value.missing(why) for r in requests if why and r.alignment == STITCH}
        requests = [r for r in requests if r.name not in missing]
        for alignment in (STITCH, "pool"):
            needs = {r.index.needs for r in requests if r.alignment == alignment}
            data[alignment] = {}
            if needs & FROM_MOMENTS:
                data[alignment] |= dict.fromkeys(FROM_MOMENTS, self.get_pair(i, j, alignment))
            if Needs.ROWS in needs:
                data[alignment][Needs.ROWS] = self._rows[alignment].get_sample(i, j)
        if self._flat is not None:
            data["flatten"] = dict(self._flat.get_kernels(i, j))
        nulls = self._nulls.make_sources(i, j, requests)
        if WITHIN in nulls:
            data[WITHIN], nulls[WITHIN] = self._nulls.prepare_within(i, j)
        work = partial(compute_indices, requests, data, nulls=nulls)
        return lambda: work() | missing

    def count_rows(self, i: int, j: int) -> Mapping[str, int]:
        """Count the rows of each requested index of a cell, by index name."""
        self._pooled.flush()
        plain = self._pooled.wanted.get("plain")
        moments = {STITCH: (0 if self._stitch is None or (i, j) in self.unaligned
                            else self._stitch.count_rows(i, j)),
                   "pool": 0 if plain is None else plain.examples, "flatten": self.examples,
                   WITHIN: self._nulls.count_classed()}

        def count(r: Request) -> int:
            if r.index.needs is Needs.ROWS and r.alignment != WITHIN:
                return self._rows[r.alignment].examples
            if r.index.needs is Needs.KEPT_KERNELS and self._flat is not None:
                return self._flat.kept
            return moments[r.alignment]

        return {r.name: count(r) for r in self.settings.requests if r.alignment in moments}

    def count_permuted(self, i: int, j: int, alignment: str, examples: int) -> tuple[int, bool]:
        """Count the rows that permutations move, see `NullRows.count_permuted`."""
        return self._nulls.count_permuted(i, j, alignment, examples)

    def compute_statistics(self, side: str, k: int) -> SiteStatistics:
        """Compute the statistics of site `k` of a side ("source" or "target"), with positions as rows."""
        if side == "source" and self.own:
            sums = self.own[k].get_side()
        else:
            source = k if self._same else next(i for i, j in self.stitch.alignments if j == k)
            sums = self.stitch.get_moments(source, k).y
        return SiteStatistics.of(sums, precision=self.settings.precision)
