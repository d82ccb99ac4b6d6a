"""Tests of measures on arrays of values: each statistic against a slow, obvious reference."""

from __future__ import annotations

import importlib.util
import itertools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import jensenshannon
from sklearn import metrics

from suture import SutureError, indices
from suture.results import Comparison
from suture.results.measured import COLUMNS
from suture.studies import TestOutcome, Validation, tabulate_outcomes
from suture.studies.measure_tests import network_statistics
from suture.studies.measure_tests.battery import (
    control_tests,
    function_tests,
    group_tests,
    layer_tests,
    specificity,
)
from suture.studies.measure_tests.battery.control_tests import ControlValues
from suture.studies.measure_tests.battery.rank_correlations import correlate_ranks, separate_pairs
from suture.studies.measure_tests.population_cells import PopulationCells, collect_cells, find_layers
from suture.studies.measure_tests.population_outputs import PopulationOutputs, measure_divergence
from suture.studies.network_study import inference
from suture.studies.network_study.compared_networks import ComparedNetworks


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (network_statistics, function_tests, group_tests, inference):
        monkeypatch.setattr(module, "DRAWS", 200)


def compare(a: str, b: str, measures: dict[str, np.ndarray], marks: Any = None, **arrays: Any) -> Comparison:
    """A comparison of two networks with values (L, L) of some measures; marks (L, L) are of all of them."""
    rows = []
    for name, values in measures.items():
        for (i, j), value in np.ndenumerate(np.asarray(values, float)):
            mark = "doubt" if marks is not None and marks[i][j] else ""
            rows.append([f"l{i}", f"l{j}", name, value, np.nan, np.nan, 9, "larger",
                         "why" if np.isnan(value) else "", mark])
    depth = len(next(iter(measures.values())))
    layers = tuple(f"l{k}" for k in range(depth))
    return Comparison(a, b, layers, layers, a == b, True, pd.DataFrame(rows, columns=COLUMNS),
                      {name.replace("__", "."): array for name, array in arrays.items()}, {})


def of_comparisons(made: dict[tuple[str, str], Comparison]) -> ComparedNetworks:
    names = tuple(dict.fromkeys(name for pair in made for name in pair))
    return ComparedNetworks(names, pd.DataFrame(index=list(names)), made, {})


def cells_of(values: np.ndarray, measure: str = "cka") -> PopulationCells:
    """A population with these values (N, N, L, L)."""
    names = [f"n{k}" for k in range(len(values))]
    made = {(a, b): compare(a, b, {measure: values[i, j]})
            for (i, a), (j, b) in itertools.product(enumerate(names), repeat=2)}
    study = of_comparisons(made)
    return collect_cells(study, measure, find_layers(study))


def draw(n: int, depth: int, seed: int, own: float = 0.0, slope: float = 0.0) -> PopulationCells:
    """Random values; corresponding layers are raised, and values fall with the distance of layers."""
    values = np.random.default_rng(seed).normal(size=(n, n, depth, depth))
    apart = np.abs(np.subtract.outer(np.arange(depth), np.arange(depth)))
    return cells_of(values + own * (apart == 0) - slope * apart)


def test_rank_correlations_of_repeated_points_against_scipy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, (2, 5, 7)).astype(float)
    weights = rng.integers(0, 3, (5, 7)).astype(float)
    rho, tau = correlate_ranks(x, y, weights)
    for k in range(5):
        a, b = (np.repeat(of[k], weights[k].astype(int)) for of in (x, y))
        assert rho[k] == pytest.approx(stats.spearmanr(a, b).statistic, nan_ok=True)
        assert tau[k] == pytest.approx(stats.kendalltau(a, b).statistic, nan_ok=True)


