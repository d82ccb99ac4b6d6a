"""Moments of every cell, accumulated in one pass: of aligned positions, and of examples pooled over them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from suture._base import SutureError, expect
from suture.indices import FROM_MOMENTS, STITCH, Needs
from suture.numbers import (
    MomentBlock,
    Moments,
    NonFiniteError,
    Pair,
    PairMoments,
    Resizing,
    Spectra,
    UnitRowSums,
    merge_all,
    merge_blocks,
    standardise_rows,
)
from suture.representations.alignment import (
    DEFAULT_RULE,
    Alignment,
    AlignmentRule,
    View,
    describe_positions,
    get_row_mask,
    to_grid,
)
from suture.representations.shapes import Kind, Shape
from suture.representations.token_masks import Masks, select_mask

if TYPE_CHECKING:
    from suture.representations.accumulator_settings import AccumulatorSettings

Cell = tuple[int, int]
SiteView = tuple[int, View]
_MEANS_AT_ONCE = 1000
"""Number of means added at once: with few rows, an addition to the sums costs more than the products."""
_ONE_TOKENIZER = "use one tokenizer and one padding for both networks"


class _SiteViews:
    """Views of one side's sites whose moments are accumulated."""

    def __init__(self, shapes: Sequence[Shape], views: Iterable[SiteView]) -> None:
        self.shapes, self.views = shapes, sorted(set(views), key=lambda v: (v[0], v[1].value))
        self.grids = [describe_positions(shapes[i], v) for i, v in self.views]
        self.widths = [shapes[i].width for i, _ in self.views]

    def read(self, tensors: Sequence[Tensor], mask: Masks,
             precision: torch.dtype) -> tuple[list[Tensor], dict[Hashable, Tensor]]:
        """Return the grids of one batch, and the row masks of those that have padding."""
        # Means are computed in the precision of the products.
        grids = [to_grid(tensors[i] if v in (View.ALL, View.GRID) else tensors[i].to(precision),
                         self.shapes[i], v, mask) for i, v in self.views]
        masks = ((grid, get_row_mask(self.shapes[i], v, mask))
                 for (i, v), grid in zip(self.views, self.grids, strict=True))
        return grids, {grid: m for grid, m in masks if m is not None}


def align_cells(sources: Sequence[Shape], targets: Sequence[Shape],
                rule: AlignmentRule) -> tuple[dict[Cell, Alignment], dict[Cell, str]]:
    """Return the alignments of the cells, and the reason for each cell that cannot be aligned.

    Raises:
        SutureError: no cell can be aligned.
    """
    found: dict[Cell, Alignment] = {}
    failed: dict[Cell, str] = {}
    for (i, x), (j, y) in product(enumerate(sources), enumerate(targets)):
        try:
            found[i, j] = Alignment(x, y, rule)
        except SutureError as e:
            failed[i, j] = str(e)
    if failed and not found:
        raise SutureError(next(iter(failed.values())))
    return found, failed


def find_shared_sequences(*sides: Sequence[Shape]) -> list[int]:
    """Return the numbers of the input sequences that have sites on both sides."""
    first, second = ({s.sequence for s in side if s.is_sequence} for side in sides)
    return sorted(first & second)


