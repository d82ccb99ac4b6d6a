"""Numbers over networks: intervals, trends, distances, embeddings; each against a slow reference."""

from __future__ import annotations

import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.cluster.hierarchy import cophenet
from scipy.spatial.distance import pdist, squareform

from suture import Study, SutureError
from suture.indices import INDICES, of_matrices
from suture.numbers import MEASURES, METRIC_FORMS
from suture.studies.network_study import inference
from suture.studies.network_study.geometry import check_distances, embed_networks, link_networks
from suture.studies.network_study.group_contrast import contrast_groups
from suture.studies.network_study.inference import NetworkPairs, find_trend, summarise_pairs
from tests.support.comparisons import of_values


def name(n: int) -> list[str]:
    return [f"n{k}" for k in range(n)]


def frame(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, index=name(len(values)), columns=name(len(values)))


def of_points(points: np.ndarray) -> pd.DataFrame:
    return frame(squareform(pdist(points)))


def test_pairs_of_both_directions_are_averaged() -> None:
    found = NetworkPairs.of(frame(np.array([[1.0, 0.2, np.nan], [0.4, 1.0, 0.5], [np.nan, np.nan, 1.0]])))
    assert list(zip(found.a, found.b, found.similarity.round(9), strict=True)) == [(0, 1, 0.3), (1, 2, 0.5)]


