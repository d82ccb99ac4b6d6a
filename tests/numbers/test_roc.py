"""Separation of two samples of scores against scikit-learn, slow references, theory, and how often intervals
hold."""

from __future__ import annotations

from dataclasses import astuple, fields

import numpy as np
import pytest
from scipy import integrate, stats
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from suture._base.errors import SutureError
from suture.numbers.intervals import Estimate
from suture.numbers.roc import Separation, auroc, estimate_separation, two_sided_auroc

RNG = np.random.default_rng(0)
CASES = {
    "continuous": (RNG.normal(size=200), RNG.normal(size=200) - 1),
    "odd": (RNG.normal(size=41), RNG.normal(size=7)),
    "few against many": (RNG.normal(size=7), RNG.normal(size=300) - 0.5),
    "20 natives, recall 19/20": (RNG.normal(size=20), RNG.normal(size=31)),
    "heavy ties": (RNG.integers(0, 4, 60).astype(float), RNG.integers(-1, 3, 90).astype(float)),
    "ties between, not within": (np.arange(30.0), np.arange(10, 25.0)),
    "all equal": (np.full(9, 2.0), np.full(5, 2.0)),
    "separated": (np.arange(5.0) + 10, np.arange(8.0)),
    "reversed": (np.arange(5.0), np.arange(8.0) + 10),
    "wider": (RNG.normal(size=150), 5 * RNG.normal(size=150)),
    "float32": (RNG.normal(size=50).astype(np.float32), RNG.normal(size=60).astype(np.float32)),
    "infinite": (np.array([np.inf, 1, 0, np.inf, -1]), np.array([-np.inf, -np.inf, np.inf, 0.5])),
    "single": (np.array([1.0]), np.array([0.0])),
    "single native": (np.array([1.0]), np.array([0.0, 1.0, 2.0])),
    "single other": (np.array([0.0, 1.0, 2.0]), np.array([1.5])),
}
PAIRED = {name: (native[:len(other)], other[:len(native)]) for name, (native, other) in CASES.items()}
over_cases = pytest.mark.parametrize("case", CASES)
UNTIED = [name for name, (native, _) in CASES.items() if len(np.unique(native)) == len(native)]


def estimates(s: Separation) -> list[Estimate]:
    return [getattr(s, f.name) for f in fields(s)]


