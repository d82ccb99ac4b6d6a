"""A sample of rows, one per example, from which some indices of every cell are computed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from suture._base import exact_products
from suture.indices import Rows, Sample
from suture.numbers import (
    ChosenRows,
    Ints,
    Reservoir,
    Resizing,
    compute_interpolation,
    draw_uniform,
    merge_samples,
)
from suture.representations.alignment import Alignment, Part
from suture.representations.token_masks import Masks
from suture.representations.views import describe_positions, get_row_mask, to_grid

_POSITIONS = (1,)
"""Purpose of the draws of positions, which keeps them apart from the draws of examples."""


class RowSample:
    """A sample of rows of both sides of every cell: one row for each of `most` examples.

    Under ``pool`` the row is the pooled example. Under ``stitch`` (`stitched`) it is a random position of the
    target that is not padding, and the same position of the source after resizing. The draw depends only on
    the seed and on the example's number among those that are not all padding.
    """

    scratch = ("_alignments", "_precision", "_made")
    """Attributes that a checkpoint need not hold."""

    def __init__(self, alignments: Mapping[tuple[int, int], Alignment], *, stitched: bool, most: int,
                 seed: int, precision: torch.dtype, chosen: ChosenRows | None = None) -> None:
        self._stitched, self._alignments, self._precision = stitched, alignments, precision
        self._reservoir = Reservoir(most, seed) if chosen is None else chosen
        self._tables: dict[Hashable, Tensor] = {}
        self._made: dict[Hashable, Rows] = {}

    @property
    def examples(self) -> int:
        return len(self._reservoir.numbers)

    @property
    def offered(self) -> int:
        """Number of examples that were drawn from."""
        return self._reservoir.seen

    @property
    def numbers(self) -> Ints:
        """Numbers of the kept examples among those offered, by row."""
        return self._reservoir.numbers

    @property
    def nbytes_planned(self) -> int:
        """Number of bytes that the rows will need, known before the first batch."""
        widths = {key: s.width for (i, j), a in self._alignments.items()
                  for key, s in zip(self._make_keys(i, j), (a.source, a.target), strict=True)}
        return self._reservoir.most * self._precision.itemsize * sum(widths.values())

    @exact_products()
    def update(self, xs: Sequence[Tensor], ys: Sequence[Tensor], mask_x: Masks,
               mask_y: Masks) -> None:
        """Draw from one batch. Every example must have a row that is not padding."""
        self._made.clear()
        start = self._reservoir.start + self._reservoir.seen
        kept, slots = self._reservoir.offer(len(xs[0]))
        if not len(kept):
            return
        at, into = torch.from_numpy(kept).to(xs[0].device), torch.from_numpy(slots)
        draws = torch.from_numpy(draw_uniform(self._reservoir.seed, start + kept, purpose=_POSITIONS)[:, 0])
        masks = [None if m is None else m[at] for m in (mask_x, mask_y)]
        done: set[Hashable] = set()
        for (i, j), a in self._alignments.items():
            keys = self._make_keys(i, j)
            missing = [side for side in (0, 1) if keys[side] not in done]
            if missing:
                done |= set(keys)
                pair = [x[at].to(self._precision) for x in (xs[i], ys[j])]
                rows = _draw_rows(pair, a, draws, masks) if self._stitched else pair
                for side in missing:
                    self._store(keys[side], into, rows[side])

    def start_at(self, number: int) -> None:
        """Begin with an example in the middle of the data."""
        self._reservoir.start_at(number)

    def absorb(self, *others: RowSample) -> None:
        """Become the sample of all examples; those of the others follow in order."""
        parts = (self, *others)
        made, places = merge_samples([part._reservoir for part in parts])
        tables = {}
        for key in {key: 0 for part in parts for key in part._tables}:
            rows = torch.stack([parts[k]._tables[key][slot] for k, slot in places])
            tables[key] = rows.new_zeros(made.most, rows.shape[1])
            tables[key][:len(rows)] = rows
        self._reservoir, self._tables, self._made = made, tables, {}

    def _store(self, key: Hashable, slots: Tensor, rows: Tensor) -> None:
        rows = rows.detach().cpu()
        if key not in self._tables:
            self._tables[key] = rows.new_zeros(self._reservoir.most, rows.shape[1])
        self._tables[key][slots] = rows

    def _make_keys(self, i: int, j: int) -> tuple[Hashable, Hashable]:
        """Return the keys of both sides of a cell, equal for cells that share the rows."""
        a = self._alignments[i, j]
        return (0, i, self._stitched and a.source_rows), (1, j, self._stitched and a.target_rows)

    def get_sample(self, i: int, j: int) -> Sample:
        keys = self._make_keys(i, j)
        for key, name in zip(keys, ("x", "y"), strict=True):
            if key not in self._made:
                self._made[key] = Rows.of(self._tables[key][:self.examples], name)
        return Sample(self._made[keys[0]], self._made[keys[1]])


def _draw_rows(pair: Sequence[Tensor], a: Alignment, draws: Tensor,
               masks: Sequence[Masks]) -> list[Tensor]:
    """Draw one (N, C) row per example and side; `draws` (N,) in [0, 1) chooses among the unpadded rows."""
    unpadded = [find_unpadded_rows(a, p, pair, masks) for p in a.parts]
    ends = torch.stack([u.sum(1) for u in unpadded]).cumsum(0).cpu()
    chosen = (draws * ends[-1]).long()
    found = [x.new_zeros(len(x), s.width) for x, s in zip(pair, (a.source, a.target), strict=True)]
    start = torch.zeros_like(chosen)
    for p, rows, end in zip(a.parts, unpadded, ends, strict=True):
        here = ((chosen >= start) & (chosen < end)).nonzero().flatten().to(rows.device)
        if len(here):
            nth = (chosen - start).to(rows.device)[here]
            place = ((rows[here].cumsum(1) - 1 == nth[:, None]) & rows[here]).int().argmax(1)
            for made, x, mask, s, view, r in zip(found, pair, masks, (a.source, a.target),
                                                 (p.source, p.target), (p.resizing, None), strict=True):
                made[here] = _take_position(to_grid(x[here], s, view, None if mask is None else mask[here]),
                                            place, r)
        start = end
    return found


def find_unpadded_rows(a: Alignment, p: Part, pair: Sequence[Tensor],
                        masks: Sequence[Masks]) -> Tensor:
    """Return (N, rows) booleans, True at a part's unpadded rows, by the target's mask, else the source's."""
    mask = get_row_mask(a.target, p.target, masks[1])
    if mask is None and describe_positions(a.source, p.source) == describe_positions(a.target, p.target):
        mask = get_row_mask(a.source, p.source, masks[0])
    if mask is not None:
        return mask.flatten(1)
    rows = to_grid(pair[1][:1], a.target, p.target)[0].flatten(0, -2)
    return torch.ones(len(pair[1]), len(rows), dtype=torch.bool, device=rows.device)


def _take_position(grid: Tensor, place: Tensor, resizing: Resizing | None) -> Tensor:
    """Return the (N, C) row with the number `place` (N,) of each grid (N, D, H, W, C), after resizing."""
    if resizing is None or resizing.source == resizing.target:
        return grid.flatten(1, -2)[torch.arange(len(grid), device=grid.device), place]
    # From the last axis on, each axis is reduced to the weighted mean at the position that `place` has there.
    for source, target in zip(resizing.source[::-1], resizing.target[::-1], strict=True):
        weights = compute_interpolation(source, target, resizing.mode).to(grid)[place % target]
        grid, place = torch.einsum("nw,n...wc->n...c", weights, grid), place // target
    return grid
