"""Training-free detectors: against scikit-learn and slow loops, planted cases, classes, masks, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import oas as sklearn_oas
from sklearn.metrics import roc_auc_score
from torch import Tensor

from suture import SutureError
from suture.numbers import ShiftedSums, auroc, two_sided_auroc
from suture.ood import DEFAULT_DETECTORS, DETECTORS, Detector, FeatureSample, NativeSite, SiteFeatures
from suture.ood.distances import Mahalanobis, Neighbours, Relative, compute_shrinkage, fit_gaussians
from suture.ood.table import FunctionDetector, ScoreFunction, choose_detectors
from suture.representations import Kind, Shape

MAP, TOKENS, VECTOR = Shape(Kind.MAP, 6, (4, 3)), Shape(Kind.TOKENS, 6, (7,)), Shape(Kind.VECTOR, 6)
PATCHES = Shape(Kind.TOKENS, 6, (10,), prefix=1, grid=(3, 3))
SHAPES = [MAP, TOKENS, PATCHES, VECTOR]


def representations(shape: Shape, n: int, seed: int, labels: Tensor | None = None) -> Tensor:
    """Correlated, far from zero, with class means."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(shape.width, shape.width, generator=torch.Generator().manual_seed(99)) * 0.5
    size = {Kind.MAP: (n, *shape.size, shape.width), Kind.TOKENS: (n, *shape.size, shape.width),
            Kind.VECTOR: (n, shape.width)}[shape.kind]
    each = torch.randn(n, shape.width, generator=g)
    x = (torch.randn(size, generator=g) + each.view(n, *[1] * (len(size) - 2), -1)) @ mixing + 5
    if labels is not None:
        centres = 2 * torch.randn(10, shape.width, generator=torch.Generator().manual_seed(7))
        x = x + centres[labels].view(n, *[1] * (len(size) - 2), -1)
    return x.permute(0, 3, 1, 2) if shape.kind is Kind.MAP else x


def some_labels(n: int, classes: int = 3) -> Tensor:
    return torch.arange(n) % classes


def ragged(n: int, tokens: int) -> Tensor:
    lengths = 2 + torch.arange(n) % (tokens - 1)
    return torch.arange(tokens)[None] < lengths[:, None]


def by_hand(x: Tensor, shape: Shape, mask: Tensor | None = None) -> np.ndarray:
    """Mean and standard deviation over positions of each example as a slow loop makes them."""
    found = []
    for k, example in enumerate(x.double()):
        if shape.kind is Kind.VECTOR:
            found.append(example.numpy())
            continue
        rows = example.flatten(1).T if shape.kind is Kind.MAP else example
        kept = rows[shape.prefix:] if mask is None else rows[shape.prefix:][mask[k, shape.prefix:]]
        found.append(torch.cat([kept.mean(0), *rows[:shape.prefix], kept.std(0, correction=0)]).numpy())
    return np.stack(found)


def fit(detector: Detector, x: Tensor, shape: Shape, labels: Tensor | None = None, size: int = 100,
        seed: int = 0) -> Detector:
    """Fit a detector to the representations of one site, batch by batch."""
    statistics = detector.make_statistics(seed)
    for part in torch.arange(len(x)).split(size):
        if statistics is not None:
            statistics.update(SiteFeatures(x[part], shape).spread, None if labels is None else labels[part])
    return detector.fit(NativeSite("here", shape, seed, statistics))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_features_are_those_of_a_slow_loop(shape: Shape, masked: bool) -> None:
    x = representations(shape, 5, 0)
    mask = ragged(5, shape.size[0]) if masked and shape.kind is Kind.TOKENS else None
    np.testing.assert_allclose(SiteFeatures(x, shape, mask).spread.numpy(), by_hand(x, shape, mask),
                               rtol=2e-5, atol=2e-5)


def test_a_mean_far_above_the_spread_costs_no_digits() -> None:
    x = representations(MAP, 4, 0)
    np.testing.assert_allclose(SiteFeatures(x + 4096, MAP).spread[:, 6:],
                               SiteFeatures(x, MAP).spread[:, 6:], rtol=1e-3)


@pytest.mark.parametrize(("n", "p"), [(20, 5), (8, 30), (500, 3), (2, 4)])
def test_shrinkage_is_scikit_learns(n: int, p: int) -> None:
    x = np.random.default_rng(0).standard_normal((n, p)) @ np.diag(np.linspace(0.1, 3, p))
    _, wanted = sklearn_oas(x)
    got = compute_shrinkage(torch.from_numpy(np.cov(x.T, bias=True)), n)
    assert got == pytest.approx(float(wanted), rel=1e-9)