def labelled(native: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores as scikit-learn takes them, which refuses infinite ones: ranks stand for them."""
    return np.repeat([1, 0], [len(native), len(other)]), stats.rankdata(np.concatenate([native, other]))


def fpr_at_95(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    rates, recalls, _ = roc_curve(labels, scores, drop_intermediate=False, sample_weight=weights)
    return rates[np.argmax(recalls >= 0.95 - 1e-12)]


def correlated(rng: np.random.Generator, n: int, shift: float, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """(n,) standard normal natives, and others of the same spread, moved down by `shift`."""
    native = rng.normal(size=n)
    return native, rho * native + np.sqrt(1 - rho**2) * rng.normal(size=n) - shift


# -- values --------------------------------------------------------------------------------------------------

@over_cases
def test_values_are_scikit_learns(case: str) -> None:
    assert auroc(*CASES[case]) == pytest.approx(roc_auc_score(*labelled(*CASES[case])), abs=1e-12)
    labels, scores = labelled(*PAIRED[case])
    got = estimate_separation(*PAIRED[case])
    assert (got.auroc.value, got.two_sided.value) == (auroc(*PAIRED[case]), two_sided_auroc(*PAIRED[case]))
    assert got.average_precision.value == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert got.fpr95.value == pytest.approx(fpr_at_95(labels, scores), abs=1e-12)


@pytest.mark.parametrize("case", UNTIED)
def test_two_sided_is_the_auroc_of_typicality_where_no_natives_are_equal(case: str) -> None:
    native, other = CASES[case]

    def typicality(s: np.ndarray) -> np.ndarray:
        ranks = (native < s[:, None]).sum(1) + (native <= s[:, None]).sum(1)
        return -np.abs(ranks - len(native))

    want = roc_auc_score(*labelled(typicality(native), typicality(other)))
    assert two_sided_auroc(native, other) == pytest.approx(want, abs=1e-12)


@over_cases
def test_two_sided_averages_over_the_ranks_that_a_tied_score_stands_for(case: str) -> None:
    native, other = CASES[case]
    found = []
    for s in other:
        low, high = (native < s).mean(), (native <= s).mean()
        area, _ = integrate.quad(lambda u: abs(2 * u - 1), low, high,
                                 points=[0.5] if low < 0.5 < high else None)
        found.append(area / (high - low) if high > low else abs(2 * low - 1))
    assert two_sided_auroc(native, other) == pytest.approx(np.mean(found), abs=1e-9)


def test_two_sided_does_not_jump_where_ties_of_natives_change_place() -> None:
    other = np.ones(10)
    found = [two_sided_auroc(np.repeat([-1.0, 0, 1], [250 - k, 500, 250 + k]), other) for k in (-1, 0, 1)]
    assert np.ptp(found) < 0.01


@over_cases
def test_identical_samples_give_exactly_one_half(case: str) -> None:
    for s in CASES[case]:
        got = estimate_separation(s, s.copy())
        assert (got.auroc.value == got.two_sided.value == auroc(s, s[::-1])
                == two_sided_auroc(s, s[::-1]) == 0.5)
        assert got.average_precision.value == pytest.approx(0.5, abs=1e-12)
        ends = [(e.low, e.high) for e in (got.auroc, got.two_sided, got.average_precision)]
        assert ends == [pytest.approx((0.5, 0.5), abs=1e-12)] * 3


@over_cases
def test_only_the_order_of_the_scores_counts(case: str) -> None:
    native, other = PAIRED[case]
    levels = np.unique(np.concatenate([native, other]))
    for images in (np.exp(np.linspace(-30, 30, len(levels))),
                   np.append(np.arange(len(levels) - 1.0), np.inf)):
        moved = images[levels.searchsorted(native)], images[levels.searchsorted(other)]
        assert estimate_separation(*moved) == estimate_separation(native, other)


@over_cases
def test_auroc_is_antisymmetric_and_two_sided_does_not_know_up_from_down(case: str, monkeypatch) -> None:
    native, other = CASES[case]
    assert auroc(native, other) == pytest.approx(1 - auroc(-native, -other), abs=1e-15)
    assert auroc(native, other) == pytest.approx(1 - auroc(other, native), abs=1e-15)
    assert two_sided_auroc(native, other) == two_sided_auroc(-native, -other)
    monkeypatch.setattr("suture.numbers.roc.FEW_DRAWS", 4000)
    up, down = (estimate_separation(*(s * x for x in PAIRED[case])) for s in (1, -1))
    margins = [0.1 * (e.high - e.low) for e in (up.auroc, up.two_sided)]
    assert (down.two_sided.low, down.two_sided.high) == pytest.approx((up.two_sided.low, up.two_sided.high),
                                                                      abs=margins[1])
    assert (1 - down.auroc.high, 1 - down.auroc.low) == pytest.approx((up.auroc.low, up.auroc.high),
                                                                      abs=margins[0])


@pytest.mark.parametrize("size", [1e6, -1e6])
def test_scores_are_never_squashed(size: float) -> None:
    """A sigmoid makes all of these 0 or 1; torchmetrics applies one to scores outside [0, 1]."""
    step = np.spacing(1e6)
    native, other = size + step * np.arange(1, 20, 2), size + step * np.arange(0, 20, 2)
    ranks = np.arange(1.0, 20, 2), np.arange(0.0, 20, 2)
    assert estimate_separation(native, other) == estimate_separation(*ranks)
    assert estimate_separation(1e-12 * ranks[0], 1e-12 * ranks[1]) == estimate_separation(*ranks)
    assert auroc([0.5 + 1e-12], [0.5]) == auroc([1e6], [30.0]) == 1


@pytest.mark.parametrize("shift", [0, 0.5, -1.5, 3])
def test_two_sided_of_a_shifted_normal_sample(shift: float) -> None:
    """|X| < |Y| where Y - X and Y + X, which are independent, have the same sign."""
    rng, p = np.random.default_rng(1), stats.norm.cdf(shift / np.sqrt(2))
    got = two_sided_auroc(rng.normal(size=40_000), rng.normal(size=40_000) + shift)
    assert got == pytest.approx(p**2 + (1 - p) ** 2, abs=0.008)


@pytest.mark.parametrize("scale", [0.01, 0.3, 1, 4, 100])
def test_two_sided_of_a_shrunken_or_stretched_normal_sample(scale: float) -> None:
    rng = np.random.default_rng(2)
    native, other = rng.normal(size=40_000), scale * rng.normal(size=40_000)
    assert two_sided_auroc(native, other) == pytest.approx(2 / np.pi * np.arctan(scale), abs=0.008)
    assert auroc(native, other) == pytest.approx(0.5, abs=0.008), "one side alone does not see it"


def test_more_noise_and_more_shift_never_look_closer() -> None:
    rng = np.random.default_rng(3)
    native, noise = rng.normal(size=(2, 4000))
    noisy = [two_sided_auroc(native, native + k * noise) for k in (0, 0.3, 1, 3, 10)]
    shifted = [estimate_separation(native, native - k) for k in (0, 0.3, 1, 3, 10)]
    assert np.diff(noisy).min() > 0.01
    assert min(np.diff([s.auroc.value for s in shifted]).min(),
               np.diff([s.two_sided.value for s in shifted]).min()) > 0
    assert np.diff([s.fpr95.value for s in shifted]).max() < 0


# -- intervals -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("case", ["continuous", "heavy ties", "wider"])
def test_the_interval_of_auroc_is_delongs_on_the_logit_scale_up_to_draws(case: str, monkeypatch) -> None:
    native, other = PAIRED[case]
    kernel = (native[:, None] > other) + 0.5 * (native[:, None] == other)
    of_native, of_other, value = kernel.mean(1), kernel.mean(0), kernel.mean()
    variance = np.cov(of_native + of_other) / len(native)
    odds = (value / (1 - value)
            * np.exp(np.array([-1, 1]) * 1.959963984540054 * np.sqrt(variance) / value / (1 - value)))
    low, high = odds / (1 + odds)
    drift = kernel[~np.eye(len(kernel), dtype=bool)].mean() - value
    low, high = low + min(drift, 0), high + max(drift, 0)
    monkeypatch.setattr("suture.numbers.roc.FEW_DRAWS", 4000)
    got = estimate_separation(native, other).auroc
    assert (got.low, got.high) == pytest.approx((low, high), abs=0.1 * (high - low))


@pytest.mark.parametrize("rounding", [None, 1])
def test_the_interval_of_two_sided_has_the_width_of_a_bootstrap_that_estimates_f_anew(rounding) -> None:
    rng = np.random.default_rng(4)
    native, other = correlated(rng, 400, 1.0, 0.9)
    if rounding:
        native, other = native.round(rounding), other.round(rounding)
    drawn = []
    for _ in range(1000):
        rows = rng.integers(0, 400, 400)
        drawn.append(two_sided_auroc(native[rows], other[rows]))
    got = estimate_separation(native, other).two_sided
    assert got.high - got.low == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.1)


@pytest.mark.parametrize("case", ["continuous", "heavy ties"])
def test_intervals_are_percentiles_over_resampled_examples(case: str, monkeypatch) -> None:
    native, other = PAIRED[case]
    (labels, scores), n, rng = labelled(native, other), len(native), np.random.RandomState(5)
    drawn = []
    for _ in range(150):
        weights = np.tile(rng.multinomial(n, np.full(n, 1 / n)), 2)
        drawn.append([roc_auc_score(labels, scores, sample_weight=weights),
                      average_precision_score(labels, scores, sample_weight=weights),
                      fpr_at_95(labels, scores, weights)])
    monkeypatch.setattr("suture.numbers.roc.FEW_DRAWS", 1000)
    got = estimate_separation(native, other)
    found = got.auroc, got.average_precision, got.fpr95
    for estimate, values in zip(found, np.transpose(drawn), strict=True):
        low, high = np.percentile(values, [2.5, 97.5])
        margin = 0.2 * (high - low)
        assert low - margin - 2 / n <= estimate.low <= low + margin
        assert high - margin <= estimate.high <= high + margin + 2 / n


def test_no_interval_collapses_where_the_samples_stand_apart() -> None:
    native, other = np.arange(40.0) + 100, np.arange(40.0)
    missed, missed_others = 1 - 0.025 ** (1 / 20), stats.binomtest(0, len(other)).proportion_ci().high
    apart, turned = estimate_separation(native, other), estimate_separation(-native, -other)
    assert astuple(apart.auroc)[:3] == pytest.approx((1, 1 - missed, 1))
    assert astuple(turned.auroc)[:3] == pytest.approx((0, 0, missed))
    assert astuple(apart.two_sided)[:3] == astuple(turned.two_sided)[:3] == pytest.approx((1,
                                                                                           1 - 2 * missed, 1))
    assert astuple(apart.fpr95)[:3] == pytest.approx((0, 0, max(missed_others, 1 / 40)))
    assert apart.average_precision.value == apart.average_precision.high == 1
    many, above = 4000, round(4000 * missed_others)
    worst = np.concatenate([np.full(above, 300.0), np.full(many - above, -1.0)])
    precision = average_precision_score(*labelled(np.linspace(100, 200, many), worst))
    assert apart.average_precision.low == pytest.approx(precision, abs=0.003)


def test_two_sided_of_others_at_the_very_median_has_an_interval() -> None:
    got = estimate_separation(np.repeat([-1.0, 1], 200) * np.arange(1, 401), np.zeros(400)).two_sided
    assert (got.value, got.low) == (0, 0)
    assert 1.96 / np.sqrt(400) < got.high < 2.5 / np.sqrt(400), "the share below 0 is 1/2 up to that error"


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 resamples for the tests that repeat them hundreds of times."""
    monkeypatch.setattr("suture.numbers.roc.FEW_DRAWS", 100)


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("rho", [0.0, 0.8])
@pytest.mark.parametrize("truth", [0.5, 0.75, 0.95])
def test_intervals_hold_the_truth_in_95_of_100_samples(truth: float, rho: float) -> None:
    rng, shift, held = np.random.default_rng(8), stats.norm.ppf(truth) * np.sqrt(2), []
    threshold = stats.norm.ppf(0.05)
    truths = (truth, truth**2 + (1 - truth) ** 2,
              integrate.quad(lambda t: stats.norm.pdf(t) / (1 + stats.norm.sf(t + shift) / stats.norm.sf(t)),
                             -8, 8)[0],
              stats.norm.sf(threshold + shift))
    for _ in range(240):
        got = estimate_separation(*correlated(rng, 200, shift, rho))
        held.append([e.low <= t <= e.high for e, t in zip(estimates(got), truths, strict=True)])
    held_auroc, held_two_sided, held_precision, held_rate = np.mean(held, axis=0)
    assert 0.90 <= held_auroc <= 0.995
    assert 0.90 <= held_two_sided <= 0.995
    assert held_precision >= 0.90
    assert held_rate >= 0.90


@pytest.mark.usefixtures("few_draws")
def test_halves_of_one_sample_are_not_told_apart() -> None:
    whole = np.random.default_rng(9).gamma(2, size=200)
    held = []
    for seed in range(300):
        one, two = np.split(np.random.default_rng(seed).permutation(whole), 2)
        got = estimate_separation(one, two)
        held.append([got.auroc.low <= 0.5 <= got.auroc.high, got.two_sided.low <= 0.5 <= got.two_sided.high])
    assert np.mean(held, axis=0).min() >= 0.90


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize(("scale", "shift", "noise"), [(0.95, 0, 0), (1.05, 0, 0), (1, 0.02, 0), (1, 0, 1e-4),
                                                       (1, 0.05, 1e-2)])
def test_intervals_hold_where_the_others_nearly_are_the_natives(scale: float, shift: float,
                                                                noise: float) -> None:
    """An example's own two scores weigh as much as chance here; uncorrected, as few as none of 100 intervals
    hold."""
    rng, held = np.random.default_rng(10), []
    spread = np.hypot(scale, noise)
    grid = np.linspace(-8, 8, 20001)
    truths = (stats.norm.cdf(shift / np.hypot(1, spread)),
              integrate.trapezoid(np.abs(2 * stats.norm.cdf(grid) - 1) * stats.norm.pdf(grid, -shift, spread),
                                  grid))
    for _ in range(150):
        native = rng.normal(size=200)
        got = estimate_separation(native, scale * native - shift + noise * rng.normal(size=200))
        held.append([got.auroc.low <= truths[0] <= got.auroc.high,
                     got.two_sided.low <= truths[1] <= got.two_sided.high])
    assert np.mean(held, axis=0).min() >= 0.90


@pytest.mark.usefixtures("few_draws")
def test_average_precision_and_fpr_hold_where_the_others_are_the_natives_a_little_lower() -> None:
    """Resampling alone never holds them: the precision is biased, and the threshold's own example never
    reaches it."""
    rng, shift, held = np.random.default_rng(12), 0.02, []
    precision = integrate.quad(
        lambda t: stats.norm.pdf(t) / (1 + stats.norm.sf(t + shift) / stats.norm.sf(t)), -8, 8)[0]
    rate = stats.norm.sf(stats.norm.ppf(0.05) + shift)
    for _ in range(100):
        native = rng.normal(size=100)
        got = estimate_separation(native, native - shift)
        held.append([got.average_precision.low <= precision <= got.average_precision.high,
                     got.fpr95.low <= rate <= got.fpr95.high])
    assert np.mean(held, axis=0).min() >= 0.85


@over_cases
def test_every_interval_holds_its_value_within_0_and_1(case: str) -> None:
    for e in estimates(estimate_separation(*PAIRED[case])):
        assert 0 <= e.low <= e.value <= e.high <= 1
        assert e.reason == ""


def test_a_single_example_leaves_everything_open() -> None:
    assert [(e.low, e.high) for e in estimates(estimate_separation(*CASES["single"]))] == [(0, 1)] * 4


# -- input ---------------------------------------------------------------------------------------------------

def test_the_seed_and_nothing_else_decides_the_draws() -> None:
    native, other = CASES["continuous"]
    order = np.random.default_rng(11).permutation(len(native))
    first = estimate_separation(native, other, seed=3)
    assert estimate_separation(native, other, seed=3) == first
    assert (estimate_separation(native, other, seed=4).average_precision
            != first.average_precision)
    shuffled = estimate_separation(native[order], other[order], seed=3)
    for one, two in zip(estimates(shuffled), estimates(first), strict=True):
        assert astuple(one)[:3] == pytest.approx(astuple(two)[:3], abs=1e-12)


def test_blocks_of_resamples_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = estimate_separation(*CASES["continuous"])
    monkeypatch.setattr("suture.numbers.roc.BOOTSTRAP_CHUNK", 7000)
    assert estimate_separation(*CASES["continuous"]) == whole


def test_other_kinds_of_numbers_are_their_float64() -> None:
    native, other = PAIRED["float32"]
    assert native.dtype == np.float32
    assert estimate_separation(native, other.astype(float)) == estimate_separation(native.astype(float),
                                                                                   other)
    assert estimate_separation([3, 1], [True, False]) == estimate_separation(np.array([3.0, 1]),
                                                                             np.array([1.0, 0]))


@pytest.mark.parametrize(("native", "other", "why"), [
    ([1, np.nan, 2, np.nan], [1, 2, 3, 4], "nan for 2 of 4 native scores"),
    ([1, 2, 3], [np.nan, 2, 3], "nan for 1 of 3 other scores"),
    ([], [], "no native scores"),
])
def test_what_cannot_be_said_is_missing_with_its_reason(native: list[float], other: list[float],
                                                        why: str) -> None:
    for e in estimates(estimate_separation(np.array(native, float), np.array(other, float))):
        assert np.isnan([e.value, e.low, e.high]).all()
        assert e.reason == why
    for f in (auroc, two_sided_auroc):
        with pytest.raises(SutureError, match=why):
            f(np.array(native, float), np.array(other, float))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: estimate_separation(np.zeros(3), np.zeros(4)), "got 3 and 4; give two scores"),
    (lambda: auroc([], [1, 2]), "no native scores"),
    (lambda: two_sided_auroc([1, 2], []), "no other scores"),
    (lambda: estimate_separation(np.zeros((3, 1)), np.zeros(3)),
     r"native scores as real numbers of shape \(n,\)"),
    (lambda: auroc(np.zeros(3), np.array(["a"])), "other scores as real numbers"),
    (lambda: two_sided_auroc(np.zeros(3) * 1j, np.zeros(3)), "complex128"),
])
def test_bad_input_is_refused_in_one_line(call, message: str) -> None:
    with pytest.raises(SutureError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
