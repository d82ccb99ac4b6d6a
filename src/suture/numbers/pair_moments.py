"""Moments of all cells of a comparison, accumulated batch by batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from suture._base import SutureError, exact_products, expect
from suture.numbers.moments import Cross, Moments, Side, to_double
from suture.numbers.resizing import Resizing
from suture.numbers.shifted_sums import compute_shift


class NonFiniteError(SutureError):
    """Error for NaN or inf in representation number `index` of a `side`, "source" or "target"."""

    def __init__(self, side: str, index: int) -> None:
        super().__init__(f"NaN or inf in {side} representation {index}")
        self.side, self.index = side, index


@dataclass(frozen=True)
class SiteGroup:
    """Sites with one grid of positions, whose channels are side by side in the `columns` of one buffer.

    A target group has `beside` further columns: the squared norms of all sources and of the members, and
    ones. So one product gives the cross sums and all sums of third order.
    """

    grid: Hashable
    members: tuple[int, ...]
    columns: Mapping[int, slice]
    width: int
    beside: int

    @property
    def ones(self) -> int:
        """Number of the column of ones, the last in use."""
        return self.width + self.beside - 1

    @property
    def buffer_width(self) -> int:
        # Rows of a multiple of 64 bytes: others made the subtraction and the small products twice as slow.
        return -(-(self.width + self.beside) // 16) * 16

    @property
    def squares(self) -> int:
        """Number of elements of the Gram matrices of all members."""
        return sum((c.stop - c.start) ** 2 for c in self.columns.values())


def group_sites(grids: Sequence[Hashable], widths: Sequence[int], ones: int = 0,
                norms: int | None = None) -> list[SiteGroup]:
    """Group sites of one grid, whose matrices are multiplied together.

    A group's matrix holds the channels of its sites, then `ones` columns of ones, then squared norms: of
    `norms` sources and of its own sites. None: no norms.
    """
    groups = []
    for grid in dict.fromkeys(grids):
        members = tuple(i for i, g in enumerate(grids) if g == grid)
        edges = [0]
        for i in members:
            edges.append(edges[-1] + widths[i])
        columns = {i: slice(edges[k], edges[k + 1]) for k, i in enumerate(members)}
        beside = ones + (0 if norms is None else norms + len(members))
        groups.append(SiteGroup(grid, members, columns, edges[-1], beside))
    return groups


def _compute_gram(a: Tensor, width: int, b: Tensor | None = None) -> Tensor:
    """Compute a' b for the first `width` columns of `a`; copy the lower half of its symmetric part."""
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

    Results do not depend on batch size or order, beyond rounding. Memory: 8 (sum of source widths) (sum of
    target widths) bytes and the sides, half of it for one network; no examples are kept.

    Args:
        source_grids, target_grids: for each site a hashable that is equal for sites with the same positions.
        source_widths, target_widths: for each site its number of channels.
        resizing: the `Resizing` of each (source grid, target grid). Other pairs of grids have no moments and
            no cost.
        same: both lists hold the same tensors (self-stitching): shared products are computed once.
        precision: dtype of the blockwise products. Default float32, as networks compute; float64 costs about
            three times as much and is exact to 1e-12.
        higher: keep the sums of third and fourth order, which debiased CKA, RV2 and RSA need; otherwise they
            are nan.
    """

    scratch = ("precision", "_buffers", "_masks", "_resizing", "_sources", "_targets")
    """Attributes that a checkpoint need not hold."""

    def __init__(self, source_grids: Sequence[Hashable], source_widths: Sequence[int],
                 target_grids: Sequence[Hashable], target_widths: Sequence[int],
                 resizing: Mapping[tuple[Any, Any], Resizing], *, same: bool = False,
                 precision: torch.dtype = torch.float32, higher: bool = True) -> None:
        self.precision, self._same, self._higher, self._resizing = precision, same, higher, resizing
        self._count = len(source_grids) if higher else 0
        self._buffers: dict[tuple[Any, ...], Tensor] = {}
        self._targets = group_sites(target_grids, target_widths, 1, self._count if higher else None)
        self._sources = self._targets if same else group_sites(source_grids, source_widths)
        self._masks: Mapping[Hashable, Tensor] = {}
        self._shifts: tuple[list[Tensor], list[Tensor]] = [], []
        self._sums: dict[tuple[Any, ...], Tensor] = {}
        self._rows: dict[Hashable, int] = {}
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
            numbers += (gt.beside - 1) ** 2
            if not self._same:
                numbers += gt.squares + gt.width * (gt.buffer_width - gt.width)
            for gs in self._sources:
                if self._same and gs is gt:
                    numbers += sum((c.stop - c.start) * (gt.buffer_width - c.start)
                                   for c in gt.columns.values())
                elif (gs.grid, gt.grid) in self._resizing:
                    numbers += gs.width * gt.buffer_width + gs.squares
        return 8 * numbers

    @torch.no_grad()
    @exact_products()
    def update(self, sources: Sequence[Tensor], targets: Sequence[Tensor],
               masks: Mapping[Hashable, Tensor] | None = None) -> None:
        """Add one batch.

        Args:
            sources, targets: for each site a tensor (N, *positions, C) of the same N examples. `targets` is
                not read with ``same=True``.
            masks: by grid, (N, *positions) booleans, False at padding tokens. Such a grid is paired only with
                itself and with grids that hold only rows of it.

        Raises:
            NonFiniteError: NaN or inf in a tensor. Nothing is added then.
        """
        self._masks = masks or {}
        targets = sources if self._same else targets
        if not self.examples:
            first = self._compute_shifts(self._targets, targets)
            self._shifts = first if self._same else self._compute_shifts(self._sources, sources), first
        ys = [self._centre(g, 0 if self._same else 1, targets) for g in self._targets]
        # Whole buffers are resized, because a slice of channels would be copied first.
        xs = ys if self._same else [self._centre(g, 0, sources) for g in self._sources]
        for gt, y in zip(self._targets, ys, strict=True):
            smalls = self._fill_norms(gt, y, xs)
            for gs, small in zip(self._sources, smalls, strict=True):
                if small is not None:
                    self._add_pair_sums(gs, small, gt, y)
            self._add_target_sums(gt, y)
        self.examples += len(sources[0])

    def _compute_shifts(self, groups: list[SiteGroup], tensors: Sequence[Tensor]) -> list[Tensor]:
        masks = {i: self._masks.get(g.grid) for g in groups for i in g.members}
        return [compute_shift(x, masks[i], self.precision) for i, x in enumerate(tensors)]

    def _centre(self, g: SiteGroup, side: int, tensors: Sequence[Tensor]) -> Tensor:
        """Write the centred channels of a group into its buffer; `side` is 0 for sources, 1 for targets."""
        first = tensors[g.members[0]]
        # Kept from batch to batch, because new memory of this size costs more than the subtraction.
        shape = (*first.shape[:-1], g.buffer_width)
        buffer = self._buffers.get((side, g.grid))
        if buffer is None or buffer.shape != shape:
            buffer = torch.empty(shape, dtype=self.precision, device=first.device)
            self._buffers[side, g.grid] = buffer
        for i in g.members:
            torch.sub(tensors[i].to(self.precision), self._shifts[side][i].to(first.device, self.precision),
                      out=buffer[..., g.columns[i]])
        mask = self._masks.get(g.grid)
        if mask is not None:
            buffer[..., :g.width].masked_fill_(~mask[..., None], 0)
        finite = torch.isfinite(buffer[..., :g.width].flatten(0, -2).sum(0))
        if not finite.all():
            raise NonFiniteError("target" if side else "source",
                                 next(i for i in g.members if not finite[g.columns[i]].all()))
        return buffer

    def _fill_norms(self, gt: SiteGroup, y: Tensor, xs: list[Tensor]) -> list[Tensor | None]:
        """Write norms and ones beside the channels of `y`; return shrunk sources, None without moments."""
        smalls: list[Tensor | None] = []
        for gs, x in zip(self._sources, xs, strict=True):
            r = self._resizing.get((gs.grid, gt.grid))
            small = None if r is None else r.shrink(x)
            smalls.append(small)
            for i in gs.members if self._higher else ():
                y[..., gt.width + i] = (0 if r is None or small is None
                                        else r.compute_squared_norms(small[..., gs.columns[i]]))
        for k, j in enumerate(gt.members if self._higher else ()):
            own = (y[..., gt.width + j] if self._same
                   else torch.linalg.vector_norm(y[..., gt.columns[j]], dim=-1) ** 2)
            y[..., gt.width + self._count + k] = own
        mask = self._masks.get(gt.grid)
        y[..., gt.ones] = 1 if mask is None else mask.to(y.dtype)
        y[..., gt.ones + 1:] = 0
        return smalls

    def _add(self, value: Tensor, *key: Any) -> None:
        """Accumulate in float64."""
        if key in self._sums:
            self._sums[key] += value.to(self._sums[key].device)
        else:
            own = value.cpu() if value.device.type == "mps" else value  # see to_double
            self._sums[key] = own.to(torch.float64, copy=True)  # value may be a view of another sum

    def _add_pair_sums(self, gs: SiteGroup, small: Tensor, gt: SiteGroup, y: Tensor) -> None:
        r = self._resizing[gs.grid, gt.grid]
        rows = small.flatten(0, -2)
        if self._same and gs is gt:
            # The products of a site with those before it are kept by them.
            products = _compute_gram(rows, gs.width)
            for i, c in gs.columns.items():
                self._add(products[c, c.start:], "own", i)
            return
        self._add(rows[:, :gs.width].T @ r.apply_adjoint(y).flatten(0, -2), "xy", gs.grid, gt.grid)
        grown = r.apply_gram(small).flatten(0, -2)
        for i, c in gs.columns.items():
            self._add(_compute_gram(rows[:, c], c.stop - c.start, grown[:, c]), "xx", i, gt.grid)

    def _add_target_sums(self, gt: SiteGroup, y: Tensor) -> None:
        rows = y.flatten(0, -2)
        mask = self._masks.get(gt.grid)
        self._rows[gt.grid] = self._rows.get(gt.grid, 0) + (len(rows) if mask is None else int(mask.sum()))
        norms = to_double(rows[:, gt.width:gt.ones])
        self._add(norms.T @ norms, "norms", gt.grid)
        if self._same:
            return
        for j, c in gt.columns.items():
            self._add(_compute_gram(rows[:, c], c.stop - c.start), "yy", j)
        # One small product per example, because a tall and very narrow product is five times slower.
        beside = y[..., gt.width:].flatten(1, -2).transpose(1, 2) @ y[..., :gt.width].flatten(1, -2)
        self._add(beside.sum(0).T, "y", gt.grid)

    def _find_own(self, g: SiteGroup, i: int, columns: slice) -> Tensor:
        """Return the products of site `i` with columns of its group, in self-stitching."""
        start = g.columns[i].start
        if columns.start >= start:
            return self._sums["own", i][:, columns.start - start:columns.stop - start]
        first = next(k for k, c in g.columns.items() if c.start == columns.start)
        return self._find_own(g, first, g.columns[i]).T

    def get_moments(self, source: int, target: int) -> Moments:
        """Return the moments of one cell about the means; before the first batch, raise `SutureError`."""
        return self.get_sums(source, target).centre()

    def count_rows(self, target: int) -> int:
        """Count the rows of the cells of a target."""
        return self._rows.get(self._find_group(self._targets, target).grid, 0)

    @staticmethod
    def _find_group(groups: list[SiteGroup], site: int) -> SiteGroup:
        return next(g for g in groups if site in g.members)

    def get_sums(self, source: int, target: int) -> Moments:
        """Return views of the sums of one cell about its shifts, as `get_moments` does about the means."""
        expect(self.examples > 0, "at least one batch", "none", "call update first")
        gs, gt = self._find_group(self._sources, source), self._find_group(self._targets, target)
        s, n, own = self._sums, self._rows[gt.grid], self._same and gs is gt
        cx, cy = gs.columns[source], gt.columns[target]
        after = slice(gt.width, gt.buffer_width)
        pair = (self._find_own(gs, source, after) if own else s["xy", gs.grid, gt.grid][cx, gt.width:])
        beside = self._find_own(gt, target, after) if self._same else s["y", gt.grid][cy]
        nan = pair.new_full((), float("nan"))
        each_x, each_y = nan.expand(cx.stop - cx.start), nan.expand(cy.stop - cy.start)
        x_high, y_high, c_high = [each_x, nan], [each_y, nan], [each_x, each_y, nan]
        if self._higher:
            norms, k = s["norms", gt.grid], self._count + gt.members.index(target)
            x_high = [pair[:, source], norms[source, source]]
            y_high = [beside[:, k], norms[k, k]]
            c_high = [pair[:, k], beside[:, source], norms[source, k]]
        last = gt.beside - 1
        x = Side(n, self._shifts[0][source].to(pair.device), pair[:, last],
                 self._find_own(gs, source, cx) if own else s["xx", source, gt.grid], *x_high)
        y = Side(n, self._shifts[1][target].to(pair.device), beside[:, last],
                 self._find_own(gt, target, cy) if self._same else s["yy", target], *y_high)
        cross = Cross(self._find_own(gs, source, cy) if own else s["xy", gs.grid, gt.grid][cx, cy], *c_high)
        return Moments(x, y, cross, self.precision)
