"""One row of each example of a sample, for every cell: what indices of rows are computed from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture.indices import Reservoir, Rows, Sample
from suture.numbers import Resizing, compute_interpolation
from suture.representations.alignment import Alignment
from suture.representations.alignment import Part as AlignmentPart
from suture.representations.views import describe_positions, get_row_mask, to_grid


class RowSample:
    """One row of each kept example, of both sides of every cell: the pooled one, or a position drawn at
    random.

    Under ``stitch`` the position is one of the target's rows that count, drawn by the seed and the example's
    number among those that count; the source's row is that position of the source brought to the target's
    size.

    Args:
        alignments: of every cell.
        stitched: draw positions; otherwise representations are vectors already.
        most: examples that are kept.
        seed: of the sample and of the positions.
        precision: in which positions are brought to the target's size.
    """

    def __init__(self, alignments: Mapping[tuple[int, int], Alignment], *, stitched: bool, most: int,
                 seed: int, precision: torch.dtype) -> None:
        self._stitch = stitched
        self._alignments, self._seed, self._precision = alignments, seed, precision
        self._reservoir = Reservoir(most, seed)
        self._most = most
        self._tables: dict[Hashable, Tensor] = {}
        self._made: dict[Hashable, Rows] = {}

    @property
    def numbers(self) -> Any:
        """Numbers in the stream of the kept examples."""
        return self._reservoir.numbers

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take."""
        return sum(t.nbytes for t in self._tables.values())

    @property
    def nbytes_planned(self) -> int:
        """Bytes that the rows will take, before there are any."""
        widths = {self._make_key(side, k, a): s.width for (i, j), a in self._alignments.items()
                  for side, k, s in ((0, i, a.source), (1, j, a.target))}
        return self._most * self._precision.itemsize * sum(widths.values())

    def update(self, xs: Sequence[Tensor], ys: Sequence[Tensor], mask_x: Tensor | None,
               mask_y: Tensor | None) -> None:
        """Look at a batch; every example has a row that counts."""
        self._made.clear()
        start = self._reservoir.seen
        kept, slots = self._reservoir.offer(len(xs[0]))
        if not len(kept):
            return
        at, into = torch.from_numpy(kept).to(xs[0].device), torch.from_numpy(slots)
        # Not the stream of `TokenShare`, which draws tokens by (seed, number).
        draws = torch.tensor([np.random.default_rng((self._seed, start + int(k), 1)).random() for k in kept],
                             dtype=torch.float64)
        masks = [None if m is None else m[at] for m in (mask_x, mask_y)]
        done: set[Hashable] = set()
        for (i, j), a in self._alignments.items():
            keys = self._make_key(0, i, a), self._make_key(1, j, a)
            sides = [side for side in (0, 1) if keys[side] not in done]
            if sides:
                done |= set(keys)
                pair = [x[at].to(self._precision) for x in (xs[i], ys[j])]
                rows = _draw_rows(pair, a, draws, masks) if self._stitch else pair
                for side in sides:
                    self._store(keys[side], into, rows[side])

    def _store(self, key: Hashable, slots: Tensor, rows: Tensor) -> None:
        rows = rows.detach().cpu()
        if key not in self._tables:
            self._tables[key] = rows.new_zeros(self._most, rows.shape[1])
        self._tables[key][slots] = rows

    def _make_key(self, side: int, k: int, a: Alignment) -> Hashable:
        if not self._stitch:
            return side, k
        return side, k, (a.source_rows if side == 0 else a.target_rows)

    def get_sample(self, i: int, j: int) -> Sample:
        """The rows of one cell."""
        a = self._alignments[i, j]
        keys = self._make_key(0, i, a), self._make_key(1, j, a)
        for key, name in zip(keys, ("x", "y"), strict=True):
            if key not in self._made:
                self._made[key] = Rows.of(self._tables[key][:len(self.numbers)], name)
        return Sample(self._made[keys[0]], self._made[keys[1]])


def _draw_rows(pair: Sequence[Tensor], a: Alignment, draws: Tensor,
               masks: Sequence[Tensor | None]) -> list[Tensor]:
    """(N, C) of source and target: that row of each example's matrix at the share `draws` (N,) of those that
    count."""
    counts = [_find_unpadded_rows(a, p, pair, masks) for p in a.parts]
    ends = torch.stack([c.sum(1) for c in counts]).cumsum(0).cpu()
    chosen = (draws * ends[-1]).long()
    found = [x.new_zeros(len(x), s.width) for x, s in zip(pair, (a.source, a.target), strict=True)]
    start = torch.zeros_like(chosen)
    for p, counted, end in zip(a.parts, counts, ends, strict=True):
        here = ((chosen >= start) & (chosen < end)).nonzero().flatten().to(counted.device)
        if len(here):
            nth = (chosen - start).to(counted.device)[here]
            place = ((counted[here].cumsum(1) - 1 == nth[:, None]) & counted[here]).int().argmax(1)
            for rows, x, mask, s, view, r in zip(found, pair, masks, (a.source, a.target),
                                                 (p.source, p.target), (p.resizing, None), strict=True):
                rows[here] = _take_position(to_grid(x[here], s, view, None if mask is None else mask[here]),
                                            place, r)
        start = end
    return found


def _find_unpadded_rows(a: Alignment, p: AlignmentPart, pair: Sequence[Tensor],
                        masks: Sequence[Tensor | None]) -> Tensor:
    """(N, rows) which of the target's rows in a part count: by its own mask, or by that of the source's same
    rows."""
    kept = get_row_mask(a.target, p.target, masks[1])
    if kept is None and describe_positions(a.source, p.source) == describe_positions(a.target, p.target):
        kept = get_row_mask(a.source, p.source, masks[0])
    if kept is not None:
        return kept.flatten(1)
    rows = to_grid(pair[1][:1], a.target, p.target)[0].flatten(0, 1)
    return torch.ones(len(pair[1]), len(rows), dtype=torch.bool, device=rows.device)


def _take_position(grid: Tensor, place: Tensor, resampling: Resizing | None) -> Tensor:
    """(N, C) the row with the number `place` (N,) of each grid (N, H, W, C), after resampling."""
    if resampling is None or resampling.source == resampling.target:
        return grid.flatten(1, 2)[torch.arange(len(grid), device=grid.device), place]
    down, across = (compute_interpolation(s, t, resampling.mode).to(grid) for s, t in
                    zip(resampling.source, resampling.target, strict=True))
    width = resampling.target[1]
    rows = torch.einsum("nh,nhwc->nwc", down[place // width], grid)
    return torch.einsum("nw,nwc->nc", across[place % width], rows)


