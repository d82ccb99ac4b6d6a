"""Moments of every cell of a comparison, accumulated in one pass for representations of any kinds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import product

import torch
from torch import Tensor

from suture._base import SutureError, expect
from suture.numbers import (
    Moments,
    NonFiniteError,
    Pair,
    PairMoments,
    Resizing,
    Side,
    Spectrum,
    merge_all,
    merge_blocks,
)
from suture.representations.alignment import DEFAULT_RULE, Alignment, AlignmentRule
from suture.representations.shapes import Shape
from suture.representations.views import View, describe_positions, get_row_mask, to_grid

SiteView = tuple[int, View]
_ONE_TOKENIZER = "use one tokenizer and one padding for both networks"


class _SiteViews:
    """Views of one side's sites whose moments are accumulated."""

    def __init__(self, shapes: Sequence[Shape], views: Iterable[SiteView]) -> None:
        self.shapes, self.views = shapes, sorted(set(views), key=lambda v: (v[0], v[1].value))
        self.grids = [describe_positions(shapes[i], v) for i, v in self.views]
        self.widths = [shapes[i].width for i, _ in self.views]

    def read(self, tensors: Sequence[Tensor], mask: Tensor | None,
             precision: torch.dtype) -> tuple[list[Tensor], dict[Hashable, Tensor]]:
        """Return the grids of one batch, and the row masks of those that have padding."""
        # Means are computed in the precision of the products.
        grids = [to_grid(tensors[i] if v in (View.ALL, View.GRID) else tensors[i].to(precision),
                         self.shapes[i], v, mask) for i, v in self.views]
        masks = ((grid, get_row_mask(self.shapes[i], v, mask))
                 for (i, v), grid in zip(self.views, self.grids, strict=True))
        return grids, {grid: m for grid, m in masks if m is not None}


class AlignedMoments:
    """Moments of every cell, accumulated batch by batch for each part of an alignment and then merged.

    Args:
        same: True in self-stitching, where both sides are the same; shared products are computed once.
        precision, higher: see `PairMoments`.
        folds: number of parts of the examples whose moments are kept apart, for cross-validation. Example
            number k belongs to fold k modulo `folds`, whatever the batches.
    """

    def __init__(self, sources: Sequence[Shape], targets: Sequence[Shape], rule: AlignmentRule = DEFAULT_RULE,
                 *, same: bool = False, precision: torch.dtype = torch.float32, higher: bool = True,
                 folds: int = 1) -> None:
        self.sources, self.targets, self.precision, self._same = list(sources), list(targets), precision, same
        self.alignments = {(i, j): Alignment(x, y, rule)
                           for (i, x), (j, y) in product(enumerate(sources), enumerate(targets))}
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
        self._matches_sequences = all(any(s.is_sequence for s in side) for side in (sources, targets))
        self._spectra: dict[Hashable, Spectrum] = {}
        self._last: tuple[tuple[int, int], list[Moments], Moments] | None = None

    @property
    def examples(self) -> int:
        return sum(f.examples for f in self._folds)

    @property
    def nbytes(self) -> int:
        """Number of bytes of the sums. It does not depend on the number of examples."""
        return sum(f.nbytes for f in self._folds)

    @property
    def nbytes_planned(self) -> int:
        """Number of bytes that the sums will need, known before the first batch."""
        return sum(f.nbytes_planned for f in self._folds)

    @torch.no_grad()
    def update(self, xs: Sequence[Tensor], ys: Sequence[Tensor], mask_x: Tensor | None = None,
               mask_y: Tensor | None = None) -> None:
        """Add one batch: the representations of the same examples at the sites of each side.

        Masks are (N, T) booleans, False at padding tokens. Where tokens are matched with tokens, a side
        without a mask uses the other side's. A `NonFiniteError` names the side and the site of NaN or inf.
        """
        self._spectra.clear()
        self._last = None
        start, k, n = self.examples, len(self._folds), len(xs[0])
        if self._matches_sequences and not self._same:
            self._check_tokens(xs, ys, mask_x, mask_y)
        for fold, moments in enumerate(self._folds):
            rows = slice(None) if k == 1 else slice((fold - start) % k, None, k)
            if len(range(n)[rows]):
                self._add(moments, [x[rows] for x in xs], [y[rows] for y in ys],
                          *(None if m is None else m[rows] for m in (mask_x, mask_y)))

    def _check_tokens(self, xs: Sequence[Tensor], ys: Sequence[Tensor], *masks: Tensor | None) -> None:
        """Check that one tokenizer and one padding made both sides: position k is then the same word."""
        lengths = [{x.shape[1] for x, shape in zip(tensors, shapes, strict=True) if shape.varies}
                   for tensors, shapes in ((xs, self.sources), (ys, self.targets))]
        first, second = masks
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

    def _add(self, moments: PairMoments, xs: list[Tensor], ys: list[Tensor], mask_x: Tensor | None,
             mask_y: Tensor | None) -> None:
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
        """Return one cell's centred moments in each fold; `most` merges fold b into number b modulo `most`.
        """
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
        """Return the moments of one cell with the spectra of both sides, each computed once for all cells."""
        m, a = self.get_moments(i, j), self.alignments[i, j]
        if self._same and self.alignments[i, i].source_rows == a.source_rows:
            x = self._get_spectrum(lambda: self.get_moments(i, i).y, "target", i,
                                   self.alignments[i, i].target_rows)
        else:
            x = self._get_spectrum(lambda: m.x, "source", i, a.source_rows)
        return Pair(m, x, self._get_spectrum(lambda: m.y, "target", j, a.target_rows))

    def _get_spectrum(self, side: Callable[[], Side], *key: Hashable) -> Spectrum:
        if key not in self._spectra:
            self._spectra[key] = Spectrum.of(side(), self.precision)
        return self._spectra[key]
