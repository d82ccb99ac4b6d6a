"""Moments of all cells of a comparison, accumulated batch by batch.

Sums are about a *shift*, the mean of the first batch, so that a large mean costs no digits. Products are
computed in blocks (float32 by default) and accumulated in float64. Law (tests/test_laws.py): nothing depends
on batch size or order beyond rounding.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from suture._base import SutureError
from suture.numbers.moments import Cross, Moments, Side
from suture.numbers.resizing import Resizing
from suture.numbers.site_groups import SiteGroup, group_sites


class NonFiniteError(SutureError):
    """Error for NaN or inf in a representation.

    Attributes:
        side: "source" or "target".
        index: position of the representation in the list of its side.
    """

    def __init__(self, side: str, index: int) -> None:
        super().__init__(f"NaN or inf in {side} representation {index}")
        self.side, self.index = side, index


def _compute_first_mean(x: Tensor, precision: torch.dtype, mask: Tensor | None) -> Tensor:
    """Compute the mean (C,) over all rows that are not padding, rounded to `precision`.

    It is returned in float64, on the CPU where the device has no float64.
    """
    mean = x.mean((0, 1, 2)) if mask is None else x[mask].sum(0) / max(1, int(mask.sum()))
    mean = mean.to(precision)
    return mean.cpu().double() if mean.device.type == "mps" else mean.double()


def _compute_gram(a: Tensor, width: int, b: Tensor | None = None) -> Tensor:
    """Compute a' b for the first `width` columns of `a`, where the (width, width) part is symmetric.

    Blocks below the diagonal are copied from those above where that saves time.
    """
    b = a if b is None else b
    step = 256 if width >= 512 else 128 if width >= 256 else width
    out = a.new_empty(width, b.shape[1])
    for start in range(0, width, step):
        rows = slice(start, min(start + step, width))
        torch.mm(a[:, rows].T, b[:, start:], out=out[rows, start:])
        out[rows.stop:, rows] = out[rows, rows.stop:width].T
    return out


class PairMoments:
    """Moments of every cell of a comparison, accumulated batch by batch.

    Args:
        source_grids, target_grids: for each site a hashable that is equal for sites with the same positions.
        source_widths, target_widths: for each site its number of channels.
        resizing: maps (source grid, target grid) to the `Resizing` between them. Pairs of grids that are not
            in it have no moments, and cost nothing.
        same: the two lists hold the same tensors (self-stitching): shared products are computed once.
        precision: dtype of the blockwise products. float32 (default) is what networks compute in; float64
            costs about three times as much and is exact to 1e-12.
        higher: keep the sums of third and fourth order, which debiased CKA, RV2 and RSA need. Otherwise they
            are nan.

    Memory: float64 sums, 8 (sum of source widths) (sum of target widths) bytes and the sides; no examples are
    kept.
    """

    def __init__(self, source_grids: Sequence[Hashable], source_widths: Sequence[int],
                 target_grids: Sequence[Hashable], target_widths: Sequence[int],
                 resizing: Mapping[tuple[Any, Any], Resizing], *, same: bool = False,
                 precision: torch.dtype = torch.float32, higher: bool = True) -> None:
        self.precision = precision
        self._same, self._higher = same, higher
        self._resizing = resizing
        self._count = len(source_grids) if higher else 0
        self._buffers: dict[tuple[Any, ...], Tensor] = {}
        self._sources = group_sites(source_grids, source_widths)
        self._targets = self._sources if same else group_sites(target_grids, target_widths)
        self._masks: Mapping[Hashable, Tensor] = {}
        self._shift_x: list[Tensor] = []
        self._shift_y: list[Tensor] = []
        self._sums: dict[tuple[Any, ...], Tensor] = {}
        self._rows: dict[Hashable, int] = {}
        self._sides: dict[tuple[Any, ...], Side] = {}
        self.examples = 0
        """Number of examples seen."""

    @property
    def nbytes(self) -> int:
        """Bytes that the sums use."""
        return sum(t.nbytes for t in self._sums.values())

    @property
    def nbytes_planned(self) -> int:
        """Bytes that the sums will use, known before the first batch."""
        numbers = 0
        for gt in self._targets:
            buffer, own = (self._compute_buffer_width(gt, self._find_ones_column(gt) - gt.width + 1),
                           self._same)
            for gs in self._sources:
                if (gs.grid, gt.grid) not in self._resizing:
                    continue
                numbers += gs.width * buffer
                if not (own and gs is gt):
                    numbers += sum((c.stop - c.start) ** 2 for c in gs.columns.values())
            numbers += (self._find_ones_column(gt) - gt.width) ** 2
            if not own:
                numbers += (sum((c.stop - c.start) ** 2 for c in gt.columns.values())
                            + gt.width * (buffer - gt.width))
        return 8 * numbers

    @staticmethod
    def _compute_buffer_width(g: SiteGroup, extra: int) -> int:
        """Compute the number of columns of a group's buffer, rounded up to rows of a multiple of 64 bytes.

        Other widths made the subtraction and the small products twice as slow.
        """
        return -(-(g.width + extra) // 16) * 16

    @torch.no_grad()
    def update(self, sources: Sequence[Tensor], targets: Sequence[Tensor],
               masks: Mapping[Hashable, Tensor] | None = None) -> None:
        """Add one batch: for each site a tensor (N, H, W, C), sources and targets of the same N examples.

        With ``same=True``, `targets` is not read.

        Args:
            sources, targets: the representations.
            masks: (N, H, W) booleans, False at padding tokens, for grids that have some. Such a grid is
                paired with itself only, or with grids that hold only rows of it.

        Raises:
            NonFiniteError: NaN or inf in one of them; the sums are then as they were before the call.
        """
        self._sides.clear()
        self._masks = masks or {}
        if not self.examples:
            self._shift_x = self._compute_first_means(self._sources, sources)
            self._shift_y = self._shift_x if self._same else self._compute_first_means(self._targets, targets)
        # Extra columns after the channels of a target group hold the squared norms of all sources and of its
        # own members, and ones. So one product gives the cross sums and all sums of third order.
        ys = [self._centre(g, self._shift_y, sources if self._same else targets,
                           "source" if self._same else "target", self._find_ones_column(g) - g.width + 1)
              for g in self._targets]
        # Whole buffers are resized, because a slice of channels would be copied first.
        xs = (ys if self._same
              else [self._centre(g, self._shift_x, sources, "source", 0) for g in self._sources])
        for gt, y in zip(self._targets, ys, strict=True):
            smalls = self._fill_norms(gt, y, xs)
            for gs, small in zip(self._sources, smalls, strict=True):
                if small is not None:
                    self._add_pair_sums(gs, small, gt, y)
            self._add_target_sums(gt, y)
        self.examples += len(sources[0])

    def _compute_first_means(self, groups: list[SiteGroup], tensors: Sequence[Tensor]) -> list[Tensor]:
        masks = {i: self._masks.get(g.grid) for g in groups for i in g.members}
        return [_compute_first_mean(x, self.precision, masks[i]) for i, x in enumerate(tensors)]

    def _centre(self, g: SiteGroup, shifts: list[Tensor], tensors: Sequence[Tensor], side: str,
                extra: int) -> Tensor:
        first = tensors[g.members[0]]
        width = self._compute_buffer_width(g, extra)
        # Kept from batch to batch, because new memory of this size costs more than the subtraction.
        shape = (*first.shape[:3], width)
        buffer = self._buffers.get((side, g.grid))
        if buffer is None or buffer.shape != shape:
            buffer = torch.empty(shape, dtype=self.precision, device=first.device)
            self._buffers[side, g.grid] = buffer
        for i in g.members:
            torch.sub(tensors[i].to(self.precision), shifts[i].to(first.device, self.precision),
                      out=buffer[..., g.columns[i]])
        mask = self._masks.get(g.grid)
        if mask is not None:
            buffer[..., :g.width].masked_fill_(~mask[..., None], 0)
        finite = torch.isfinite(buffer[..., :g.width].sum((0, 1, 2)))
        if not finite.all():
            raise NonFiniteError(side, next(i for i in g.members if not finite[g.columns[i]].all()))
        return buffer

    def _fill_norms(self, gt: SiteGroup, y: Tensor, xs: list[Tensor]) -> list[Tensor | None]:
        """Write squared norms and ones into the extra columns of `y`.

        Returns:
            The source groups on the small grids; None for a pair of grids without moments.
        """
        smalls: list[Tensor | None] = []
        for gs, x in zip(self._sources, xs, strict=True):
            r = self._resizing.get((gs.grid, gt.grid))
            if r is None:
                smalls.append(None)
                if self._higher:
                    y[..., [gt.width + i for i in gs.members]] = 0
                continue
            small = r.shrink(x)
            smalls.append(small)
            for i in gs.members if self._higher else ():
                y[..., gt.width + i] = r.compute_squared_norms(small[..., gs.columns[i]])
        for k, j in enumerate(gt.members if self._higher else ()):
            own = (y[..., gt.width + j] if self._same
                   else torch.linalg.vector_norm(y[..., gt.columns[j]], dim=-1) ** 2)
            y[..., gt.width + self._count + k] = own
        mask = self._masks.get(gt.grid)
        y[..., self._find_ones_column(gt)] = 1 if mask is None else mask.to(y.dtype)
        y[..., self._find_ones_column(gt) + 1:] = 0
        return smalls

    def _find_ones_column(self, gt: SiteGroup) -> int:
        """Return the column of ones in the buffer of a target group."""
        return gt.width + self._count + len(gt.members) * self._higher

    def _add(self, value: Tensor, *key: Any) -> None:
        """Accumulate in float64; on the CPU where the device has no float64 (mps)."""
        value = value.cpu().double() if value.device.type == "mps" else value.double()
        if key in self._sums:
            self._sums[key] += value
        else:
            self._sums[key] = value.clone()  # value may be a view of another sum

    def _add_pair_sums(self, gs: SiteGroup, small: Tensor, gt: SiteGroup, y: Tensor) -> None:
        r = self._resizing[gs.grid, gt.grid]
        rows = small.flatten(0, 2)
        if self._same and gs is gt:
            self._add(_compute_gram(rows, gs.width), "xy", gs.grid, gt.grid)
            return
        self._add(rows[:, :gs.width].T @ r.apply_adjoint(y).flatten(0, 2), "xy", gs.grid, gt.grid)
        grown = r.apply_gram(small).flatten(0, 2)
        for i in gs.members:
            c = gs.columns[i]
            self._add(_compute_gram(rows[:, c], c.stop - c.start, grown[:, c]), "xx", i, gt.grid)

    def _add_target_sums(self, gt: SiteGroup, y: Tensor) -> None:
        rows = y.flatten(0, 2)
        mask = self._masks.get(gt.grid)
        self._rows[gt.grid] = self._rows.get(gt.grid, 0) + (len(rows) if mask is None else int(mask.sum()))
        norms = rows[:, gt.width:self._find_ones_column(gt)]
        norms = norms.cpu().double() if y.device.type == "mps" else norms.double()
        self._add(norms.T @ norms, "norms", gt.grid)
        if self._same:
            return
        for j in gt.members:
            c = gt.columns[j]
            self._add(_compute_gram(rows[:, c], c.stop - c.start), "yy", j)
        # One small product per example, because a tall and very narrow product is five times slower.
        side = y[..., gt.width:].flatten(1, 2).transpose(1, 2) @ y[..., :gt.width].flatten(1, 2)
        self._add(side.sum(0).T, "y", gt.grid)

    def _centre_side(self, side: Side, *key: Any) -> Side:
        """Return the side about its mean, cached because one side serves many cells."""
        if key not in self._sides:
            self._sides[key] = side.shift_to(side.mean)
        return self._sides[key]

    def get_moments(self, source: int, target: int) -> Moments:
        """Return the moments of one cell, about the means.

        Raises:
            SutureError: nothing was added yet.
        """
        if not self.examples:
            raise SutureError("expected at least one batch, got none; call update first")
        gs = next(g for g in self._sources if source in g.members)
        gt = next(g for g in self._targets if target in g.members)
        s, n, own = self._sums, self._rows[gt.grid], self._same and gs is gt
        pair = s["xy", gs.grid, gt.grid]
        beside = s["xy", gt.grid, gt.grid][:, gt.width:] if self._same else s["y", gt.grid]
        cx, cy, ones = gs.columns[source], gt.columns[target], self._find_ones_column(gt)
        nan = pair.new_full((), float("nan"))
        each_x, each_y = nan.expand(cx.stop - cx.start), nan.expand(cy.stop - cy.start)
        x_high, y_high, c_high = [each_x, nan], [each_y, nan], [each_x, each_y, nan]
        if self._higher:
            norms, k = s["norms", gt.grid], self._count + gt.members.index(target)
            x_high = [pair[cx, gt.width + source], norms[source, source]]
            y_high = [beside[cy, k], norms[k, k]]
            c_high = [pair[cx, gt.width + k], beside[cy, source], norms[source, k]]
        x = Side(n, self._shift_x[source].to(pair.device), pair[cx, ones],
                 pair[cx, cx] if own else s["xx", source, gt.grid], *x_high)
        y = Side(n, self._shift_y[target].to(pair.device), beside[cy, ones - gt.width],
                 s["xy", gt.grid, gt.grid][cy, cy] if self._same else s["yy", target], *y_high)
        cross = Cross(pair[cx, cy], *c_high)
        return Moments(self._centre_side(x, "x", source, gt.grid), self._centre_side(y, "y", target),
                       cross.shift_to(x, y, x.mean, y.mean), self.precision)
