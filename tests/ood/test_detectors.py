"""Training-free detectors: against scikit-learn and slow loops, planted cases, classes, masks, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import oas as sklearn_oas
from sklearn.metrics import roc_auc_score
from torch import Tensor

from suture._base.errors import SutureError
from suture.ood.detectors import registry as table
from suture.ood.detectors.fitter import DetectorFitter
from suture.ood.detectors.mahalanobis import ClassMoments, Gaussians, Mahalanobis, oas, select_features
from suture.ood.detectors.nearest_neighbours import FeatureSample, Neighbours
from suture.ood.detectors.site_features import SiteFeatures
from suture.representations.shapes import Kind, Shape

MAP, TOKENS, VECTOR = Shape(Kind.MAP, 6, (4, 3)), Shape(Kind.TOKENS, 6, (7,)), Shape(Kind.VECTOR, 6)
PATCHES = Shape(Kind.TOKENS, 6, (10,), prefix=1, grid=(3, 3))
SHAPES = [MAP, TOKENS, PATCHES, VECTOR]
FEATURES = ["mean", "spread", "position"]


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


def by_hand(x: Tensor, shape: Shape, features: str, mask: Tensor | None = None) -> list[np.ndarray]:
    """Rows of each example as a slow loop makes them."""
    found = []
    for k, example in enumerate(x.double()):
        if shape.kind is Kind.VECTOR:
            found.append(example[None].numpy())
            continue
        rows = example.flatten(1).T if shape.kind is Kind.MAP else example
        prefix = [rows[i] for i in range(shape.prefix)]
        kept = rows[shape.prefix:] if mask is None else rows[shape.prefix:][mask[k, shape.prefix:]]
        if features == "position":
            found.append(kept.numpy())
            continue
        parts = [kept.mean(0), *prefix] + ([kept.std(0, correction=0)] if features == "spread" else [])
        found.append(torch.cat(parts)[None].numpy())
    return found


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_features_are_those_of_a_slow_loop(shape: Shape, features: str) -> None:
    x = representations(shape, 5, 0)
    for mask in [None, *([ragged(5, shape.size[0])] if shape.kind is Kind.TOKENS else [])]:
        rows, counted = select_features(SiteFeatures(x, shape, mask), features)  # type: ignore[arg-type]
        for k, wanted in enumerate(by_hand(x, shape, features, mask)):
            mine = rows[k] if counted is None else rows[k][counted[k]]
            np.testing.assert_allclose(mine.numpy(), wanted, rtol=2e-5, atol=2e-5)


def test_a_mean_far_above_the_spread_costs_no_digits() -> None:
    x = representations(MAP, 4, 0)
    np.testing.assert_allclose(SiteFeatures(x + 4096, MAP).spread[:, 6:],
                               SiteFeatures(x, MAP).spread[:, 6:], rtol=1e-3)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_class_moments_equal_those_of_all_rows_at_once(shape: Shape, features: str, labelled: bool) -> None:
    n = 40
    labels = some_labels(n)
    x = representations(shape, n, 1, labels)
    mask = ragged(n, shape.size[0]) if shape.kind is Kind.TOKENS else None
    moments = ClassMoments()
    for part in torch.arange(n).split(7):
        given = SiteFeatures(x[part], shape, None if mask is None else mask[part])
        rows, counted = select_features(given, features)  # type: ignore[arg-type]
        moments.update(rows, labels[part] if labelled else None, counted)
    rows_by_hand = by_hand(x, shape, features, mask)
    owner = np.concatenate([[k] * len(r) for k, r in enumerate(rows_by_hand)])
    every = np.concatenate(rows_by_hand)
    classes = labels.numpy()[owner] if labelled else np.zeros(len(owner), int)
    means = np.stack([every[classes == c].mean(0) for c in np.unique(classes)])
    within = sum(np.cov(every[classes == c].T, bias=True) * (classes == c).mean() for c in np.unique(classes))
    got_means, got_within = moments.compute_within()
    np.testing.assert_allclose(got_means, means, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(got_within, within, rtol=1e-4, atol=1e-4)
    mean, overall = moments.compute_overall()
    np.testing.assert_allclose(mean[0], every.mean(0), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(overall, np.cov(every.T, bias=True), rtol=1e-4, atol=1e-4)
    assert moments.examples == n
    assert moments.counts == ([14, 13, 13] if labelled else [n])


@pytest.mark.parametrize(("n", "p"), [(20, 5), (8, 30), (500, 3), (2, 4)])
def test_shrinkage_is_scikit_learns(n: int, p: int) -> None:
    x = np.random.default_rng(0).standard_normal((n, p)) @ np.diag(np.linspace(0.1, 3, p))
    _, wanted = sklearn_oas(x)
    assert oas(torch.from_numpy(np.cov(x.T, bias=True)), n) == pytest.approx(float(wanted), rel=1e-9)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scores_are_squared_distances_under_the_shrunk_covariance(shape: Shape, features: str,
                                                                  relative: bool) -> None:
    n = 60
    labels = some_labels(n)
    x, new = representations(shape, n, 2, labels), representations(shape, 9, 3)
    mask = ragged(9, shape.size[0]) if shape.kind is Kind.TOKENS else None
    moments = ClassMoments()
    moments.update(*(r := select_features(SiteFeatures(x, shape), features))[:1], labels, r[1])
    got = Mahalanobis.fit(moments, features, relative=relative).score(SiteFeatures(new, shape, mask))

    def distances(means: Tensor, covariance: Tensor, dof: int) -> np.ndarray:
        sd = covariance.diagonal().sqrt().numpy()
        corr = covariance.numpy() / np.outer(sd, sd)
        rho = oas(torch.from_numpy(corr), dof)
        shrunk = ((1 - rho) * corr + rho * np.eye(len(sd))) * np.outer(sd, sd)
        inverse = np.linalg.inv(shrunk)
        return np.array([[np.mean([(row - m) @ inverse @ (row - m) for row in rows]) for m in means.numpy()]
                         for rows in by_hand(new, shape, features, mask)])

    wanted = -distances(*moments.compute_within(), n - 3).min(1)
    if relative:
        wanted += distances(*moments.compute_overall(), n - 1)[:, 0]
    np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())


def test_the_k_th_neighbour_is_that_of_a_slow_loop() -> None:
    rows, new = torch.randn(50, 12), representations(MAP, 6, 1)
    detector = Neighbours.fit(rows, k=3)
    scaled = (rows - rows.mean(0)) / rows.std(0, correction=0)
    z = (SiteFeatures(new, MAP).spread - rows.mean(0)) / rows.std(0, correction=0)
    wanted = [-sorted(float((a - b).norm()) for b in scaled)[2] for a in z]
    np.testing.assert_allclose(detector.score(SiteFeatures(new, MAP)), wanted, rtol=1e-4)


def test_a_reservoir_is_uniform_and_the_same_for_any_cut() -> None:
    stream = torch.arange(200.0)[:, None]
    kept = []
    for step in (1, 7, 200):
        r = FeatureSample(20, seed=4)
        for part in stream.split(step):
            r.update(part)
        kept.append(r.rows[:, 0].tolist())
    assert kept[0] == kept[1] == kept[2]
    assert len(set(kept[0])) == 20
    counts = np.zeros(200)
    for seed in range(300):
        r = FeatureSample(20, seed=seed)
        r.update(stream)
        counts[r.rows[:, 0].long().numpy()] += 1
    # 30 expected of each: a sum of squares far above its expectation of 180 would be a draw that is not
    # uniform.
    assert ((counts - 30) ** 2 / 27).sum() < 260


# -- planted cases -------------------------------------------------------------------------------------------

def fitted(names: list[str], shape: Shape = MAP, n: int = 400) -> dict[str, object]:
    fitting = DetectorFitter(names, [shape])
    labels = some_labels(n)
    for part in torch.arange(n).split(100):
        fitting.update([representations(shape, n, 5, labels)[part]], labels[part])
    return {name: found[0] for name, found in fitting.make_detectors().items()}


def difference(detector: object, native: Tensor, other: Tensor) -> float:
    from suture.numbers.roc import two_sided_auroc

    a, b = (detector.score(SiteFeatures(x, MAP)).double().numpy() for x in (native, other))
    return two_sided_auroc(a, b)


FREE = ["mahalanobis", "mahalanobis_mean", "mahalanobis_position", "relative", "relative_mean",
        "relative_position", "neighbours"]


@pytest.mark.parametrize("name", FREE)
def test_native_examples_score_a_half_and_growing_noise_more_and_more(name: str) -> None:
    detector = fitted([name])[name]
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
    detector = fitted(list(table.DEFAULT_DETECTORS))[table.DEFAULT_DETECTORS[0]]
    x = representations(MAP, 300, 12, some_labels(300))
    mean = x.mean((0, 2, 3), keepdim=True)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(3))).Q
    planted = {"shrunken": mean + 0.5 * (x - mean), "shifted": x + 3,
               "rotated": mean + torch.einsum("nchw,dc->ndhw", x - mean, turn),
               "noisy": x + 4 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))}[change]
    assert difference(detector, x, planted) > 0.8


def test_a_silent_channel_that_speaks_is_far_out_and_rounding_is_not() -> None:
    fitting = DetectorFitter(["mahalanobis"], [MAP])
    x = representations(MAP, 400, 5)
    x[:, 2] = 0
    fitting.update([x], None)
    detector = fitting.make_detectors()["mahalanobis"][0]
    rounding, speaking = x.clone(), x.clone()
    rounding[:, 2] += 1e-6
    speaking[:, 2] += 0.5
    assert difference(detector, x, rounding) == pytest.approx(0.5, abs=0.02)
    assert difference(detector, x, speaking) > 0.99


def test_a_constant_representation_scores_itself_alike() -> None:
    fitting = DetectorFitter(["mahalanobis"], [VECTOR])
    x = torch.full((20, 6), 3.0)
    fitting.update([x], None)
    score = fitting.make_detectors()["mahalanobis"][0].score(SiteFeatures(x, VECTOR))
    assert score.isfinite().all()
    assert (score == score[0]).all()


# -- classes and bad input -----------------------------------------------------------------------------------

def test_fewer_than_two_examples_of_a_class_are_said() -> None:
    fitting = DetectorFitter(["mahalanobis"], [VECTOR])
    labels = torch.tensor([0] * 10 + [1] * 10 + [2])
    fitting.update([representations(VECTOR, 21, 0, labels)], labels)
    assert fitting.make_detectors()["mahalanobis"][0].score(SiteFeatures(representations(VECTOR, 3, 1),
                                                                         VECTOR)).isfinite().all()
    assert "1 of 3 classes have fewer than two examples" in fitting.notes[0]
    assert "shrunk" in fitting.notes[0]


def test_far_fewer_examples_than_features_are_said() -> None:
    fitting = DetectorFitter(["mahalanobis"], [VECTOR])
    fitting.update([torch.randn(3, 6, generator=torch.Generator().manual_seed(0))], None)
    fitting.make_detectors()
    assert "few examples" in fitting.notes[0]


@pytest.mark.parametrize(("names", "labels", "message"), [
    (["relative"], None, "at least two classes"),
    (["relative"], torch.zeros(12, dtype=torch.int64), "at least two classes"),
    (["neighbours"], None, None),
])
def test_one_class_is_not_enough_for_relative_distances(names: list[str], labels: Tensor | None,
                                                        message: str | None) -> None:
    fitting = DetectorFitter(names, [VECTOR])
    fitting.update([representations(VECTOR, 12, 0)], labels)
    if message is None:
        fitting.make_detectors()
        return
    with pytest.raises(SutureError, match=message):
        fitting.make_detectors()


def test_too_few_examples_are_refused() -> None:
    for name, n in (("mahalanobis", 1), ("neighbours", 10)):
        fitting = DetectorFitter([name], [VECTOR])
        fitting.update([representations(VECTOR, n, 0)], None)
        with pytest.raises(SutureError, match="more data"):
            fitting.make_detectors()


@pytest.mark.parametrize(("function", "message"), [
    (lambda x: x, "expected scores of shape"),
    (lambda x: 3.0, "got float"),
    (lambda x: x.flatten(1).sum(1) * float("nan"), "got NaN for 4 of 4"),
])
def test_a_detector_of_a_user_that_does_wrong_is_named(function: table.Score, message: str) -> None:
    with pytest.raises(SutureError, match=message) as error:
        table.UserDetector("mine", "layer1", function).score(SiteFeatures(representations(MAP, 4, 0), MAP))
    assert "'mine'" in str(error.value)
    assert "'layer1'" in str(error.value)


def test_an_unknown_detector_is_told_with_the_nearest() -> None:
    with pytest.raises(SutureError, match="mahalanobis"):
        table.choose_detectors("mahalanobi")


def test_scores_do_not_depend_on_what_is_fitted_beside() -> None:
    alone, among = fitted(["mahalanobis"])["mahalanobis"], fitted(FREE)["mahalanobis"]
    x = SiteFeatures(representations(MAP, 20, 3), MAP)
    assert torch.equal(alone.score(x), among.score(x))  # type: ignore[attr-defined]


def test_auroc_of_a_score_is_scikit_learns_with_native_as_positive() -> None:
    from suture.numbers.roc import auroc

    detector = fitted(["mahalanobis"])["mahalanobis"]
    x = representations(MAP, 200, 12, some_labels(200))
    a, b = (detector.score(SiteFeatures(t, MAP)).double().numpy() for t in (x, 1.5 * x))
    wanted = roc_auc_score(np.r_[np.ones(200), np.zeros(200)], np.r_[a, b])
    assert auroc(a, b) == pytest.approx(float(wanted))
    assert wanted > 0.9


def test_gaussians_of_uncorrelated_features_are_plain_z_scores() -> None:
    mean, variance = torch.tensor([[1.0, -2.0]]).double(), torch.tensor([4.0, 0.25]).double()
    g = Gaussians.of(mean, variance.diag(), 10**9)
    assert float(g.square_distances(torch.tensor([[[3.0, -1.0]]]), None)) == pytest.approx(1 + 4, rel=1e-4)
