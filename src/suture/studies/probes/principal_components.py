"""Principal components of a site, and representations cut to the first of them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from suture._base import SutureError, expect, is_count, show_value
from suture.numbers import ShiftedSums, Side, eigh, find_varying_columns
from suture.representations import Masks, Shape, View, get_row_mask, to_grid

GRADED = "graded"


@dataclass(frozen=True)
class Basis:
    """The principal components of the rows of one site, those of most variance first, in float64.

    `mean` (p,) is the mean row, and the columns of `vectors` (p, p) are the components.
    """

    mean: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, side: Side, precision: torch.dtype = torch.float64) -> Basis:
        """Compute the components from sums about the mean; `precision` is the dtype of their products.

        A column that does not vary is a component of its own, the last: rounding in the others would else let
        it vary.
        """
        varies = find_varying_columns(side, precision)
        columns = torch.cat([varies.nonzero()[:, 0], (~varies).nonzero()[:, 0]])
        count, vectors = int(varies.sum()), torch.eye(len(columns)).to(side.gram)
        vectors[:count, :count] = eigh(side.gram[varies][:, varies])[1].flip(1)
        return cls(side.mean.cpu(), vectors[columns.argsort()].cpu())

    @classmethod
    def of_rows(cls, rows: Tensor) -> Basis:
        """Compute the components of rows (n, p)."""
        sums = ShiftedSums(rows.shape[1], torch.float64)
        sums.update(rows)
        return cls.of(sums.get_side(), rows.dtype)

    def project(self, rank: int) -> Tensor:
        """Return the projection (p, p) to the first components."""
        kept = self.vectors[:, :rank]
        return kept @ kept.T

    def cut(self, rows: Tensor, rank: int) -> Tensor:
        """Return rows (..., p) cut to the first components, in their own dtype; with all they stay."""
        if rank >= len(self.mean):
            return rows
        kept, mean = self.vectors[:, :rank].to(rows), self.mean.to(rows)
        return mean + (rows - mean) @ kept @ kept.T


def cut_representation(x: Tensor, shape: Shape, basis: Basis, rank: int) -> Tensor:
    """Return a batch of representations with every position cut to the first components."""
    if rank >= shape.width:
        return x
    rows = x.movedim(1, -1) if shape.channels_first else x
    made = basis.cut(rows, rank)
    return (made.movedim(-1, 1) if shape.channels_first else made).contiguous()


def find_batch_basis(x: Tensor, shape: Shape, masks: Masks) -> Basis:
    """Return the components of a batch by itself, of its positions without padding."""
    rows, kept = to_grid(x, shape, View.ALL), get_row_mask(shape, View.ALL, masks)
    return Basis.of_rows(rows.flatten(0, -2) if kept is None else rows[kept])


def grade_ranks(width: int) -> tuple[int, ...]:
    """Return the graded ranks up to a width: its eighths, then halves of the last one, down to 1.

    For 512 they are those of Balogh and Jelasity (2025): 512, 448, 384, 320, 256, 192, 128, 64, 32, ..., 1.
    """
    found = [round(width * k / 8) for k in range(8, 0, -1)]
    while found[-1] > 1:
        found.append(found[-1] // 2)
    return tuple(dict.fromkeys(r for r in found if r > 0))


def read_ranks(given: Any) -> Any:
    """Return "graded", None, or ranks as numbers, each once; raise a `SutureError` for what is none."""
    if given is None or (isinstance(given, str) and given == GRADED):
        return given
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        given = [given]
    ranks = tuple(dict.fromkeys(_read_rank(r) for r in given))
    expect(bool(ranks), "at least one rank", "none", 'write ranks="graded"')
    return ranks


def choose_ranks(given: str | Sequence[int], widths: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the ranks of each site, largest first, its whole width among them.

    Args:
        given: of `read_ranks`. A site has none above its width.
        widths: numbers of channels of the sites.

    Raises:
        SutureError: a rank above all widths.
    """
    if isinstance(given, str):
        return [grade_ranks(w) for w in widths]
    if max(given) > max(widths):
        raise SutureError(f"expected ranks up to the largest width, {max(widths)}, got {max(given)}; write "
                          'ranks="graded"')
    return [tuple(sorted({w, *(r for r in given if r <= w)}, reverse=True)) for w in widths]


def _read_rank(given: Any) -> int:
    rank = given
    with suppress(TypeError):
        rank = given if isinstance(given, bool) else operator.index(given)
        if is_count(rank):
            return rank
    raise SutureError(f"expected whole numbers of at least 1 as ranks, got {show_value(rank)}; write "
                      'ranks="graded"')