def test_separation_of_pairs_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 20).astype(float), rng.integers(0, 2, (4, 20)).astype(float)
    weights = rng.integers(0, 4, (4, 20)).astype(float)
    area, precision = separate_pairs(scores, positive, weights)
    for k in range(4):
        assert area[k] == pytest.approx(metrics.roc_auc_score(positive[k], scores, sample_weight=weights[k]))
        assert precision[k] == pytest.approx(
            metrics.average_precision_score(positive[k], scores, sample_weight=weights[k]))
    assert np.isnan(separate_pairs(scores, np.ones((1, 20)), np.ones((1, 20)))).all()


def published_rank_correlations(cells: PopulationCells, accuracy: np.ndarray) -> np.ndarray:
    """As in js-d/sim_metric, experiments/utils.py: means over layers of rho, tau, and one-sided p-values."""
    rows = []
    for k in range(cells.depth):
        best = max(range(cells.n), key=lambda i: accuracy[i])
        x = [-cells.similarity[best, i, k, k] for i in range(cells.n)]
        y = [abs(accuracy[best] - accuracy[i]) for i in range(cells.n)]
        row = []
        for test in (stats.spearmanr(x, y), stats.kendalltau(x, y)):
            row += [test[0], test[1] / 2 if test[0] > 0 else 1 - test[1] / 2]
        rows.append(row)
    return np.mean(rows, axis=0)


def symmetric(n: int, depth: int, seed: int) -> PopulationCells:
    values = np.random.default_rng(seed).random((n, n, depth, depth))
    values = (values + values.transpose(1, 0, 3, 2)) / 2
    values[np.arange(n), np.arange(n)] += 2 * np.eye(depth)
    return cells_of(values)


def test_function_is_the_published_statistic_with_a_p_over_networks() -> None:
    cells, accuracy = symmetric(5, 2, 0), np.array([0.7, 0.9, 0.8, 0.5, 0.6])
    function = np.repeat(accuracy[:, None], 2, axis=1)
    one, two = function_tests.check_function(cells, function, 1.0)
    rho, p_rho, tau, p_tau = published_rank_correlations(cells, accuracy)
    assert [one.effect, two.effect] == pytest.approx([rho, tau])
    assert f"published p is {p_rho:.2g}" in one.sentence
    assert f"published p is {p_tau:.2g}" in two.sentence
    null = [published_rank_correlations(cells, accuracy[list(order)])[[0, 2]]
            for order in itertools.permutations(range(5))]
    for outcome, drawn in zip((one, two), np.array(null).T, strict=True):
        assert outcome.p == pytest.approx(np.mean(drawn >= outcome.effect - 1e-12))
        assert outcome.chance == pytest.approx(drawn.mean())
        assert outcome.low <= outcome.high
    assert one.chance > 0.05  # the reference is one of the points


def test_function_that_follows_distance_is_found() -> None:
    accuracy = np.linspace(0.5, 0.95, 8)
    values = -np.abs(np.subtract.outer(accuracy, accuracy))[:, :, None, None] - np.zeros((8, 8, 2, 2))
    one, _ = function_tests.check_function(cells_of(values), np.repeat(accuracy[:, None], 2, axis=1), 0.9)
    assert one.effect == pytest.approx(1)
    assert one.passed
    weak, _ = function_tests.check_function(cells_of(values), np.repeat(accuracy[:, None], 2, axis=1), -0.1)
    assert weak.reason == function_tests.NO_POWER
    assert weak.power < 0.1


@pytest.mark.parametrize("n", [1, 3])
def test_function_needs_four_networks(n: int) -> None:
    for outcome in function_tests.check_function(draw(n, 2, 0), np.ones((n, 2)), 1.0):
        assert math.isnan(outcome.effect)
        assert "needs 4 networks" in outcome.reason


def test_differences_of_networks_against_scipy() -> None:
    cells, other = symmetric(6, 3, 1), np.random.default_rng(2).random((6, 6))
    found = function_tests.check_differences(cells, "disagreement", other + other.T, 0.5)
    a, b = np.triu_indices(6, 1)
    expected = stats.spearmanr(-cells.similarity[a, b, 2, 2], (other + other.T)[a, b]).statistic
    assert found.effect == pytest.approx(expected)
    assert found.unit_of_n == "networks"
    assert found.n == 6