@pytest.mark.parametrize("detector", [Mahalanobis(), Relative()], ids=["mahalanobis", "relative"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scores_are_squared_distances_under_the_shrunk_covariance(shape: Shape, detector: Detector) -> None:
    n = 60
    labels = some_labels(n)
    x, new = representations(shape, n, 2, labels), representations(shape, 9, 3)
    mask = ragged(9, shape.size[0]) if shape.kind is Kind.TOKENS else None
    sums = ShiftedSums()
    sums.update(SiteFeatures(x, shape).spread, labels)
    got = fit(detector, x, shape, labels).score(SiteFeatures(new, shape, mask))

    def distances(means: Tensor, covariance: Tensor, dof: int) -> np.ndarray:
        sd = covariance.diagonal().sqrt().numpy()
        corr = covariance.numpy() / np.outer(sd, sd)
        rho = compute_shrinkage(torch.from_numpy(corr), dof)
        shrunk = ((1 - rho) * corr + rho * np.eye(len(sd))) * np.outer(sd, sd)
        inverse = np.linalg.inv(shrunk)
        return np.array([[(row - m) @ inverse @ (row - m) for m in means.numpy()]
                         for row in by_hand(new, shape, mask)])

    wanted = -distances(*sums.compute_within(), n - 3).min(1)
    if isinstance(detector, Relative):
        wanted += distances(*sums.compute_overall(), n - 1)[:, 0]
    np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())


def test_the_k_th_neighbour_is_that_of_a_slow_loop() -> None:
    x, new = representations(MAP, 50, 0), representations(MAP, 6, 1)
    detector, rows = fit(Neighbours(k=3), x, MAP), SiteFeatures(x, MAP).spread
    scaled = (rows - rows.mean(0)) / rows.std(0, correction=0)
    z = (SiteFeatures(new, MAP).spread - rows.mean(0)) / rows.std(0, correction=0)
    wanted = [-sorted(float((a - b).norm()) for b in scaled)[2] for a in z]
    np.testing.assert_allclose(detector.score(SiteFeatures(new, MAP)), wanted, rtol=1e-4)


def test_a_reservoir_is_uniform_and_the_same_for_any_cut() -> None:
    stream = torch.arange(200.0)[:, None]
    kept = []
    for step in (1, 7, 200):
        r = FeatureSample(4, size=20)
        for part in stream.split(step):
            r.update(part)
        kept.append(r.rows[:, 0].tolist())
    assert kept[0] == kept[1] == kept[2]
    assert len(set(kept[0])) == 20
    counts = np.zeros(200)
    for seed in range(300):
        r = FeatureSample(seed, size=20)
        r.update(stream)
        counts[r.rows[:, 0].long().numpy()] += 1
    # 30 expected of each: a sum of squares far above its expectation of 180 would be a draw that is not
    # uniform.
    assert ((counts - 30) ** 2 / 27).sum() < 260


# -- planted cases -------------------------------------------------------------------------------------------

def fitted(name: str, n: int = 400) -> Detector:
    return fit(DETECTORS[name], representations(MAP, n, 5, some_labels(n)), MAP, some_labels(n))


def difference(detector: Detector, native: Tensor, other: Tensor) -> float:
    a, b = (detector.score(SiteFeatures(x, MAP)).double().numpy() for x in (native, other))
    return two_sided_auroc(a, b)


FREE = ["mahalanobis", "relative", "neighbours"]


@pytest.mark.parametrize("name", FREE)
def test_native_examples_score_a_half_and_growing_noise_more_and_more(name: str) -> None:
    detector = fitted(name)
    labels = some_labels(600)
    x = representations(MAP, 600, 11, labels)
    native, held = x[::2], x[1::2]
    noise = torch.randn(held.shape, generator=torch.Generator().manual_seed(0))
    found = [difference(detector, native, held + s * noise) for s in (0, 2, 8, 32)]
    assert found[0] == pytest.approx(0.5, abs=0.06)
    if not name.startswith("relative"):  # far away both distances grow alike: known of relative Mahalanobis
        assert found == sorted(found)
        assert found[-1] > 0.99
    assert difference(detector, native, native) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("change", ["shrunken", "rotated", "shifted", "noisy"])
def test_the_default_tells_planted_cases_apart(change: str) -> None:
    detector = fitted(DEFAULT_DETECTORS[0])
    x = representations(MAP, 300, 12, some_labels(300))
    mean = x.mean((0, 2, 3), keepdim=True)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(3))).Q
    planted = {"shrunken": mean + 0.5 * (x - mean), "shifted": x + 3,
               "rotated": mean + torch.einsum("nchw,dc->ndhw", x - mean, turn),
               "noisy": x + 4 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))}[change]
    assert difference(detector, x, planted) > 0.8


