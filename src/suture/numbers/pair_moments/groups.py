"""Sites with one grid of positions, whose channels are multiplied together, in one piece of a batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from suture._base import SutureError
from suture.numbers.moments import to_double
from suture.numbers.pair_moments.shared_work import SharedWork
from suture.numbers.resizing import Resizing

T = TypeVar("T")


class NonFiniteError(SutureError):
    """Error for NaN or inf in representation number `index` of a `side`, "source" or "target"."""

    def __init__(self, side: str, index: int) -> None:
        super().__init__(f"NaN or inf in {side} representation {index}")
        self.side, self.index = side, index


@dataclass(frozen=True)
class SiteGroup:
    """Sites with one grid of positions, whose channels are side by side in the `columns` of one buffer.

    Beside them are the squared norms of the rows of each site, as far as they are wanted, and ones. So one
    product with the buffer gives cross sums, sums of rows and sums of third order.
    """

    grid: Hashable
    members: tuple[int, ...]
    columns: Mapping[int, slice]
    width: int
    norms: int

    @property
    def ones(self) -> int:
        """Number of the column of ones, the last in use."""
        return self.width + self.norms

    @property
    def buffer_width(self) -> int:
        # Rows of a multiple of 64 bytes: others made the subtraction and the small products twice as slow.
        return -(-(self.ones + 1) // 16) * 16

    @property
    def squares(self) -> int:
        """Number of elements of the Gram matrices of all members."""
        return sum((c.stop - c.start) ** 2 for c in self.columns.values())


def group_sites(grids: Sequence[Hashable], widths: Sequence[int], higher: bool) -> list[SiteGroup]:
    """Group sites of one grid; with `higher`, their squared norms are beside their channels."""
    groups = []
    for grid in dict.fromkeys(grids):
        members = tuple(i for i, g in enumerate(grids) if g == grid)
        edges = [0]
        for i in members:
            edges.append(edges[-1] + widths[i])
        columns = {i: slice(edges[k], edges[k + 1]) for k, i in enumerate(members)}
        groups.append(SiteGroup(grid, members, columns, edges[-1], len(members) * higher))
    return groups


def compute_gram(a: Tensor, width: int, b: Tensor | None = None) -> Tensor:
    """Compute a' b for the first `width` columns of `a`; copy the lower half of its symmetric part."""
    b = a if b is None else b
    step = 256 if width >= 512 else 128 if width >= 256 else width
    out = a.new_empty(width, b.shape[1])
    for start in range(0, width, step):
        rows = slice(start, min(start + step, width))
        torch.mm(a[:, rows].T, b[:, start:], out=out[rows, start:])
        out[rows.stop:, rows] = out[rows, rows.stop:width].T
    return out