def count_nearest(cells: PopulationCells, pairs: list[tuple[int, int]], by_source: bool = False) -> float:
    hits = []
    for i, j in pairs:
        block = cells.similarity[i, j].T if by_source else cells.similarity[i, j]
        hits += [all(block[t, t] > block[s, t] for s in range(cells.depth) if s != t)
                 for t in range(cells.depth)]
    return float(np.mean(hits))


def test_nearest_layers_against_loops() -> None:
    cells = draw(4, 3, 0, own=1.0)
    apart = [(i, j) for i, j in itertools.product(range(4), repeat=2) if i != j]
    assert layer_tests.check_self(cells).effect == count_nearest(cells, [(k, k) for k in range(4)])
    assert layer_tests.check_correspondence(cells).effect == count_nearest(cells, apart)
    assert (layer_tests.check_correspondence(cells, layer_tests.BY_SOURCE).effect
            == count_nearest(cells, apart, by_source=True))


def test_the_null_of_correspondence_names_the_layers_of_each_network_anew() -> None:
    """Two networks of three layers have 36 pairs of orders, of which 6 are each of the 6 relations."""
    cells = draw(2, 3, 3, own=5.0)
    found = layer_tests.check_correspondence(cells)
    assert found.effect == 1
    assert found.p == pytest.approx(1 / 6, abs=0.05)
    assert found.power == 0
    assert found.passed is None
    assert "2 networks" in found.reason


def test_a_tie_is_no_hit_and_no_violation() -> None:
    found = layer_tests.check_self(cells_of(np.ones((4, 4, 3, 3))))
    assert found.effect == 0
    assert found.p == 1
    assert found.passed is not True
    assert "0 of 12 broken" in found.sentence


def test_a_broken_layer_fails() -> None:
    cells = draw(5, 4, 0, own=9.0)
    assert layer_tests.check_self(cells).passed is True
    cells.similarity[0, 0, 1, 2] = 99
    assert layer_tests.check_self(cells).passed is False


def hits_of(share: float, n: int = 60) -> np.ndarray:
    return np.arange(n) < round(share * n)


@pytest.mark.parametrize(("rival", "beyond"), [(0.55, 0), (0.95, 2)])
def test_violations_of_stitching_count_only_beyond_chance(rival: float, beyond: int) -> None:
    values = np.array([[0.5, 0.1, 0.1], [0.5, 0.9, 0.1], [rival, 0.1, 0.9]])
    correct = np.stack([[hits_of(v) for v in row] for row in values])
    made = {(n, n): compare(n, n, {"dm.accuracy": values}, dm__correct=correct) for n in ("a", "b")}
    cells = collect_cells(study := of_comparisons(made), "dm.accuracy", find_layers(study))
    found = layer_tests.check_self(cells)
    assert f"{beyond} beyond chance (McNemar" in found.sentence
    assert (found.passed is False) == (beyond > 0)
    marked = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0]])
    made = {(n, n): compare(n, n, {"dm.accuracy": values}, marked, dm__correct=correct) for n in ("a", "b")}
    clean = layer_tests.check_self(collect_cells(of_comparisons(made), "dm.accuracy", find_layers(study)))
    assert "0 of 6 broken" in clean.sentence


def test_depth_against_scipy_and_loops() -> None:
    cells = draw(4, 4, 1, slope=0.3)
    found, order = layer_tests.check_depth(cells)
    s, t = np.nonzero(~np.eye(4, dtype=bool))
    each = [stats.spearmanr(cells.similarity[k, k, s, t], np.abs(s - t)).statistic for k in range(4)]
    assert found.effect == pytest.approx(np.mean(each))
    broken = [cells.similarity[k, k, far, t] > cells.similarity[k, k, near, t]
              for k, t, near, far in itertools.product(range(4), repeat=4)
              if t < near < far or far < near < t]
    assert order.effect == pytest.approx(np.mean(broken))
    for named in ([0, 1, 2, 3], [3, 2, 1, 0]):  # a mirrored order is the same
        shares = layer_tests._count_orders(cells.own, np.tile(named, (1, 4, 1)))
        assert shares == pytest.approx([order.effect])
    assert layer_tests.check_depth(draw(5, 5, 0, slope=3.0))[0].passed


