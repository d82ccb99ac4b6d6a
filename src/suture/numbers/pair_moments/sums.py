"""Sums of every cell of a comparison, accumulated batch by batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from suture._base import exact_products, expect
from suture.numbers.moments import Cross, Moments, Side
from suture.numbers.pair_moments.groups import GroupRows, NonFiniteError, SiteGroup, group_sites
from suture.numbers.pair_moments.shared_work import SharedWork
from suture.numbers.resizing import Resizing
from suture.numbers.shifted_sums import compute_shift


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

    scratch = ("precision", "_work", "_masks", "_resizing", "_sources", "_targets", "_keys")
    """Attributes that a checkpoint need not hold."""

    def __init__(self, source_grids: Sequence[Hashable], source_widths: Sequence[int],
                 target_grids: Sequence[Hashable], target_widths: Sequence[int],
                 resizing: Mapping[tuple[Any, Any], Resizing], *, same: bool = False,
                 precision: torch.dtype = torch.float32, higher: bool = True) -> None:
        self.precision, self._same, self._higher, self._resizing = precision, same, higher, resizing
        self._targets = group_sites(target_grids, target_widths, higher)
        self._sources = self._targets if same else group_sites(source_grids, source_widths, higher)
        self._work = SharedWork()
        self._masks: Mapping[Hashable, Tensor] = {}
        self._shifts: tuple[list[Tensor], list[Tensor]] = [], []
        self._keys: dict[int, bytes] = {}
        self._sums: dict[tuple[Any, ...], Tensor] = {}
        self._rows: dict[Hashable, int] = {}
        self._primed = False
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
            if self._same:
                numbers += sum((c.stop - c.start) * (gt.buffer_width - c.start) for c in gt.columns.values())
                numbers += gt.norms**2
            else:
                numbers += gt.squares + gt.width * (gt.norms + 1) + gt.norms
            for gs in self._list_sources(gt):
                numbers += gs.width * gt.buffer_width + gs.squares
                numbers += (gs.width + gs.norms * (1 + gt.norms + gt.width)) * self._higher
        return 8 * numbers

    def _list_sources(self, gt: SiteGroup) -> list[SiteGroup]:
        """Return the groups of sources that have moments with a group of targets, but for that itself."""
        return [gs for gs in self._sources
                if (gs.grid, gt.grid) in self._resizing and not (self._same and gs is gt)]

    @torch.no_grad()
    @exact_products()
    def update(self, sources: Sequence[Tensor], targets: Sequence[Tensor],
               masks: Mapping[Hashable, Tensor] | None = None, shared: SharedWork | None = None) -> None:
        """Add one batch.

        Args:
            sources, targets: for each site a tensor (N, *positions, C) of the same N examples. `targets` is
                not read with ``same=True``.
            masks: by grid, (N, *positions) booleans, False at padding tokens. Such a grid is paired only with
                itself and with grids that hold only rows of it.
            shared: work on the same tensors for other pairs, which keeps them until it is cleared.

        Raises:
            NonFiniteError: NaN or inf in a tensor. Nothing is added then.
        """
        self._masks = masks or {}
        work = self._work if shared is None else shared
        if shared is None:
            work.clear()
        targets = sources if self._same else targets
        if not (self.examples or self._primed):
            first = self._compute_shifts(self._targets, targets, work)
            self._shifts = first if self._same else self._compute_shifts(self._sources, sources, work), first
        ys = [self._centre(g, 0 if self._same else 1, targets, work) for g in self._targets]
        xs = ys if self._same else [self._centre(g, 0, sources, work) for g in self._sources]
        rows = {g.grid: x for g, x in zip(self._sources, xs, strict=True)}
        for gt, y in zip(self._targets, ys, strict=True):
            self._add_target_sums(gt, y)
            others = self._list_sources(gt)
            for gs in others:
                self._add_pair_sums(gs, rows[gs.grid], gt, y)
            if self._higher and others:
                norms = [rows[gs.grid].compute_norms(self._resizing[gs.grid, gt.grid]) for gs in others]
                # Many columns at once, because a product with a few is slow.
                stacked = work.find(partial(torch.cat, norms, -1), "norms", norms)
                self._add(y.multiply(stacked), "xx_y", gt.grid)
        self.examples += len(sources[0])

    def take_shifts(self, other: PairMoments) -> None:
        """Take the sums about the same points as others, before the first batch."""
        self._shifts, self._primed = other._shifts, other.examples > 0

    def absorb(self, other: PairMoments) -> bool:
        """Add the sums of other examples; return False if they are about other points."""
        if not (self.examples and other.examples):
            if other.examples:
                self.__dict__.update(other.__dict__)
            return True
        pairs = zip((*self._shifts[0], *self._shifts[1]), (*other._shifts[0], *other._shifts[1]), strict=True)
        if not all(torch.equal(a, b) for a, b in pairs):
            return False
        for key, value in other._sums.items():
            self._add(value, *key)
        for grid, n in other._rows.items():
            self._rows[grid] = self._rows.get(grid, 0) + n
        self.examples += other.examples
        return True

    def _compute_shifts(self, groups: list[SiteGroup], tensors: Sequence[Tensor],
                        work: SharedWork) -> list[Tensor]:
        masks = {i: self._masks.get(g.grid) for g in groups for i in g.members}
        return [work.find(partial(compute_shift, x, masks[i], self.precision), "shift", x, masks[i],
                          self.precision) for i, x in enumerate(tensors)]

    def _centre(self, g: SiteGroup, side: int, tensors: Sequence[Tensor], work: SharedWork) -> GroupRows:
        """Return the rows of a group about its shifts; `side` is 0 for sources, 1 for targets."""
        own, shifts = [tensors[i] for i in g.members], [self._shifts[side][i] for i in g.members]
        mask = self._masks.get(g.grid)
        # By their values, because those from a checkpoint are in other memory for each pair.
        keys = tuple(self._keys.setdefault(id(t), t.cpu().numpy().tobytes()) for t in shifts)
        made = work.find(lambda: GroupRows(g, own, shifts, mask, self.precision, work), "rows", own, keys,
                         mask, self.precision, g.norms)
        if made.broken is not None:
            raise NonFiniteError("target" if side else "source", g.members[made.broken])
        return made

    def _add(self, value: Tensor, *key: Any) -> None:
        """Accumulate in float64."""
        if key in self._sums:
            self._sums[key] += value.to(self._sums[key].device)
        else:
            own = value.cpu() if value.device.type == "mps" else value  # see to_double
            self._sums[key] = own.to(torch.float64, copy=True)  # value may be a view of another sum

    def _add_pair_sums(self, gs: SiteGroup, x: GroupRows, gt: SiteGroup, y: GroupRows) -> None:
        r = self._resizing[gs.grid, gt.grid]
        self._add(x.get_rows(r).T @ y.pull(r), "xy", gs.grid, gt.grid)
        for i, gram in zip(gs.members, x.compute_resized_grams(r), strict=True):
            self._add(gram, "xx", i, gt.grid)
        if not self._higher:
            return
        for i, cubic in zip(gs.members, x.compute_cubics(r), strict=True):
            self._add(cubic, "cubic", i, gt.grid)
        self._add(x.compute_quartics(r), "quartic", gs.grid, gt.grid)
        norms = y.compute_double_norms(y.make_identity())
        self._add(x.compute_double_norms(r).T @ norms, "xx_yy", gs.grid, gt.grid)

    def _add_target_sums(self, gt: SiteGroup, y: GroupRows) -> None:
        mask = self._masks.get(gt.grid)
        rows, here = y.buffer.flatten(0, -2), y.make_identity()
        self._rows[gt.grid] = self._rows.get(gt.grid, 0) + (len(rows) if mask is None else int(mask.sum()))
        if self._same:
            # The products of a site with those before it are kept by them.
            products = y.multiply_all()
            for i, c in gt.columns.items():
                self._add(products[c, c.start:], "own", i)
            if self._higher:
                norms = y.compute_double_norms(here)
                self._add(norms.T @ norms, "xx_yy", gt.grid, gt.grid)
            return
        for j, gram in zip(gt.members, y.compute_grams(), strict=True):
            self._add(gram, "yy", j)
        self._add(y.compute_beside(), "y", gt.grid)
        if self._higher:
            self._add(y.compute_quartics(here), "y quartic", gt.grid)

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
        after = slice(gt.width, gt.ones + 1)
        pair = self._find_own(gs, source, after) if own else s["xy", gs.grid, gt.grid][cx, after]
        beside = self._find_own(gt, target, after) if self._same else s["y", gt.grid][cy]
        x_high, y_high, c_high = self._find_higher(gs, source, gt, target, pair, beside)
        x = Side(n, self._shifts[0][source].to(pair.device), pair[:, -1],
                 self._find_own(gs, source, cx) if own else s["xx", source, gt.grid], *x_high)
        y = Side(n, self._shifts[1][target].to(pair.device), beside[:, -1],
                 self._find_own(gt, target, cy) if self._same else s["yy", target], *y_high)
        cross = Cross(self._find_own(gs, source, cy) if own else s["xy", gs.grid, gt.grid][cx, cy], *c_high)
        return Moments(x, y, cross, self.precision)

    def _find_higher(self, gs: SiteGroup, source: int, gt: SiteGroup, target: int, pair: Tensor,
                     beside: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Return the sums of third and fourth order of both sides and of the cell; nan without them.

        `pair` and `beside` are the products of source and target with the target group's norms and ones.
        """
        s, nan = self._sums, pair.new_full((), float("nan"))
        each_x, each_y = nan.expand(len(pair)), nan.expand(len(beside))
        if not self._higher:
            return [each_x, nan], [each_y, nan], [each_x, each_y, nan]
        i, k, products = gs.members.index(source), gt.members.index(target), s["xx_yy", gs.grid, gt.grid]
        fourth = s["xx_yy", gt.grid, gt.grid][k, k] if self._same else s["y quartic", gt.grid][k]
        if self._same and gs is gt:
            third, quartic, xx_y = pair[:, i], products[i, i], beside[:, i]
        else:
            third, quartic = s["cubic", source, gt.grid], s["quartic", gs.grid, gt.grid][i]
            groups = self._list_sources(gt)
            start = sum(g.norms for g in groups[:groups.index(gs)])
            xx_y = s["xx_y", gt.grid][gt.columns[target], start + i]
        return [third, quartic], [beside[:, k], fourth], [pair[:, k], xx_y, products[i, k]]