def test_the_interval_is_over_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each network has a level of its own, the mean over pairs is as uncertain as one over levels."""
    monkeypatch.setattr(inference, "DRAWS", 300)
    rng = np.random.default_rng(0)
    covered, width, narrow = [], [], []
    for k in range(60):
        levels = rng.normal(size=12)
        values = frame((levels[:, None] + levels[None]) / 2)
        row = summarise_pairs(NetworkPairs.of(values), None, "", k).iloc[0]
        covered.append(row.low <= 0 <= row.high)
        width.append(row.high - row.low)
        pairs = NetworkPairs.of(values).similarity
        narrow.append(2 * 1.96 * pairs.std() / math.sqrt(len(pairs)))
    assert np.mean(covered) > 0.8
    assert np.mean(width) > 1.5 * np.mean(narrow)


def test_the_interval_against_networks_drawn_one_by_one() -> None:
    values = np.random.default_rng(1).random((6, 6))
    values = (values + values.T) / 2
    low, high = NetworkPairs.of(frame(values)).bootstrap(NetworkPairs.of(frame(values)).average)
    rng, means = np.random.default_rng(5), []
    for _ in range(2000):
        kept = [values[i, j] for i, j in itertools.combinations(rng.integers(0, 6, 6), 2) if i != j]
        means.append(np.mean(kept) if kept else np.nan)
    assert np.allclose([low, high], np.nanpercentile(means, [2.5, 97.5]), atol=0.02)


def test_draws_that_mostly_say_nothing_give_no_interval() -> None:
    """Of three networks, draws with two different ones have a single pair, and all others are alike."""
    values = frame(np.array([[1, 0.2, 0.5], [0.2, 1, 0.3], [0.5, 0.3, 1]]))
    assert not math.isnan(summarise_pairs(NetworkPairs.of(values), None, "", 0).iloc[0].low)
    assert math.isnan(find_trend(values, np.array([0.0, 1, 3]), "epoch", "cka", 0).low)
    assert math.isnan(contrast_groups(values, ["x", "x", "y"], "kind", "cka", 0).low)
    more = of_points(np.random.default_rng(0).random((4, 2)))
    assert not math.isnan(find_trend(more, np.array([0.0, 1, 3, 7]), "epoch", "cka", 0).low)
    assert not math.isnan(contrast_groups(more, ["x", "x", "y", "y"], "kind", "cka", 0).low)


def test_groups_of_equal_and_unequal_words() -> None:
    values = frame(np.array([[1, 0.9, 0.1, 0.2], [0, 1, 0.3, 0.4], [0, 0, 1, 0.8], [0, 0, 0, 1.0]])
                   + np.tril(np.full((4, 4), np.nan), -1))
    found = summarise_pairs(NetworkPairs.of(values), [8, 8, 16, 16], "width", 0).set_index("group")
    assert found.loc["same width", "value"] == pytest.approx(0.85)
    assert found.loc["different width", "value"] == pytest.approx(0.25)
    assert found["pairs"].tolist() == [2, 4]
    two = summarise_pairs(NetworkPairs.of(values.iloc[:2, :2]), None, "", 0).iloc[0]
    assert np.isnan(two.low)
    assert "2 networks" in two.reason


def test_a_trend_against_scipy() -> None:
    rng = np.random.default_rng(2)
    epochs = np.array([0.0, 1, 2, 4, 8, 16, 32])
    values = frame(1 - np.abs(np.subtract.outer(epochs, epochs)) / 40 + 0.02 * rng.random((7, 7)))
    found = find_trend(values, epochs, "epoch", "cka", 0)
    assert found.rho == pytest.approx(stats.spearmanr(found.table["x"], found.table["value"])[0])
    assert found.low <= found.rho <= found.high < 0
    assert found.p < 0.05
    assert len(found.table) == 21
    assert "epoch" in str(found)
    with pytest.raises(SutureError, match="'width'"):
        find_trend(values, np.full(7, np.nan), "width", "cka", 0)


@pytest.mark.parametrize(("values", "numbers", "named"), [
    (np.random.default_rng(0).random((4, 4)), np.ones(4), "epoch"),
    (np.full((4, 4), 0.5), np.arange(4.0), "value")])
def test_what_does_not_vary_has_no_trend(values: np.ndarray, numbers: np.ndarray, named: str) -> None:
    with pytest.raises(SutureError, match=named):
        find_trend(frame(values), numbers, "epoch", "cka", 0)


def test_unrelated_numbers_have_no_trend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "DRAWS", 100)
    ps = []
    for k in range(40):
        rng = np.random.default_rng(k)
        points = rng.normal(size=(8, 3))
        ps.append(find_trend(of_points(points), rng.permutation(8.0 + np.arange(8)), "x", "cka", k).p)
    assert np.mean(np.array(ps) < 0.2) < 0.45


def test_points_in_a_plane_are_found_again() -> None:
    points = np.random.default_rng(3).normal(size=(7, 2))
    found = embed_networks(of_points(points), "cka")
    assert found.stress < 1e-4
    assert np.allclose(pdist(found.points), pdist(points), atol=1e-3)
    assert found.plot(plt.subplots()[1]) is not None
    with pytest.raises(SutureError, match="at least 3"):
        embed_networks(of_points(points[:2]), "cka")


def test_the_tree_of_two_groups() -> None:
    points = np.array([[0, 0], [0, 1], [9, 9], [9, 8.5]])
    links = link_networks(of_points(points))
    assert set(links[:2, :2].astype(int).ravel()) == {0, 1, 2, 3}
    assert cophenet(links).max() == pytest.approx(np.mean(squareform(pdist(points))[:2, 2:]))


def test_a_missing_distance_is_named() -> None:
    values = of_points(np.eye(3))
    values.iloc[0, 2] = values.iloc[2, 0] = np.nan
    with pytest.raises(SutureError, match="n0 and n2"):
        check_distances(values)


def study(values: dict[tuple[str, str], float], measure: str) -> Study:
    names = list(dict.fromkeys(n for pair in values for n in pair))
    made = {pair: of_values(measure, [[value]], sources=["s"], targets=["s"])
            for pair, value in values.items()}
    about = {n: {"k": i} for i, n in enumerate(names)}
    return Study.make({"networks": about, "tasks": [], "failed": {}}, made, {})


def test_distances_of_networks_are_metrics_of_their_values() -> None:
    made = study({("a", "b"): 0.5, ("a", "c"): 0.0, ("b", "c"): 1.0}, "cka")
    found = made.distances("cka")
    assert found.loc["a", "b"] == found.loc["b", "a"] == pytest.approx(math.pi / 3)
    assert found.loc["a", "c"] == pytest.approx(math.pi / 2)
    assert found.loc["b", "c"] == 0
    assert study({("a", "b"): 0.25}, "opd").distances("opd").loc["a", "b"] == 0.5
    with pytest.raises(SutureError, match="r2"):
        study({("a", "b"): 0.25}, "r2").distances("r2")


@pytest.mark.parametrize("index", [name for name, entry in INDICES.items() if entry.measure.metric])
def test_metrics_of_representations_obey_the_triangle(index: str) -> None:
    rng = np.random.default_rng(4)
    base = rng.normal(size=(60, 6))
    sets = [base, base + 0.5 * rng.normal(size=base.shape), rng.normal(size=(60, 6)), base[:, ::-1] ** 3]
    sets[2] = sets[2][:, :4]
    change = METRIC_FORMS[MEASURES[index].metric]
    d = np.array([[change(of_matrices(a, b, [index])[index].value) for b in sets] for a in sets])
    for i, j, k in itertools.permutations(range(len(sets)), 3):
        assert d[i, k] <= d[i, j] + d[j, k] + 1e-6


def test_a_study_draws_its_networks() -> None:
    pairs = {(a, b): 0.5 + 0.1 * k for k, (a, b) in enumerate(itertools.combinations("abcd", 2))}
    made = study(pairs, "cka")
    assert list(made.embed().points.index) == list("abcd")
    assert {t.get_text() for t in made.dendrogram().get_yticklabels()} == set("abcd")
    assert made.summary("cka").iloc[0]["pairs"] == 6
    assert made.trend("cka", "k").networks == 4
    with pytest.raises(SutureError, match="'epoch'"):
        made.trend("cka", "epoch")