def test_a_missing_cell_leaves_the_others() -> None:
    cells = draw(4, 4, 1, own=3.0, slope=1.0)
    cells.similarity[0, 0, 0, 3] = cells.similarity[0, 1, 2, 2] = np.nan
    for outcome in (layer_tests.check_self(cells), layer_tests.check_correspondence(cells),
                    *layer_tests.check_depth(cells), specificity.check_specificity(cells),
                    specificity.check_layer_gaps(cells)):
        assert not math.isnan(outcome.effect)


@pytest.mark.filterwarnings("error")
def test_orders_of_layers_without_values_bring_no_warning() -> None:
    """Networks have values of two cells alone, so that some orders of their layers have none."""
    values = np.random.default_rng(0).normal(size=(4, 4, 3, 3))
    for k in range(4):
        values[k, k] = np.nan
        values[k, k, :2, 0] = 1.0, 0.5
    cells = cells_of(values)
    assert not np.isnan(layer_tests.check_self(cells).effect)
    layer_tests.check_correspondence(cells)
    specificity.check_specificity(cells)
    specificity.check_layer_gaps(cells)


def test_specificity_and_gaps_against_loops() -> None:
    cells = draw(4, 3, 2, own=0.5)
    apart = [(i, j) for i, j in itertools.product(range(4), repeat=2) if i != j]
    same = [cells.similarity[i, j, k, k] for i, j in apart for k in range(3)]
    other = [cells.similarity[i, j, s, t] for i, j in apart for s, t in itertools.permutations(range(3), 2)]
    found = specificity.check_specificity(cells)
    assert found.effect == pytest.approx(np.mean(np.subtract.outer(same, other) > 0))
    assert found.low < found.effect < found.high
    small = [cells.similarity[i, i, s, t] > np.median([cells.similarity[i, j, s, s]
                                                       for j in range(4) if j != i])
             for i in range(4) for s, t in itertools.permutations(range(3), 2)]
    assert specificity.check_layer_gaps(cells).effect == pytest.approx(np.mean(small))


def test_groups_against_scikit_learn() -> None:
    cells, labels = draw(6, 2, 4), ["x", "x", "x", "y", "y", "y"]
    area, precision = group_tests.check_groups(cells, labels, "kind")
    a, b = np.triu_indices(6, 1)
    scores = (cells.similarity[a, b, 1, 1] + cells.similarity[b, a, 1, 1]) / 2
    same = [labels[i] == labels[j] for i, j in zip(a, b, strict=True)]
    assert area.effect == pytest.approx(metrics.roc_auc_score(same, scores))
    assert precision.effect == pytest.approx(metrics.average_precision_score(same, scores))
    assert precision.chance == pytest.approx(6 / 15)
    assert area.power == 0  # ten ways to halve six networks
    assert "cannot fall below 0.1" in area.reason
    assert "within and across" in group_tests.check_groups(cells, ["x"] * 6, "kind")[0].reason


def test_controls_against_loops() -> None:
    rng, cells = np.random.default_rng(5), draw(4, 2, 5, own=1.0)
    values = rng.normal(size=(4, 2, 2))
    values[[0, 1], [0, 1]] = np.nan
    found = control_tests.check_control(cells, ControlValues("pure noise", values, (0, 1)))

    def area(real: set[int]) -> float:
        both = np.concatenate([cells.similarity[:, :2, [0, 1], [0, 1]], values])
        both[[0, 1], [0, 1]] = np.nan
        each = []
        for t, k in itertools.product(range(2), repeat=2):
            column = both[:, t, k]
            pairs = [column[i] > column[j] for i in range(8) for j in range(8)
                     if i in real and j not in real and not np.isnan(column[i] + column[j])]
            each.append(np.mean(pairs))
        return float(np.mean(each))

    assert found.effect == pytest.approx(area({0, 1, 2, 3}))
    null = [area(set(real)) for real in itertools.combinations(range(8), 4)]
    assert found.p == pytest.approx(np.mean(np.array(null) >= found.effect - 1e-12))