class AlignedMoments:
    """Moments of every cell that can be aligned: accumulated batch by batch for each part, and then merged.

    Args:
        same: True in self-stitching, where both sides are the same; shared products are computed once.
        precision, higher: see `PairMoments`.
        folds: number of parts of the examples whose moments are kept apart, for cross-validation. Example
            number k belongs to fold k modulo `folds`, whatever the batches.
    """

    scratch = ("sources", "targets", "precision", "alignments", "unaligned", "_x", "_y", "spectra", "_last")
    """Attributes that a checkpoint need not hold."""

    def __init__(self, sources: Sequence[Shape], targets: Sequence[Shape], rule: AlignmentRule = DEFAULT_RULE,
                 *, same: bool = False, precision: torch.dtype = torch.float32, higher: bool = True,
                 folds: int = 1) -> None:
        self.sources, self.targets, self.precision, self._same = list(sources), list(targets), precision, same
        self.alignments, self.unaligned = align_cells(sources, targets, rule)
        parts = [(i, j, p) for (i, j), a in self.alignments.items() for p in a.parts]
        used_x, used_y = [(i, p.source) for i, _, p in parts], [(j, p.target) for _, j, p in parts]
        self._x = _SiteViews(self.sources, used_x + used_y if same else used_x)
        self._y = self._x if same else _SiteViews(self.targets, used_y)
        resizings = {(describe_positions(sources[i], p.source), describe_positions(targets[j], p.target)):
                     p.resizing for i, j, p in parts}
        for grid in self._x.grids if same else ():
            resizings.setdefault((grid, grid), Resizing(grid[1:], grid[1:], rule.resize))
        self._folds = [PairMoments(self._x.grids, self._x.widths, self._y.grids, self._y.widths, resizings,
                                   same=same, precision=precision, higher=higher) for _ in range(folds)]
        self.spectra = Spectra()
        self._last: tuple[tuple[int, int], list[Moments], Moments] | None = None

    @property
    def examples(self) -> int:
        return sum(f.examples for f in self._folds)

    @property
    def nbytes_planned(self) -> int:
        """Number of bytes that the sums will need, whatever the number of examples."""
        return sum(f.nbytes_planned for f in self._folds)

    @torch.no_grad()
    def update(self, xs: Sequence[Tensor], ys: Sequence[Tensor], mask_x: Masks = None,
               mask_y: Masks = None) -> None:
        """Add one batch: the representations of the same examples at the sites of each side.

        Masks are (N, T) booleans, False at padding tokens. Where tokens are matched with tokens, a side
        without a mask uses the other side's. A `NonFiniteError` names the side and the site of NaN or inf.
        """
        self.spectra = Spectra()
        self._last = None
        start, k, n = self.examples, len(self._folds), len(xs[0])
        for sequence in () if self._same else find_shared_sequences(self.sources, self.targets):
            self._check_tokens(sequence, xs, ys, mask_x, mask_y)
        for fold, moments in enumerate(self._folds):
            rows = slice(None) if k == 1 else slice((fold - start) % k, None, k)
            if len(range(n)[rows]):
                self._add(moments, [x[rows] for x in xs], [y[rows] for y in ys],
                          *(None if m is None else m[rows] for m in (mask_x, mask_y)))

    def _check_tokens(self, sequence: int, xs: Sequence[Tensor], ys: Sequence[Tensor], *masks: Masks) -> None:
        """Check that one tokenizer and one padding made both sides: position k is then the same word."""
        lengths = [{shape.get_size(x)[0] for x, shape in zip(tensors, shapes, strict=True)
                    if shape.varies and shape.sequence == sequence}
                   for tensors, shapes in ((xs, self.sources), (ys, self.targets))]
        first, second = (select_mask(m, sequence) for m in masks)
        if first is not None and second is not None:
            lengths = [lengths[0] | {first.shape[1]}, lengths[1] | {second.shape[1]}]
        if all(lengths) and lengths[0] != lengths[1]:
            source, target = (" or ".join(map(str, sorted(found))) for found in lengths)
            raise SutureError(f"expected as many tokens on both sides, got {source} for the source and "
                              f"{target} for the target; {_ONE_TOKENIZER}")
        if first is None or second is None or first is second or torch.equal(first, second):
            return
        row = int((first != second).any(1).int().argmax())
        raise SutureError(f"the attention masks differ: {int(first[row].sum())} unpadded tokens for the "
                          f"source and {int(second[row].sum())} for the target in example {row}; "
                          f"{_ONE_TOKENIZER}")

    def _add(self, moments: PairMoments, xs: list[Tensor], ys: list[Tensor], mask_x: Masks,
             mask_y: Masks) -> None:
        grids_x, masks = self._x.read(xs, mask_x, self.precision)
        grids_y, masks_y = (grids_x, masks) if self._same else self._y.read(ys, mask_y, self.precision)
        try:
            moments.update(grids_x, grids_y, masks | masks_y)
        except NonFiniteError as e:
            views = (self._x if e.side == "source" else self._y).views
            raise NonFiniteError(e.side, views[e.index][0]) from None

    def _merge_parts(self, fold: PairMoments, i: int, j: int) -> Moments:
        parts = [fold.get_moments(self._x.views.index((i, p.source)), self._y.views.index((j, p.target)))
                 for p in self.alignments[i, j].parts]
        return merge_all([p for p in parts if p.n] or parts[:1])

    def get_folds(self, i: int, j: int, most: int | None = None) -> list[Moments]:
        """Return one cell's centred moments in each fold; `most` merges fold b into b modulo `most`."""
        found = self._get_merged(i, j)[1]
        return found if most is None else merge_blocks(found, most)

    def get_moments(self, i: int, j: int) -> Moments:
        """Return the centred moments of one cell."""
        return self._get_merged(i, j)[2]

    def _get_merged(self, i: int, j: int) -> tuple[tuple[int, int], list[Moments], Moments]:
        """Return the cell, its moments in each fold that has rows, and those of all folds."""
        expect(self.examples > 0, "at least one batch", "none", "call update first")
        if self._last is None or self._last[0] != (i, j):
            found = [m for f in self._folds if f.examples and (m := self._merge_parts(f, i, j)).n]
            whole = merge_all(found) if found else self._merge_parts(self._folds[0], i, j)
            self._last = ((i, j), found, whole)
        return self._last

    def get_pair(self, i: int, j: int) -> Pair:
        """Return the moments of one cell; the spectra of both sides are computed once for all cells."""
        a = self.alignments[i, j]
        x: tuple[Hashable, ...] = ("source", i, a.source_rows)
        own = self.alignments.get((i, i)) if self._same else None
        if own is not None and own.source_rows == a.source_rows and own.takes_rows_as_they_are:
            x = ("target", i, own.target_rows)
        return Pair(self.get_moments(i, j), share=a.independent_share, spectra=self.spectra,
                    keys=(x, ("target", j, a.target_rows)))