class GroupRows:
    """The rows of a group in one piece of a batch, and what the sums of all cells need of them alone.

    Args:
        tensors: (N, *positions, C) of each member.
        shifts: subtracted from their rows.
        mask: (N, *positions), False at padding tokens.

    Attributes:
        buffer: (N, *positions, columns): centred channels, squared norms, ones.
        broken: number of the first member with NaN or inf, in the order of the members; None without any.
    """

    def __init__(self, group: SiteGroup, tensors: Sequence[Tensor], shifts: Sequence[Tensor],
                 mask: Tensor | None, precision: torch.dtype, work: SharedWork) -> None:
        self._cuts = list(group.columns.values())
        self._width, self._derived = group.width, dict[Hashable, Any]()
        first = tensors[0]
        self.buffer = buffer = work.lend((*first.shape[:-1], group.buffer_width), precision, first.device)
        for x, shift, c in zip(tensors, shifts, self._cuts, strict=True):
            torch.sub(x.to(precision), shift.to(x.device, precision), out=buffer[..., c])
        if mask is not None:
            buffer[..., :group.width].masked_fill_(~mask[..., None], 0)
        finite = torch.isfinite(buffer[..., :group.width].flatten(0, -2).sum(0))
        self.broken = (None if finite.all() else
                       next(k for k, c in enumerate(self._cuts) if not finite[c].all()))
        for k, c in enumerate(self._cuts if group.norms else ()):
            torch.linalg.vector_norm(buffer[..., c], dim=-1, out=buffer[..., group.width + k]).square_()
        buffer[..., group.ones] = 1 if mask is None else mask.to(precision)
        buffer[..., group.ones + 1:] = 0
        self.beside = slice(group.width, group.ones + 1)

    def _find(self, name: str, r: Resizing | None, make: Callable[[], T]) -> T:
        """Return what was derived before for a resizing, or make it."""
        if (name, r) not in self._derived:
            self._derived[name, r] = make()
        found: T = self._derived[name, r]
        return found

    def make_identity(self) -> Resizing:
        """Return the resizing to the rows as they are."""
        size = tuple(self.buffer.shape[1:-1])
        return Resizing(size, size)

    def shrink(self, r: Resizing) -> Tensor:
        """Return the buffer resized on the shrinking axes; a slice of its channels would be copied first."""
        return self._find("small", r, lambda: r.shrink(self.buffer))

    def get_rows(self, r: Resizing) -> Tensor:
        """Return the shrunk channels (rows, width), as a source."""
        return self.shrink(r).flatten(0, -2)[:, :self._width]

    def pull(self, r: Resizing) -> Tensor:
        """Return the buffer (rows, columns) brought to the rows of a source, as a target."""
        return self._find("pulled", r, lambda: r.apply_adjoint(self.buffer).flatten(0, -2))

    def compute_norms(self, r: Resizing) -> Tensor:
        """Return the squared norms (N, *target, members) of the resized rows, as a source."""
        def make() -> Tensor:
            if r.source == r.target:
                return self.buffer[..., self._width:self.beside.stop - 1]
            small = self.shrink(r)
            return torch.stack([r.compute_squared_norms(small[..., c]) for c in self._cuts], -1)

        return self._find("norms", r, make)

    def compute_double_norms(self, r: Resizing) -> Tensor:
        """Return the same in float64, (rows, members)."""
        return self._find("double", r, lambda: to_double(self.compute_norms(r).flatten(0, -2)))

    def compute_resized_grams(self, r: Resizing) -> list[Tensor]:
        """Return the products of the resized rows of each member with themselves."""
        def make() -> list[Tensor]:
            if r.source == r.target:
                return self.compute_grams()
            rows, grown = self.get_rows(r), r.apply_gram(self.shrink(r)).flatten(0, -2)
            return [compute_gram(rows[:, c], c.stop - c.start, grown[:, c]) for c in self._cuts]

        return self._find("grams", r, make)

    def compute_cubics(self, r: Resizing) -> list[Tensor]:
        """Return the sums of |x|² x over the resized rows x of each member."""
        def make() -> list[Tensor]:
            products = self._multiply(self.shrink(r), r.apply_adjoint(self.compute_norms(r)))
            return [products[c, k] for k, c in enumerate(self._cuts)]

        return self._find("cubics", r, make)

    def compute_quartics(self, r: Resizing) -> Tensor:
        """Return the sum of |x|⁴ over the resized rows x of each member."""
        return self._find("quartics", r, lambda: self.compute_double_norms(r).square().sum(0))

    def compute_grams(self) -> list[Tensor]:
        """Return the products of the rows of each member with themselves."""
        def make() -> list[Tensor]:
            rows = self.buffer.flatten(0, -2)
            return [compute_gram(rows[:, c], c.stop - c.start) for c in self._cuts]

        return self._find("own grams", None, make)

    def multiply_all(self) -> Tensor:
        """Return the products (width, columns) of the channels with all columns."""
        return self._find("all", None, lambda: compute_gram(self.buffer.flatten(0, -2), self._width))

    def compute_beside(self) -> Tensor:
        """Return the products (width, norms + 1) of channels with squared norms and ones."""
        return self._find("beside", None, lambda: self.multiply(self.buffer[..., self.beside]))

    def multiply(self, columns: Tensor) -> Tensor:
        """Return the products (width, k) of the channels with a few columns (N, *positions, k)."""
        return self._multiply(self.buffer, columns)

    def _multiply(self, buffer: Tensor, columns: Tensor) -> Tensor:
        # One small product per example, because a tall and very narrow product is five times slower.
        products = columns.flatten(1, -2).transpose(1, 2) @ buffer[..., :self._width].flatten(1, -2)
        return products.sum(0).T
