"""Second moments of pairs of matrices, in one streaming pass, for one pair or for a whole grid of them.

Linear CKA, every CCA, Procrustes, regression and direct matching are functions of these sums, so one pass over
the data serves them all, in memory that does not grow with the number of examples.

Sums are taken about a *shift* (the mean of the first batch) so that a large mean costs no digits; products are
computed in blocks (float32 by default) and accumulated in float64. Laws (tests/test_laws.py): the moments of two
shards merge into the moments of both; nothing depends on batch size or order beyond rounding.

Rows of a matrix are positions: an example of height H and width W gives H * W rows, with the channels as columns.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from suture._errors import SutureError


@dataclass(frozen=True)
class Side:
    """Sums over the rows x of one matrix, about `shift`.

    Attributes:
        n: number of rows.
        shift: (p,) the point that is subtracted from every row.
        total: (p,) sum of x.
        gram: (p, p) sum of x x'.
        cubic: (p,) sum of |x|² x.
        quartic: () sum of |x|⁴.
    """

    n: int
    shift: Tensor
    total: Tensor
    gram: Tensor
    cubic: Tensor
    quartic: Tensor

    def about(self, shift: Tensor) -> Side:
        """The same sums about another shift (exact algebra, no pass over the data)."""
        d, n, t, g = shift - self.shift, self.n, self.total, self.gram
        dd, dt, k = d @ d, d @ t, torch.trace(self.gram)
        gd = g @ d
        return Side(
            n, shift, t - n * d,
            g - torch.outer(t, d) - torch.outer(d, t) + n * torch.outer(d, d),
            self.cubic - k * d - 2 * gd + 2 * dt * d + dd * t - n * dd * d,
            self.quartic + 4 * d @ gd + n * dd**2 - 4 * d @ self.cubic + 2 * dd * k - 4 * dd * dt,
        )

    def plus(self, other: Side) -> Side:
        """The sums over the rows of both."""
        o = other.about(self.shift)
        return Side(self.n + o.n, self.shift, self.total + o.total, self.gram + o.gram, self.cubic + o.cubic,
                    self.quartic + o.quartic)

    @property
    def mean(self) -> Tensor:
        """(p,) mean of the rows."""
        return self.shift + self.total / self.n


@dataclass(frozen=True)
class Cross:
    """Sums over the pairs of rows (x, y), about the shifts of the two sides.

    Attributes:
        xy: (p, q) sum of x y'.
        x_yy: (p,) sum of |y|² x.
        xx_y: (q,) sum of |x|² y.
        xx_yy: () sum of |x|² |y|².
    """

    xy: Tensor
    x_yy: Tensor
    xx_y: Tensor
    xx_yy: Tensor

    def about(self, x: Side, y: Side, shift_x: Tensor, shift_y: Tensor) -> Cross:
        """The same sums about other shifts; `x` and `y` are the sides as they are about the present ones."""
        n, dx, dy = x.n, shift_x - x.shift, shift_y - y.shift
        k, m, kx, ky = torch.trace(x.gram), torch.trace(y.gram), dx @ dx, dy @ dy
        xt, yt, xy = dx @ x.total, dy @ y.total, self.xy
        return Cross(
            xy - torch.outer(x.total, dy) - torch.outer(dx, y.total) + n * torch.outer(dx, dy),
            self.x_yy - m * dx - 2 * xy @ dy + 2 * yt * dx + ky * x.total - n * ky * dx,
            self.xx_y - k * dy - 2 * xy.T @ dx + 2 * xt * dy + kx * y.total - n * kx * dy,
            self.xx_yy - 2 * self.xx_y @ dy + ky * k - 2 * self.x_yy @ dx + 4 * dx @ xy @ dy
            - 2 * ky * xt + kx * m - 2 * kx * yt + n * kx * ky,
        )

    def plus(self, other: Cross) -> Cross:
        """Elementwise sum; both must be about the same shifts."""
        return Cross(self.xy + other.xy, self.x_yy + other.x_yy, self.xx_y + other.xx_y,
                     self.xx_yy + other.xx_yy)


@dataclass(frozen=True)
class Moments:
    """Moments of one pair of matrices X (n, p) and Y (n, q) with the same rows, in float64.

    Make it with `Moments.of`, with `merge`, or with `GridMoments.cell`.

    Attributes:
        x, y: the sums of each side, about its mean.
        cross: the sums over pairs, about the means.
        precision: dtype in which the products were computed; it sets the rank cut of everything solved from them.
    """

    x: Side
    y: Side
    cross: Cross
    precision: torch.dtype = torch.float64

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Moments:
        """Moments of two matrices in memory: `x` (n, p) and `y` (n, q), computed in float64.

        Raises:
            SutureError: not two matrices with the same, non-zero number of rows, or NaN or inf in them.
        """
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) == 0:
            raise SutureError(f"expected two matrices with the same rows, got shapes {tuple(x.shape)} and "
                              f"{tuple(y.shape)}; pass (n, p) and (n, q)")
        for name, m in (("x", x), ("y", y)):
            if not torch.isfinite(m).all():
                raise SutureError(f"expected finite numbers, got NaN or inf in matrix {name}; drop those rows")
        x, y = x.double(), y.double()
        mx, my = x.mean(0), y.mean(0)
        xc, yc = x - mx, y - my
        kx, ky = xc.square().sum(1), yc.square().sum(1)

        def side(c: Tensor, k: Tensor, shift: Tensor) -> Side:
            return Side(len(c), shift, c.sum(0), c.T @ c, c.T @ k, k @ k)

        cross = Cross(xc.T @ yc, xc.T @ ky, yc.T @ kx, kx @ ky)
        return cls(side(xc, kx, mx), side(yc, ky, my), cross).centred()

    def centred(self) -> Moments:
        """The same moments about the means."""
        mx, my = self.x.mean, self.y.mean
        return replace(self, x=self.x.about(mx), y=self.y.about(my),
                       cross=self.cross.about(self.x, self.y, mx, my))

    def merge(self, other: Moments) -> Moments:
        """Moments of the rows of both (law 2)."""
        cross = self.cross.plus(other.cross.about(other.x, other.y, self.x.shift, self.y.shift))
        precision = min(self.precision, other.precision, key=lambda d: torch.finfo(d).bits)
        return Moments(self.x.plus(other.x), self.y.plus(other.y), cross, precision).centred()

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.x.n

    @property
    def sxx(self) -> Tensor:
        """(p, p) scatter of x: sum of (x - mean)(x - mean)'."""
        return self.x.gram

    @property
    def syy(self) -> Tensor:
        """(q, q) scatter of y."""
        return self.y.gram

    @property
    def sxy(self) -> Tensor:
        """(p, q) cross scatter."""
        return self.cross.xy