def test_a_measure_that_a_control_fools() -> None:
    cells = draw(5, 3, 0, own=3.0)
    values = np.random.default_rng(1).normal(size=(5, 5, 3))
    values[:, :, 1] += 20
    values[np.arange(5), np.arange(5)] = np.nan
    found = control_tests.check_control(cells, ControlValues("class noise", values, tuple(range(5))))
    assert found.passed is False
    assert "fooled at l1" in found.sentence
    assert Validation.make([found]).matrix("passed").loc["cka", "fooled by"] == "class noise"
    missing = control_tests.check_control(
        cells, ControlValues("class noise", np.full((5, 1, 3), np.nan), (0,), "no room"))
    assert (missing.reason, missing.passed) == ("no room", None)


def test_a_distance_by_mistake_is_found() -> None:
    cells = draw(4, 3, 0, own=-9.0)
    noise = ControlValues("pure noise", np.zeros((4, 1, 3)), (0,))
    for given in (None, noise):
        assert "larger_is_more_similar=False" in control_tests.find_mistaken_direction(cells, given)
    right = draw(4, 3, 0, own=9.0)
    for given in (None, noise):
        assert control_tests.find_mistaken_direction(right, given) == ""


def test_pwcca_depends_on_the_order_of_its_arguments_and_cka_does_not() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(60, 4))
    layers = [[shared @ rng.normal(size=(4, 6)) + rng.normal(size=(60, 6)) * spread for spread in (0.3, 1, 2)]
              for _ in range(3)]
    found = {}
    for name in ("pwcca", "cka"):
        values = np.array([[[[indices.of_matrices(x, y, name)[name].value for y in b] for x in a]
                            for b in layers] for a in layers])
        found[name] = layer_tests.check_argument_order(cells_of(values, name))
    assert found["cka"].effect == 0
    assert found["cka"].passed is True
    assert found["pwcca"].effect > 0.03
    assert found["pwcca"].passed is False


def test_intervals_have_no_width_zero_and_need_three_networks() -> None:
    low, high, _ = network_statistics.bound(1.0, np.ones(5), 6)
    assert 0.3 < low < 0.7
    assert high == 1
    assert network_statistics.bound(0.5, np.full(2, 0.5), 6)[2] == "2 networks: an interval needs 3"
    least, most, _ = network_statistics.bound(-0.5, np.array([-0.4, -0.5, -0.6, -0.5]), 6, -1.0)
    assert -1 < least < -0.5 < most < 0.5


def test_reliability_is_the_share_of_variance_that_is_not_noise() -> None:
    rng = np.random.default_rng(0)
    easy = rng.random(4000)
    levels = np.array([0.0, 0.1, 0.2, 0.3])
    hits = (rng.random((4, 4000)) < (0.3 + levels[:, None] + 0.2 * easy)).astype(float)
    assert PopulationOutputs(hits).reliability > 0.95
    same = (rng.random((6, 300)) < 0.5).astype(float)
    noise = [PopulationOutputs((rng.random((6, 300)) < 0.5).astype(float)).reliability for _ in range(30)]
    assert np.median(noise) < 0.4
    # Cochran's Q of the same table is a function of the same F.
    k, n = same.shape
    q = ((k - 1) * (k * (same.sum(1) ** 2).sum() - same.sum() ** 2)
         / (k * same.sum() - (same.sum(0) ** 2).sum()))
    f = 1 / (1 - PopulationOutputs(same).reliability)
    assert q == pytest.approx((k - 1) * n * f / (f + n - 1), rel=1e-9)
    assert math.isnan(PopulationOutputs(same[:2]).reliability)


