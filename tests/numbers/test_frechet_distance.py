"""Fréchet distances against matrix square roots, optimal transport and planted differences."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch

from suture._base.errors import SutureError
from suture.numbers import frechet_distance as module
from suture.numbers.frechet_distance import FrechetDistance, frechet
from suture.numbers.moments import Moments
from suture.numbers.spectra import Pair
from suture.stitching.direct_matching import compute_residual, direct_match

PARTS = ("shift", "shrinkage", "rotation")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def turn(p: int, seed: int = 0) -> torch.Tensor:
    """A random rotation (p, p)."""
    return torch.linalg.qr(normal(p, p, seed=seed))[0]


def exact(n: int, deviations: list[float], frame: torch.Tensor | None = None,
          mean: float = 0.0) -> torch.Tensor:
    """(n, p) data whose covariance has exactly these standard deviations, along the columns of `frame`."""
    z = normal(n, len(deviations))
    z = torch.linalg.qr(z - z.mean(0))[0] * n**0.5
    frame = torch.eye(len(deviations), dtype=torch.float64) if frame is None else frame
    return z * torch.tensor(deviations, dtype=torch.float64) @ frame.T + mean


def same(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor, b: torch.Tensor | float = 0.0) -> FrechetDistance:
    return frechet(w, b + torch.zeros(len(w), dtype=torch.float64), Pair.of(Moments.of(x, y)))


def values(f: FrechetDistance) -> tuple[float, float, float]:
    assert f.total.value == pytest.approx(sum(getattr(f, part).value for part in PARTS), rel=1e-14)
    return f.shift.value, f.shrinkage.value, f.rotation.value


def slow(s: np.ndarray, t: np.ndarray) -> tuple[float, float, float]:
    """The parts for rows of S and T, from the definition, by matrix square roots."""
    cs, ct = (np.atleast_2d(np.cov(m.T, bias=True)) for m in (s, t))
    root = scipy.linalg.sqrtm(ct).real
    bures = np.trace(cs) + np.trace(ct) - 2 * np.trace(scipy.linalg.sqrtm(root @ cs @ root).real)
    ordered = [np.sqrt(np.clip(np.linalg.eigvalsh(c), 0, None)) for c in (cs, ct)]
    shift, shrinkage = ((s.mean(0) - t.mean(0)) ** 2).sum(), ((ordered[0] - ordered[1]) ** 2).sum()
    return tuple(np.array([shift, shrinkage, bures - shrinkage]) / np.trace(ct))


CASES = {
    "square": (normal(300, 8), normal(300, 8, seed=1) @ normal(8, 8, seed=2), 1e-9),
    "wide source": (normal(300, 20), normal(300, 5, seed=1) * torch.arange(1, 6), 1e-9),
    "wide target": (normal(300, 5), normal(300, 20, seed=1) @ normal(20, 20, seed=2), 1e-6),
    "one column": (normal(300, 1), normal(300, 1, seed=1), 1e-9),
    "source of rank 3": (normal(300, 3) @ normal(3, 9, seed=3), normal(300, 9, seed=1), 1e-6),
    "target of rank 3": (normal(300, 9), normal(300, 3, seed=1) @ normal(3, 9, seed=3), 1e-6),
    "fewer rows than columns": (normal(6, 9), normal(6, 9, seed=1), 1e-6),
    "ten deviations off zero": (normal(300, 8) + 10, normal(300, 8, seed=1) * 3 + 30, 1e-9),
    "constant source": (torch.ones(50, 4), normal(50, 4, seed=1), 1e-9),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("large", [0.1, 1.0, 7.0])
@pytest.mark.filterwarnings("ignore:Matrix is singular")
def test_equals_matrix_square_roots(case: str, large: float) -> None:
    x, y, tolerance = CASES[case]
    x, y = x.double(), y.double()
    w, b = large * normal(y.shape[1], x.shape[1], seed=5), large * normal(y.shape[1], seed=6)
    wanted = slow((x @ w.T + b).numpy(), y.numpy())
    assert values(same(x, y, w, b)) == pytest.approx(wanted, rel=tolerance, abs=tolerance * max(1, large**2))


ANGLE, A, B = 0.7, 3.0, 1.0
TURNED = torch.tensor([[math.cos(ANGLE), -math.sin(ANGLE)], [math.sin(ANGLE), math.cos(ANGLE)]],
                      dtype=torch.float64)
# For 2 x 2 matrices tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)), here with M = C_t C_s.
NUCLEAR = math.sqrt((A**4 + B**4) * math.cos(ANGLE)**2 + 2 * (A * B)**2 * math.sin(ANGLE)**2 + 2 * (A * B)**2)
PLANTED = {
    "identity": (torch.eye(2), 0.0, (0, 0, 0)),
    "half": (torch.eye(2) / 2, 0.0, (0, 0.25, 0)),
    "nothing left": (torch.zeros(2, 2), 0.0, (0, 1, 0)),
    "doubled": (torch.eye(2) * 2, 0.0, (0, 1, 0)),
    "mirrored": (-torch.eye(2), 0.0, (0, 0, 0)),
    "shifted": (torch.eye(2), 5.0, (2 * 25 / 10, 0, 0)),
    "one direction lost": (torch.diag(torch.tensor([1.0, 0])), 0.0, (0, 0.1, 0)),
    "turned": (TURNED, 0.0, (0, 0, 2 * (A**2 + B**2 - NUCLEAR) / 10)),
    "deviations swapped": (torch.tensor([[0, 1.0], [1, 0]]), 0.0, (0, 0, 2 * (A - B) ** 2 / 10)),
    "turned and halved": (TURNED / 2, 0.0, (0, 0.25, (A**2 + B**2 - NUCLEAR) / 10)),
}


@pytest.mark.parametrize("case", PLANTED)
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_planted_differences_are_told_apart(case: str, mean: float) -> None:
    w, b, wanted = PLANTED[case]
    t, w = exact(40, [A, B], mean=mean), w.double()
    about = t.mean(0) - w @ t.mean(0) + b
    assert values(same(t, t, w, about)) == pytest.approx(wanted, abs=1e-13)


@pytest.mark.parametrize(("x", "y"), [(4, 7), (7, 4), (5, 5)])
def test_a_rotation_of_both_or_of_the_source_changes_nothing(x: int, y: int) -> None:
    s, t, w, b = (normal(90, x), normal(90, y, seed=1) * torch.arange(1, y + 1), normal(y, x, seed=2),
                  normal(y, seed=3))
    before, q, u = values(same(s, t, w, b)), turn(y, seed=4), turn(x, seed=5)
    assert values(same(s, t @ q.T, q @ w, q @ b)) == pytest.approx(before, rel=1e-11)
    assert values(same(s @ u.T, t, w @ u.T, b)) == pytest.approx(before, rel=1e-11)
    assert values(same(1e3 * s, 1e3 * t, w, 1e3 * b)) == pytest.approx(before, rel=1e-11)


def test_turning_the_target_alone_moves_the_rotation_only() -> None:
    s, t, w = normal(90, 5), normal(90, 5, seed=1) * torch.arange(1, 6), normal(5, 5, seed=2)
    t, about = t - t.mean(0), -w @ s.mean(0)
    one, other = values(same(s, t, w, about)), values(same(s, t @ turn(5), w, about))
    assert one[:2] == pytest.approx(other[:2], abs=1e-12)
    assert abs(one[2] - other[2]) > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_direct_matching_has_no_shift_and_is_no_further_than_its_residual(case: str) -> None:
    x, y, _ = CASES[case]
    pair = Pair.of(Moments.of(x, y))
    found = direct_match(pair)
    shift, shrinkage, rotation = values(frechet(found.weight, found.bias, pair))
    assert shift < 1e-25
    assert shrinkage + rotation <= found.residual + 1e-12
    # Variance that is not explained is variance that the stitched representation lacks.
    assert found.residual < 1e-9 or shrinkage > 0


@pytest.mark.parametrize("seed", range(5))
def test_any_map_is_at_most_as_far_as_its_squared_error(seed: int) -> None:
    pair = Pair.of(Moments.of(normal(60, 6, seed=seed), normal(60, 4, seed=seed + 50) + 3))
    w, b = normal(4, 6, seed=seed + 100), normal(4, seed=seed + 150)
    assert 0 < frechet(w, b, pair).total.value < compute_residual(w, b, pair.moments)


def test_equals_the_cost_of_the_optimal_map_on_a_large_sample() -> None:
    """Samples of one Gaussian carried to the other by the optimal map (Olkin and Pukelsheim 1982)."""
    ct, w, b = np.diag([4.0, 1.0, 0.25]) + 0.2, normal(3, 3, seed=1).numpy(), np.array([1.0, 0, -2])
    factor = np.linalg.cholesky(ct)
    x = exact(50, [1.0, 1.0, 1.0])
    y = x @ torch.tensor(factor).T
    root = scipy.linalg.sqrtm(ct)
    carry = np.linalg.inv(root) @ scipy.linalg.sqrtm(root @ w @ w.T @ root) @ np.linalg.inv(root)
    t = np.random.default_rng(0).standard_normal((1_000_000, 3)) @ factor.T
    s = t @ carry.T + b
    assert np.cov(s.T) == pytest.approx(w @ w.T, abs=0.02)
    cost = ((s - t) ** 2).sum(1) / np.trace(ct)
    wanted = same(x, y, torch.tensor(w), torch.tensor(b)).total.value
    assert abs(cost.mean() - wanted) < 4 * cost.std() / 1000


def test_is_the_distance_between_sorted_samples_in_one_dimension() -> None:
    x, y = normal(200_000, 1), 2 * normal(200_000, 1, seed=1) + 1
    s = 3 * x - 2
    sorted_cost = (s.sort(0).values - y.sort(0).values).square().mean() / y.var()
    got = same(x, y, torch.tensor([[3.0]]), torch.tensor([-2.0])).total.value
    assert got == pytest.approx(float(sorted_cost), rel=1e-3)


def test_keeps_its_digits_at_a_condition_of_1e12() -> None:
    """Against 60-digit arithmetic on the same moments; the small parts would drown in a square root of
    matrices."""
    q, n = 6, 40
    t = exact(n, [10.0**-k for k in (0, 1, 2, 4, 5, 6)], turn(q))
    w = torch.eye(q, dtype=torch.float64) + 1e-3 * normal(q, q, seed=1)
    pair = Pair.of(Moments.of(t, t))
    assert pair.y.rank == q
    assert pair.y.condition == pytest.approx(1e12, rel=1e-2)
    with mpmath.workdps(60):
        ct = mpmath.matrix(pair.moments.syy.tolist()) / n
        cs = mpmath.matrix(w.tolist()) * ct * mpmath.matrix(w.tolist()).T
        values_t, vectors = mpmath.eigsy(ct)
        root = vectors * mpmath.diag([mpmath.sqrt(abs(v)) for v in values_t]) * vectors.T
        inner = [mpmath.sqrt(abs(v)) for v in mpmath.eigsy(root * cs * root, eigvals_only=True)]
        roots = [sorted(mpmath.sqrt(abs(v)) for v in e)
                 for e in (mpmath.eigsy(cs, eigvals_only=True), values_t)]
        total = mpmath.fsum(values_t)
        shrinkage = mpmath.fsum((a - b) ** 2 for a, b in zip(*roots, strict=True)) / total
        rotation = 2 * (mpmath.fsum(a * b for a, b in zip(*roots, strict=True)) - mpmath.fsum(inner)) / total
    got = values(frechet(w, torch.zeros(q), pair))
    assert got[1] == pytest.approx(float(shrinkage), rel=1e-7)
    assert got[2] == pytest.approx(float(rotation), abs=1e-14)
    assert float(rotation) > 1e-8


@pytest.mark.parametrize("q", [2, 8, 64, 200])
@pytest.mark.parametrize("digits", [0, 6, 12])
@pytest.mark.parametrize("last", [0.1, -0.9])
def test_without_rotation_nothing_beyond_rounding_is_left(q: int, digits: int, last: float) -> None:
    """Also where the map has half the rank: an eigenvalue 0 that comes out as eps has the root 1e-8."""
    frame = turn(q)
    t = exact(2 * q + 5, torch.logspace(0, -digits / 2, q).tolist(), frame)
    w = frame @ torch.linspace(1, last, q, dtype=torch.float64).clamp(min=0).diag() @ frame.T
    assert 0 <= values(same(t, t, w))[2] < 1e-12


def test_only_rounding_is_clamped(monkeypatch: pytest.MonkeyPatch) -> None:
    t = exact(40, [3.0, 2.0, 1.0])
    honest = torch.linalg.svdvals
    for error, wanted in ((1e-16, 0.0), (1e-9, -2e-9)):
        calls = []

        def off(m: torch.Tensor, error: float = error, calls: list = calls) -> torch.Tensor:
            calls.append(1)
            return honest(m) + (error / 3 if len(calls) == 2 else 0)

        monkeypatch.setattr(module.torch.linalg, "svdvals", off)
        assert same(t, t, torch.eye(3, dtype=torch.float64)).rotation.value == pytest.approx(wanted,
                                                                                             abs=1e-14)


@pytest.mark.parametrize(("x", "y", "w", "why"), [
    (normal(30, 3), torch.full((30, 3), 0.1), torch.eye(3), "constant"),
    (normal(30, 3), torch.zeros(30, 3), torch.eye(3), "constant"),
    (normal(30, 3), normal(30, 3, seed=1), torch.full((3, 3), math.nan), "no finite second moments"),
    (normal(30, 3), normal(30, 3, seed=1), torch.full((3, 3), math.inf), "no finite second moments"),
    (normal(30, 3), normal(30, 3, seed=1), torch.full((3, 3), 1e200, dtype=torch.float64),
     "no finite second moments"),
    (torch.ones(30, 3), normal(30, 3, seed=1), torch.full((3, 3), math.nan), "no finite second moments"),
])
def test_what_has_no_value_has_a_reason(x, y, w, why) -> None:
    got = same(x, y, w.double())
    for part in ("total", *PARTS):
        estimate = getattr(got, part)
        assert math.isnan(estimate.value)
        assert why in estimate.reason


def test_single_precision_maps_are_computed_in_float64() -> None:
    x, y, w = normal(50, 4) + 100, normal(50, 3, seed=1), normal(3, 4, seed=2).float()
    assert values(same(x, y, w)) == values(same(x, y, w.double()))


@pytest.mark.parametrize(("w", "b"), [((3, 4), (4,)), ((4, 3), (3,)), ((4, 3), (1, 4)), ((4,), (4,))])
def test_other_shapes_are_refused(w: tuple[int, ...], b: tuple[int, ...]) -> None:
    pair = Pair.of(Moments.of(normal(20, 3), normal(20, 4)))
    with pytest.raises(SutureError, match=r"expected weight \(4, 3\) and bias \(4,\)"):
        frechet(torch.ones(w), torch.ones(b), pair)