class NonFiniteError(SutureError):
    """NaN or inf in a representation: which side ("source" or "target") and which position in its list."""

    def __init__(self, side: str, index: int) -> None:
        super().__init__(f"NaN or inf in {side} representation {index}")
        self.side, self.index = side, index


@dataclass(frozen=True, eq=False)
class Resampling:
    """A linear map between two grids of positions, separable in height and width; rows sum to one.

    Attributes:
        height: (target height, source height), or None for the identity.
        width: (target width, source width), or None for the identity.

    An axis that grows ("up") must have at most two adjacent non-zero weights in each row, as linear interpolation
    has; it is never carried out on the channels: cov(WX) = X'(W'W)X and cov(WX, Y) = X'(W'Y) need only the
    adjoint, at the source's size. An axis that shrinks ("down") is carried out.
    """

    height: Tensor | None
    width: Tensor | None

    def _axes(self) -> tuple[tuple[int, Tensor | None], tuple[int, Tensor | None]]:
        return (1, self.height), (2, self.width)

    def down(self, x: Tensor) -> Tensor:
        """Carry out the shrinking axes on `x` (N, H, W, C)."""
        for axis, m in self._axes():
            if m is not None and m.shape[0] <= m.shape[1]:
                x = along(m, x, axis)
        return x

    def adjoint_up(self, y: Tensor) -> Tensor:
        """Carry out the transposes of the growing axes on `y` (N, H', W', C)."""
        for axis, m in self._axes():
            if m is not None and m.shape[0] > m.shape[1]:
                y = along(m.T, y, axis)
        return y

    def gram_up(self, x: Tensor) -> Tensor:
        """Carry out W'W of the growing axes W on `x`, the result of `down`."""
        for axis, m in self._axes():
            if m is not None and m.shape[0] > m.shape[1]:
                x = along(m.T @ m, x, axis)
        return x

    @property
    def is_up(self) -> bool:
        """Whether an axis grows."""
        return any(m is not None and m.shape[0] > m.shape[1] for _, m in self._axes())

    def squared_norms(self, x: Tensor) -> Tensor:
        """(N, H', W') squared norms of the resampled rows, from `x`, the result of `down`.

        A row on a grown axis mixes two neighbours, so its norm needs only the products of neighbouring positions.
        """
        if not self.is_up:
            return x.square().sum(-1)
        _, h, w, _ = x.shape
        (sh, ph), (sw, pw) = _square_and_pair(self.height, h, x), _square_and_pair(self.width, w, x)
        norms = sh @ x.square().sum(-1) @ sw.T
        if pw.shape[1]:
            norms = norms + sh @ (x[:, :, 1:] * x[:, :, :-1]).sum(-1) @ pw.T
        if ph.shape[1]:
            norms = norms + ph @ (x[:, 1:] * x[:, :-1]).sum(-1) @ sw.T
        if ph.shape[1] and pw.shape[1]:
            diagonal = (x[:, :-1, :-1] * x[:, 1:, 1:]).sum(-1) + (x[:, :-1, 1:] * x[:, 1:, :-1]).sum(-1)
            norms = norms + ph @ diagonal @ pw.T / 2
        return norms


