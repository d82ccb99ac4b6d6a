"""Second moments against sums written row by row, their algebra, and their accumulator in any batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from suture import SutureError
from suture.numbers import Moments, ShiftedSums, UnitRowSums, leave_out, merge_blocks, standardise_rows
from tests.support.moments import assert_equal_moments

G = torch.Generator().manual_seed(0)
X, Y = (torch.randn(23, k, generator=G, dtype=torch.float64) + 5 for k in (3, 4))


def summed(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> dict[str, Any]:
    """All sums about the points `a` and `b`, row by row."""
    rows = [(p - a, q - b) for p, q in zip(x, y, strict=True)]
    return {"total": sum(p for p, _ in rows), "gram": sum(torch.outer(p, p) for p, _ in rows),
            "cubic": sum(p @ p * p for p, _ in rows), "quartic": sum((p @ p) ** 2 for p, _ in rows),
            "xy": sum(torch.outer(p, q) for p, q in rows), "x_yy": sum(q @ q * p for p, q in rows),
            "xx_y": sum(p @ p * q for p, q in rows), "xx_yy": sum((p @ p) * (q @ q) for p, q in rows)}


def check(m: Moments, x: Tensor, y: Tensor) -> None:
    for part in (m.x, m.cross):
        for name, value in vars(part).items():
            if name in ("total", "gram", "cubic", "quartic", "xy", "x_yy", "xx_y", "xx_yy"):
                torch.testing.assert_close(value, summed(x, y, m.x.shift, m.y.shift)[name], rtol=1e-9,
                                           atol=1e-9)


def test_moments_are_the_sums_about_the_means() -> None:
    m = Moments.of(X, Y)
    torch.testing.assert_close(m.x.shift, X.mean(0))
    torch.testing.assert_close(m.x.mean, X.mean(0))
    np.testing.assert_allclose(m.sxy, len(X) * np.cov(X.T, Y.T, ddof=0)[:3, 3:], rtol=1e-9)
    check(m, X, Y)


def test_sums_about_other_points_are_those_of_moved_rows() -> None:
    m, a, b = Moments.of(X, Y), torch.tensor([1.0, -2, 3]).double(), torch.tensor([0.5, 1, 1, -4]).double()
    moved = Moments(m.x.shift_to(a), m.y.shift_to(b), m.cross.shift_to(m.x, m.y, a, b))
    check(moved, X, Y)
    assert_equal_moments(moved.centre(), m)


def test_blocks_merge_into_the_moments_of_all_rows() -> None:
    blocks = [Moments.of(X[k::4], Y[k::4]) for k in range(4)]
    order = torch.cat([torch.arange(23)[k::4] for k in range(4)])
    for merged in (leave_out([*blocks, Moments.of(X[:2], Y[:2])], 4), *merge_blocks(blocks, 1)):
        assert_equal_moments(merged, Moments.of(X[order], Y[order]))
    assert [m.n for m in merge_blocks(blocks, 3)] == [blocks[0].n + blocks[3].n, blocks[1].n, blocks[2].n]
    rough = Moments(blocks[0].x, blocks[0].y, blocks[0].cross, torch.float32)
    assert blocks[1].merge(rough).precision == torch.float32, "as precise as the rougher of the two"


def test_rows_of_unit_length_and_standardised_rows() -> None:
    x = torch.cat([X, torch.zeros(2, 3)])
    sums = UnitRowSums.of(x[:9]).merge(UnitRowSums.of(x[9:]))
    assert (sums.n, sums.zeros) == (25, 2)
    torch.testing.assert_close(sums.total, sum(r / r.norm() for r in X))
    flat = torch.cat([Y, torch.full((1, 4), 7.3)])
    np.testing.assert_allclose((standardise_rows(flat) @ standardise_rows(flat).T)[:-1, :-1],
                               np.corrcoef(Y), atol=1e-12)
    assert not standardise_rows(flat)[-1].any(), "a row that does not vary"


@pytest.mark.parametrize(("x", "y", "got"), [
    (X[:5], Y[:4], r"\(5, 3\) and \(4, 4\)"), (X[:0], Y[:0], r"\(0, 3\)"), (X[:, 0], Y, r"\(23,\)"),
    (X, Y.log() * torch.tensor(float("inf")), "NaN or inf in matrix y")])
def test_what_has_no_moments_is_refused(x: Tensor, y: Tensor, got: str) -> None:
    with pytest.raises(SutureError, match=got):
        Moments.of(x, y)


# -- shifted sums --------------------------------------------------------------------------------------------

N, P, F = 30, 4, 3
ROWS = torch.randn(N, P, F, generator=torch.Generator().manual_seed(1)) + 100
MASK = torch.rand(N, P, generator=torch.Generator().manual_seed(2)) < 0.7
CLASSES = torch.arange(N) % 3 * 2 - 2


def added(sizes: list[int], mask: Tensor | None, classes: Tensor | None,
          precision: torch.dtype = torch.float64) -> ShiftedSums:
    """Return the sums of batches of these sizes."""
    sums, start = ShiftedSums(F, precision), 0
    for size in sizes:
        at = slice(start, start + size)
        sums.update(ROWS[at], None if classes is None else classes[at], None if mask is None else mask[at])
        start += size
    return sums


@pytest.mark.parametrize("sizes", [[30], [7, 0, 23], [1] * 30])
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("classes", [None, CLASSES])
def test_shifted_sums_are_those_of_all_rows(sizes: list[int], mask: Tensor | None,
                                            classes: Tensor | None) -> None:
    sums = added(sizes, mask, classes)
    used = torch.ones(N, P, dtype=torch.bool) if mask is None else mask
    x = ROWS.double()[used]
    wanted = Moments.of(x, x).x
    groups = [x] if classes is None else [ROWS.double()[used & (classes == c)[:, None]] for c in (-2, 0, 2)]
    within = sum((g - g.mean(0)).T @ (g - g.mean(0)) for g in groups) / len(x)
    side, (means, scatter) = sums.get_side(), sums.compute_within()
    assert side.n == sums.n == len(x)
    torch.testing.assert_close(side.mean, x.mean(0))
    torch.testing.assert_close(side.gram, wanted.gram)
    torch.testing.assert_close(means, torch.stack([g.mean(0) for g in groups]))
    torch.testing.assert_close(scatter, within)
    mean, overall = sums.compute_overall()
    torch.testing.assert_close(mean[0], x.mean(0))
    torch.testing.assert_close(overall, wanted.gram / len(x))


@pytest.mark.parametrize("classes", [None, CLASSES])
def test_squares_alone_are_the_diagonal(classes: Tensor | None) -> None:
    pairs, squares = ShiftedSums(), ShiftedSums(pairs=False)
    for sums in (pairs, squares):
        for at in (slice(0, 7), slice(7, N)):
            sums.update(ROWS[at], None if classes is None else classes[at])
    for describe in (ShiftedSums.compute_within, ShiftedSums.compute_overall):
        torch.testing.assert_close(describe(squares)[1], describe(pairs)[1].diagonal(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(describe(squares)[0], describe(pairs)[0])


def test_a_large_mean_costs_no_digits() -> None:
    exact = added([30], None, None).get_side().gram
    torch.testing.assert_close(added([10, 20], None, None, torch.float32).get_side().gram, exact,
                               rtol=1e-5, atol=1e-4)


def test_a_batch_of_padding_adds_nothing() -> None:
    sums = ShiftedSums(F)
    sums.update(ROWS[:3], mask=torch.zeros(3, P, dtype=torch.bool))
    assert sums.n == 0
    sums.update(ROWS)
    torch.testing.assert_close(sums.shift, ROWS.mean((0, 1)).double())
