"""A sample of rows, one per example, from which some indices of every cell are computed."""

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
    """A sample of rows of both sides of every cell: one row for each example that is kept.

    Under ``pool`` the row is the pooled example. Under ``stitch`` it is a position of the target that is not
    padding. The seed and the number of the example among those that are not all padding decide which one. The
    source's row is the same position, after the source is brought to the target's size.

    Args:
        alignments: the alignment of every cell.
        stitched: draw positions; otherwise representations are vectors already.
        most: number of examples to keep.
        seed: seed of the sample and of the positions.
        precision: dtype in which positions are brought to the target's size.
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
        """Numbers of the kept examples in the stream."""
        return self._reservoir.numbers

    @property
    def nbytes(self) -> int:
        """Number of bytes of the rows."""
        return sum(t.nbytes for t in self._tables.values())

    @property
    def nbytes_planned(self) -> int:
        """Number of bytes that the rows will need, known before the first batch."""
        widths = {self._make_key(side, k, a): s.width for (i, j), a in self._alignments.items()
                  for side, k, s in ((0, i, a.source), (1, j, a.target))}
        return self._most * self._precision.itemsize * sum(widths.values())

    def update(self, xs: Sequence[Tensor], ys: Sequence[Tensor], mask_x: Tensor | None,
               mask_y: Tensor | None) -> None:
        """Draw from one batch. Every example must have a row that is not padding."""
        self._made.clear()
        start = self._reservoir.seen
        kept, slots = self._reservoir.offer(len(xs[0]))
        if not len(kept):
            return
        at, into = torch.from_numpy(kept).to(xs[0].device), torch.from_numpy(slots)
        # The 1 keeps these draws independent of those of `TokenShare`, which are seeded by (seed, number).
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
        """Return the sampled rows of one cell."""
        a = self._alignments[i, j]
        keys = self._make_key(0, i, a), self._make_key(1, j, a)
        for key, name in zip(keys, ("x", "y"), strict=True):
            if key not in self._made:
                self._made[key] = Rows.of(self._tables[key][:len(self.numbers)], name)
        return Sample(self._made[keys[0]], self._made[keys[1]])


def _draw_rows(pair: Sequence[Tensor], a: Alignment, draws: Tensor,
               masks: Sequence[Tensor | None]) -> list[Tensor]:
    """Return one (N, C) row per example for the source and for the target.

    `draws` (N,), in [0, 1), says where the row lies among the example's rows that are not padding.
    """
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
    """Return (N, rows) booleans: the target's rows in a part that are not padding.

    The target's own mask decides, else the source's mask where both sides have the same rows.
    """
    kept = get_row_mask(a.target, p.target, masks[1])
    if kept is None and describe_positions(a.source, p.source) == describe_positions(a.target, p.target):
        kept = get_row_mask(a.source, p.source, masks[0])
    if kept is not None:
        return kept.flatten(1)
    rows = to_grid(pair[1][:1], a.target, p.target)[0].flatten(0, 1)
    return torch.ones(len(pair[1]), len(rows), dtype=torch.bool, device=rows.device)


def _take_position(grid: Tensor, place: Tensor, resizing: Resizing | None) -> Tensor:
    """Return the (N, C) row with the number `place` (N,) of each grid (N, H, W, C), after resizing."""
    if resizing is None or resizing.source == resizing.target:
        return grid.flatten(1, 2)[torch.arange(len(grid), device=grid.device), place]
    down, across = (compute_interpolation(s, t, resizing.mode).to(grid) for s, t in
                    zip(resizing.source, resizing.target, strict=True))
    width = resizing.target[1]
    rows = torch.einsum("nh,nhwc->nwc", down[place // width], grid)
    return torch.einsum("nw,nwc->nc", across[place % width], rows)