def test_a_silent_channel_that_speaks_is_far_out_and_rounding_is_not() -> None:
    x = representations(MAP, 400, 5)
    x[:, 2] = 0
    detector = fit(Mahalanobis(), x, MAP)
    rounding, speaking = x.clone(), x.clone()
    rounding[:, 2] += 1e-6
    speaking[:, 2] += 0.5
    assert difference(detector, x, rounding) == pytest.approx(0.5, abs=0.02)
    assert difference(detector, x, speaking) > 0.99


def test_a_constant_representation_scores_itself_alike() -> None:
    x = torch.full((20, 6), 3.0)
    score = fit(Mahalanobis(), x, VECTOR).score(SiteFeatures(x, VECTOR))
    assert score.isfinite().all()
    assert (score == score[0]).all()


# -- classes and bad input -----------------------------------------------------------------------------------

def notes(x: Tensor, labels: Tensor | None = None) -> list[str]:
    made = fit(Mahalanobis(), x, VECTOR, labels)
    assert made.score(SiteFeatures(representations(VECTOR, 3, 1), VECTOR)).isfinite().all()
    return made.describe_fit([made])


def test_fewer_than_two_examples_of_a_class_are_said() -> None:
    labels = torch.tensor([0] * 10 + [1] * 10 + [2])
    note = notes(representations(VECTOR, 21, 0, labels), labels)[0]
    assert "1 of 3 classes have fewer than two examples" in note
    assert "shrunk" in note


def test_far_fewer_examples_than_features_are_said() -> None:
    assert "few examples" in notes(torch.randn(3, 6, generator=torch.Generator().manual_seed(0)))[0]
    assert notes(representations(VECTOR, 400, 0)) == []


@pytest.mark.parametrize("labels", [None, torch.zeros(12, dtype=torch.int64)])
def test_one_class_is_not_enough_for_relative_distances_alone(labels: Tensor | None) -> None:
    x = representations(VECTOR, 12, 0)
    with pytest.raises(SutureError, match="at least two classes"):
        fit(Relative(), x, VECTOR, labels)
    for enough in (Mahalanobis(), Neighbours()):
        fit(enough, x, VECTOR, labels)


def test_too_few_examples_are_refused() -> None:
    for name, n in (("mahalanobis", 1), ("neighbours", 10)):
        with pytest.raises(SutureError, match="more data"):
            fit(DETECTORS[name], representations(VECTOR, n, 0), VECTOR)


@pytest.mark.parametrize(("function", "message"), [
    (lambda x: x, "expected scores of shape"),
    (lambda x: 3.0, "got float"),
    (lambda x: x.flatten(1).sum(1) * float("nan"), "got NaN for 4 of 4"),
])
def test_a_detector_of_a_user_that_does_wrong_is_named(function: ScoreFunction, message: str) -> None:
    with pytest.raises(SutureError, match=message) as error:
        FunctionDetector("mine", function, "layer1").score(SiteFeatures(representations(MAP, 4, 0), MAP))
    assert "'mine'" in str(error.value)
    assert "'layer1'" in str(error.value)


@pytest.mark.parametrize(("name", "nearest"), [
    ("mahalanobi", "mahalanobis"), ("mahalanobis_mean", "mahalanobis"), ("relative_mean", "relative"),
    ("mahalanobis_position", "mahalanobis"), ("relative_position", "relative")])
def test_an_unknown_or_dropped_detector_is_told_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(SutureError, match=f"unknown detector '{name}'; nearest: {nearest}"):
        choose_detectors(name)


def test_auroc_of_a_score_is_scikit_learns_with_native_as_positive() -> None:
    detector = fitted("mahalanobis")
    x = representations(MAP, 200, 12, some_labels(200))
    a, b = (detector.score(SiteFeatures(t, MAP)).double().numpy() for t in (x, 1.5 * x))
    wanted = roc_auc_score(np.r_[np.ones(200), np.zeros(200)], np.r_[a, b])
    assert auroc(a, b) == pytest.approx(float(wanted))
    assert wanted > 0.9


def test_gaussians_of_uncorrelated_features_are_plain_z_scores() -> None:
    mean, variance = torch.tensor([[1.0, -2.0]]).double(), torch.tensor([4.0, 0.25]).double()
    g, _ = fit_gaussians(mean, variance.diag(), 10**9)
    assert float(g.square_distances(torch.tensor([[3.0, -1.0]]))) == pytest.approx(1 + 4, rel=1e-4)