def _square_and_pair(m: Tensor | None, size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the squares and of the products of neighbours in the norm of an interpolated row."""
    if m is None or m.shape[0] <= m.shape[1]:
        eye = torch.eye(size, dtype=like.dtype, device=like.device)
        return eye, eye.new_zeros(size, 0)
    m = m.to(like)
    return m.square(), 2 * m[:, 1:] * m[:, :-1]


def along(matrix: Tensor, x: Tensor, axis: int) -> Tensor:
    """Multiply `matrix` (t, s) into axis 1 or 2 of `x` (N, H, W, C)."""
    n, h, w, c = x.shape
    matrix = matrix.to(x)
    if axis == 1:
        return (matrix @ x.reshape(n, h, w * c)).reshape(n, -1, w, c)
    return (matrix @ x.reshape(n * h, w, c)).reshape(n, h, -1, c)


def _first_mean(x: Tensor, precision: torch.dtype) -> Tensor:
    """(C,) mean over all positions, a number that `precision` holds exactly, in float64 where there is one."""
    mean = x.mean((0, 1, 2)).to(precision)
    return mean.cpu().double() if mean.device.type == "mps" else mean.double()


def _gram(a: Tensor, b: Tensor) -> Tensor:
    """a' b where it is symmetric: the lower left block is not computed where that saves time."""
    p = a.shape[1]
    if p < 256:
        return a.T @ b
    h = p // 2
    upper = a[:, :h].T @ b[:, h:]
    return torch.cat([torch.cat([_gram(a[:, :h], b[:, :h]), upper], 1),
                      torch.cat([upper.T, _gram(a[:, h:], b[:, h:])], 1)])


@dataclass(frozen=True)
class _Group:
    """Sites with one grid of positions: their channels stand side by side in one buffer."""

    grid: Hashable
    members: tuple[int, ...]
    columns: Mapping[int, slice]


def _groups(grids: Sequence[Hashable], widths: Sequence[int]) -> list[_Group]:
    groups = []
    for grid in dict.fromkeys(grids):
        members = tuple(i for i, g in enumerate(grids) if g == grid)
        edges = [0]
        for i in members:
            edges.append(edges[-1] + widths[i])
        groups.append(_Group(grid, members, {i: slice(edges[k], edges[k + 1]) for k, i in enumerate(members)}))
    return groups


class GridMoments:
    """Moments of every cell of a comparison, accumulated batch by batch.

    Args:
        source_grids, target_grids: for each site a hashable that is equal for sites with the same positions.
        source_widths, target_widths: for each site its number of channels.
        resampling: maps (source grid, target grid) to the `Resampling` between them.
        same: the two lists hold the same tensors (self-stitching): shared products are computed once.
        precision: dtype of the blockwise products; float32 (default) is what networks compute in, float64 costs
            about three times as much and is exact to 1e-12.

    Memory: float64 sums, 8 (sum of source widths) (sum of target widths) bytes and the sides; no examples are kept.
    """

    def __init__(self, source_grids: Sequence[Hashable], source_widths: Sequence[int],
                 target_grids: Sequence[Hashable], target_widths: Sequence[int],
                 resampling: Mapping[tuple[Any, Any], Resampling], *, same: bool = False,
                 precision: torch.dtype = torch.float32) -> None:
        self.precision = precision
        self._same = same
        self._resampling = resampling
        self._sources = _groups(source_grids, source_widths)
        self._targets = self._sources if same else _groups(target_grids, target_widths)
        self._shift_x: list[Tensor] = []
        self._shift_y: list[Tensor] = []
        self._sums: dict[tuple[Any, ...], Tensor] = {}
        self._rows: dict[Hashable, int] = {}
        self._shards: list[GridMoments] = []
        self.examples = 0
        """Number of examples seen."""

    @torch.no_grad()
    def update(self, sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        """Add one batch: for each site a tensor (N, H, W, C), sources and targets of the same N examples.

        With ``same=True``, `targets` is not read.

        Raises:
            NonFiniteError: NaN or inf in one of them; the sums are then as they were before the call.
        """
        if not self.examples:
            self._shift_x = [_first_mean(x, self.precision) for x in sources]
            self._shift_y = self._shift_x if self._same else [_first_mean(y, self.precision) for y in targets]
        xs = self._centre(self._sources, sources, self._shift_x, "source")
        ys = xs if self._same else self._centre(self._targets, targets, self._shift_y, "target")
        norms_y = [self._target_sums(g, y) for g, y in zip(self._targets, ys, strict=True)]
        for gs, x in zip(self._sources, xs, strict=True):
            for gt, y, ny in zip(self._targets, ys, norms_y, strict=True):
                self._pair_sums(gs, x, gt, y, ny)
        self.examples += len(sources[0])

    def _centre(self, groups: list[_Group], tensors: Sequence[Tensor], shifts: list[Tensor],
                side: str) -> list[Tensor]:
        buffers = []
        for g in groups:
            first = tensors[g.members[0]]
            width = g.columns[g.members[-1]].stop
            buffer = torch.empty(*first.shape[:3], width, dtype=self.precision, device=first.device)
            for i in g.members:
                torch.sub(tensors[i].to(self.precision), shifts[i].to(self.precision),
                          out=buffer[..., g.columns[i]])
            finite = torch.isfinite(buffer.sum((0, 1, 2)))
            if not finite.all():
                raise NonFiniteError(side, next(i for i in g.members if not finite[g.columns[i]].all()))
            buffers.append(buffer)
        return buffers

    def _add(self, value: Tensor, *key: Any) -> None:
        """Accumulate in float64; on the CPU where the device knows no float64 (mps)."""
        value = value.cpu().double() if value.device.type == "mps" else value.double()
        if key in self._sums:
            self._sums[key] += value
        else:
            self._sums[key] = value.clone()  # it may be a view of another sum

    def _target_sums(self, g: _Group, y: Tensor) -> Tensor:
        rows = y.flatten(0, 2)
        self._rows[g.grid] = self._rows.get(g.grid, 0) + len(rows)
        norms = torch.stack([rows[:, g.columns[j]].square().sum(1) for j in g.members], 1)
        self._side_sums("y", g, g, rows, None if self._same else rows, norms, rows.sum(0))
        return norms

    def _side_sums(self, side: str, g: _Group, grid: _Group, rows: Tensor, other: Tensor | None, norms: Tensor,
                   total: Tensor, cubic: Tensor | None = None) -> None:
        """Sums of one side; `other` is W'W rows where rows are to be resampled, None where the gram comes later."""
        self._add(total, side, "total", g.grid, grid.grid)
        self._add(norms.double().square().sum(0), side, "quartic", g.grid, grid.grid)
        cubic = rows.T @ norms if cubic is None else cubic
        for k, i in enumerate(g.members):
            c = g.columns[i]
            self._add(cubic[c, k], side, "cubic", i, grid.grid)
            if other is not None:
                self._add(_gram(rows[:, c], other[:, c]), side, "gram", i, grid.grid)

    def _pair_sums(self, gs: _Group, x: Tensor, gt: _Group, y: Tensor, norms_y: Tensor) -> None:
        r = self._resampling[gs.grid, gt.grid]
        small = r.down(x)
        rows = small.flatten(0, 2)
        pulled = r.adjoint_up(y).flatten(0, 2)
        key = (gs.grid, gt.grid)
        xy = rows.T @ pulled
        self._add(xy, "xy", *key)
        if self._same and gs is gt:
            norms_x = norms_y
            for i in gs.members:
                c = gs.columns[i]
                self._add(xy[c, c], "y", "gram", i, gt.grid)
        else:
            norms_x = torch.stack([r.squared_norms(small[..., gs.columns[i]]).flatten() for i in gs.members], 1)
            grown = r.gram_up(small).flatten(0, 2) if r.is_up else rows
            # one extra map per source, and one of ones, carried to the small grid by the adjoint
            maps = torch.cat([norms_x, torch.ones_like(norms_x[:, :1])], 1).reshape(*y.shape[:3], -1)
            weighted = rows.T @ r.adjoint_up(maps).flatten(0, 2)
            self._side_sums("x", gs, gt, rows, grown, norms_x, weighted[:, -1], weighted[:, :-1])
        pulled_norms = r.adjoint_up(norms_y.reshape(*y.shape[:3], -1)).flatten(0, 2)
        self._add(rows.T @ pulled_norms, "x_yy", *key)
        self._add(norms_x.T @ y.flatten(0, 2), "xx_y", *key)
        self._add(norms_x.double().T @ norms_y.double(), "xx_yy", *key)

    def merge(self, other: GridMoments) -> None:
        """Take in the moments of another shard of the data, made for the same sites (law 2)."""
        self._shards.append(other)

    def _side(self, side: str, index: int, groups: list[_Group], grid: Hashable) -> Side:
        own = next(g for g in groups if index in g.members)
        if side == "x" and self._same and own.grid == grid:
            side = "y"
        s, c, k = self._sums, own.columns[index], own.members.index(index)
        shift = (self._shift_x if side == "x" else self._shift_y)[index]
        return Side(self._rows[grid], shift.to(s[side, "gram", index, grid].device),
                    s[side, "total", own.grid, grid][c], s[side, "gram", index, grid],
                    s[side, "cubic", index, grid], s[side, "quartic", own.grid, grid][k])

    def cell(self, source: int, target: int) -> Moments:
        """Moments of one cell, about the means.

        Raises:
            SutureError: nothing was added yet.
        """
        if not self.examples:
            raise SutureError("expected at least one batch, got none; call update first")
        gs = next(g for g in self._sources if source in g.members)
        gt = next(g for g in self._targets if target in g.members)
        x = self._side("x", source, self._sources, gt.grid)
        y = self._side("y", target, self._targets, gt.grid)
        key, cx, cy = (gs.grid, gt.grid), gs.columns[source], gt.columns[target]
        kx, ky = gs.members.index(source), gt.members.index(target)
        s = self._sums
        cross = Cross(s["xy", *key][cx, cy], s["x_yy", *key][cx, ky], s["xx_y", *key][kx, cy],
                      s["xx_yy", *key][kx, ky])
        own = Moments(x, y, cross, self.precision).centred()
        for shard in self._shards:
            own = own.merge(shard.cell(source, target))
        return own