def test_divergence_against_scipy() -> None:
    p, q = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(0)).softmax(-1)
    expected = np.mean([jensenshannon(a, b) ** 2 for a, b in zip(p.numpy(), q.numpy(), strict=True)])
    assert measure_divergence(p, q) == pytest.approx(expected, rel=1e-5)
    assert measure_divergence(torch.eye(3), torch.eye(3)[[1, 2, 0]]) == pytest.approx(math.log(2))


def of_outcome(measure: str, p: float, passed: bool | None, test: str = "depth") -> TestOutcome:
    return TestOutcome(test, measure, 0.9, 0.5, 1.0, p, 0.9, 5, "share", 0.2, passed, "It is so.")


def test_p_values_are_adjusted_over_the_measures_of_a_test() -> None:
    given = [of_outcome("cka", 0.04, True), of_outcome("opd", 0.01, True),
             of_outcome("cka", 0.04, True, "self")]
    found = Validation.make(given)
    assert found.table["p_holm"].tolist() == pytest.approx([0.04, 0.02, 0.04])
    more = found.add([of_outcome("pwcca", 0.2, None), of_outcome("svcca", 0.9, False)])
    assert more.outcome("cka", "depth").passed is None
    assert "0.12 after adjusting for 4 measures" in more.outcome("cka", "depth").reason
    assert more.outcome("opd", "depth").passed is True
    assert more.matrix("passed").loc["cka", "self"] is True
    assert list(tabulate_outcomes(given).columns[:3]) == ["test", "measure", "effect"]
    for bad in (lambda: found.matrix("colour"), lambda: found.outcome("cka", "height")):
        with pytest.raises(SutureError):
            bad()


def test_layers_that_do_not_correspond() -> None:
    values = np.array([[0.9, 0.2], [0.1, 0.8]])
    one = compare("a", "b", {"cka": values})
    other = Comparison("a", "b", one.sources, ("x", "y"), False, False,
                       one.table.assign(target=one.table["target"].map({"l0": "x", "l1": "y"})), {}, {})
    study = of_comparisons({("a", "b"): other})
    with pytest.raises(SutureError, match="layers of a and b do not correspond"):
        find_layers(study)
    assert find_layers(study, "transport:cka") == {"a": ("l0", "l1"), "b": ("x", "y")}
    given = {"a": ["l0"], "b": ["y"]}
    cells = collect_cells(study, "cka", find_layers(study, given))
    assert cells.similarity[0, 1].tolist() == [[0.2]]
    for bad in ({"a": ["l0"]}, {"a": ["l0"], "b": ["x", "y"]}, {"a": ["l9"], "b": ["x"]},
                {"a": ["l0"], "c": ["x"]}, "order"):
        with pytest.raises(SutureError):
            find_layers(study, bad)


@pytest.mark.parametrize(("name", "filled"), [("cka@pool", True), ("cka", False), ("pwcca@pool", False)])
def test_one_direction_stands_for_the_other_only_where_it_is_the_same(name: str, filled: bool) -> None:
    values = np.arange(4.0).reshape(2, 2) / 4
    study = of_comparisons({("a", "b"): compare("a", "b", {name: values})})
    found = collect_cells(study, name, find_layers(study)).similarity[1, 0]
    assert np.array_equal(found, values.T) if filled else np.isnan(found).all()


def load_rates() -> Any:
    place = Path(__file__).parents[2] / "checks" / "measure_null_rates.py"
    spec = importlib.util.spec_from_file_location("measure_null_rates", place)
    assert spec is not None
    assert spec.loader is not None
    made = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.slow
def test_what_is_not_there_is_found_in_3_to_7_percent() -> None:
    rates = load_rates()
    for setting in rates.SETTINGS:
        rate, power, holds = rates.measure(setting, 300)
        assert holds or not setting.exact, (setting.name, rate)
        assert power > rate, setting.name