class PooledMoments:
    """Moments of pooled examples, plain and with standardised rows, and sums of rows of unit length.

    `wanted` holds the ``"plain"`` and the ``"standard"`` moments, as far as the settings ask for them.
    """

    scratch = ("settings", "alignments", "_shapes")

    def __init__(self, sources: Sequence[Shape], targets: Sequence[Shape], settings: AccumulatorSettings, *,
                 same: bool = False) -> None:
        self.settings, self._shapes = settings, (list(sources), list(targets))
        how: dict[str, Any] = {"same": same, "precision": settings.precision}
        xs, ys = ([Shape(Kind.VECTOR, s.width) for s in side] for side in self._shapes)
        # Rows of two vectors are examples under either alignment.
        has_vectors = all(any(s.kind is Kind.VECTOR for s in side) for side in self._shapes)
        self.wanted: dict[str, AlignedMoments] = {}
        if settings.select_requests("pool", *FROM_MOMENTS):
            higher = bool(settings.select_requests("pool", Needs.HIGHER) or settings.select_closed("pool"))
            self.wanted["plain"] = AlignedMoments(xs, ys, **how, folds=settings.blocks, higher=higher)
        self._blocks = settings.blocks if settings.jackknife else 1
        if (settings.select_requests("pool", Needs.UNITS)
                or (has_vectors and settings.select_requests(STITCH, Needs.UNITS))):
            self.wanted["standard"] = AlignedMoments(xs, ys, **how, folds=self._blocks)
        self.alignments = {(i, j): Alignment(x, y) for i, x in enumerate(xs) for j, y in enumerate(ys)}
        self._units: dict[tuple[int, int, int], UnitRowSums] = {}
        self._waiting: list[tuple[list[Tensor], list[Tensor]]] = []

    def pool(self, side: int, tensors: Sequence[Tensor], mask: Masks) -> list[Tensor]:
        """Compute the (N, C) means over positions of the sources (side 0) or the targets (side 1)."""
        means = [to_grid(x.to(self.settings.precision), s, View.POOLED, mask)[:, 0, 0, 0]
                 for x, s in zip(tensors, self._shapes[side], strict=True)]
        for k, mean in enumerate(means):
            if not torch.isfinite(mean).all():
                raise NonFiniteError("target" if side else "source", k)
        return means

    def update(self, xs: list[Tensor], ys: list[Tensor]) -> None:
        """Queue the means of one batch, and add the queued means once there are enough of them."""
        self._waiting.append((xs, ys))
        if sum(len(x[0]) for x, _ in self._waiting) >= _MEANS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        xs, ys = ([torch.cat(site) for site in zip(*side, strict=True)]
                  for side in zip(*self._waiting, strict=True))
        self._waiting.clear()
        if "plain" in self.wanted:
            self.wanted["plain"].update(xs, ys)
        if "standard" in self.wanted:
            start = self.wanted["standard"].examples
            self.wanted["standard"].update([standardise_rows(x) for x in xs],
                                           [standardise_rows(y) for y in ys])
            self._add_unit_rows((xs, ys), start)

    def _add_unit_rows(self, sides: tuple[list[Tensor], list[Tensor]], start: int) -> None:
        """Add rows of unit length to the sums of their blocks; `start` is the number of the first example."""
        for side, tensors in enumerate(sides):
            for site, x in enumerate(tensors):
                for k in range(self._blocks):
                    found = UnitRowSums.of(x[(k - start) % self._blocks::self._blocks])
                    before = self._units.get((side, site, k))
                    self._units[side, site, k] = found if before is None else before.merge(found)

    def add_unit_sums(self, pair: Pair, folds: list[MomentBlock], i: int,
                      j: int) -> tuple[Pair, list[MomentBlock]]:
        """Add sums of unit rows and moments of standardised rows to a cell, if the settings ask for them."""
        standard = self.wanted.get("standard")
        if standard is None:
            return pair, folds
        units = [(self._units[0, i, k], self._units[1, j, k]) for k in range(self._blocks)
                 if self._units[0, i, k].n]
        if self.settings.jackknife:
            folds = [MomentBlock(p.moments, u, m)
                     for p, u, m in zip(folds, units, standard.get_folds(i, j), strict=True)]
        source, target = (merge_all(side) for side in zip(*units, strict=True))
        return replace(pair, unit=(source, target), standard=standard.get_moments(i, j)), folds
