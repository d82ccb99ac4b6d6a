"""Curves of measures over deleted components against indices and least squares of the cut rows themselves."""

from __future__ import annotations

import itertools
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import suture
from suture import SutureError, TaskRecipe
from suture.indices import GROUPS, of_blocks, of_matrices
from suture.numbers import MomentBlock
from suture.studies import ProbeRecipe, Sensitivity, rank_alignments
from suture.studies.measure_tests.network_statistics import find_mean_power, flip_signs
from suture.studies.probes.principal_components import Basis
from suture.studies.sensitivity_test.detection import tabulate_detection
from suture.studies.sensitivity_test.outcomes import list_outcomes
from suture.studies.sensitivity_test.rank_correlations import tabulate_correlations
from suture.studies.sensitivity_test.seed_spread import tabulate_spread
from suture.studies.sensitivity_test.unit_rows import UnitRows
from tests.support import tiny
from tests.support.cuts import cut, find_components, list_rows
from tests.support.drawn_texts import find_faults
from tests.support.languages import Language
from tests.support.studies import of_pairs

PROBE = ProbeRecipe(epochs=2, batch_size=16, lr=0.1)
HOW: dict[str, Any] = {"probe": PROBE, "ranks": [3, 1], "device": "cpu", "precision": "float64"}
BLOCKS = [n for n in GROUPS["moments"] if n not in ("rsa_correlation", "rsa_correlation_cosine",
                                                     "concentricity")]


def take(found: Sensitivity, network: str, site: str, rank: int) -> pd.DataFrame:
    c = found.curves
    return c[(c.network == network) & (c.site == site) & (c["rank"] == rank)].set_index("measure")


@cache
def measured(basis: str) -> Sensitivity:
    """Of one small network: all indices from moments, in both alignments, and others."""
    names = [*BLOCKS, "moments@pool", "rsa_spearman@pool", "rsa_spearman", "cka@flatten", "cka@within"]
    train, test = tiny.data()
    return suture.sensitivity({"a": tiny.network()}, train, test, sites=["block1", "block2"], indices=names,
                              basis=basis, batch_size=9, **HOW)


@cache
def represent(part: int) -> dict[str, Tensor]:
    return suture.capture(tiny.network(), tiny.data()[part][0], ["block1", "block2"])


def cut_images(part: int, site: str, rank: int, basis: str) -> tuple[Tensor, Tensor]:
    """Cut and whole representations of the fitting data (0) or the test data (1), in batches of nine."""
    known = find_components(list_rows(represent(0)[site]))
    whole = represent(part)[site].split(9)
    parts = [cut(w, rank, *(known if basis == "data" else find_components(list_rows(w)))) for w in whole]
    return torch.cat(parts), torch.cat(whole).double()


@pytest.mark.parametrize("basis", ["data", "batch"])
@pytest.mark.parametrize(("site", "rank"), [("block1", 3), ("block1", 1), ("block2", 3), ("block2", 1)])
def test_indices_are_those_of_the_cut_rows(site: str, rank: int, basis: str) -> None:
    labels = tiny.data()[0][1]
    x, y = cut_images(0, site, rank, basis)
    got = take(measured(basis), "a", site, rank)
    rows, whole = (t.flatten(2).transpose(1, 2) for t in (x, y))
    wanted = of_blocks([MomentBlock.of(rows[k::5].flatten(0, 1), whole[k::5].flatten(0, 1), units=False)
                        for k in range(5)], BLOCKS)
    pooled = of_matrices(x.mean((2, 3)), y.mean((2, 3)), [*GROUPS["moments"], "rsa_spearman", "cka@within"],
                         within=labels.numpy())
    wanted |= {name if "@" in name else f"{name}@pool": v for name, v in pooled.items()}
    wanted["cka@flatten"] = of_matrices(x.flatten(1), y.flatten(1), ["cka"])["cka"]
    for name, value in wanted.items():
        exact = {"rel": 1e-4, "abs": 2e-5}
        assert got.loc[name, "value"] == pytest.approx(value.value, nan_ok=True, **exact), name
        assert got.loc[name, "reason"] == value.reason
        assert got.loc[name, "mark"].partition(":")[0] == value.mark.partition(":")[0]
    assert sum(math.isnan(v.value) for v in wanted.values()) <= 3
    assert 0 < got.loc["rsa_spearman", "value"] <= 1


@pytest.mark.parametrize("rank", [7, 4, 1])
def test_moments_of_unit_rows_are_those_of_the_rows(rank: int) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(50, 7, generator=g, dtype=torch.float64) + 3 * torch.randn(7, generator=g)
    x[3], x[4] = 2.0, 0.0  # neither varies over its columns, and one has no direction
    basis = Basis.of_rows(x[5:])
    made, wanted = UnitRows(x, basis), MomentBlock.of(basis.cut(x, rank), x, units=True)
    got, other = made.compute_standard(rank), wanted.standard
    assert other is not None
    for side in ("x", "y", "cross"):
        for name, value in vars(getattr(other, side)).items():
            torch.testing.assert_close(torch.as_tensor(getattr(getattr(got, side), name)),
                                       torch.as_tensor(value), atol=1e-9, rtol=1e-9)
    for sums, of in zip((made.sum_cut(rank), made.whole_sums), wanted.unit or (), strict=True):
        torch.testing.assert_close(sums.total, of.total)
        assert sums.zeros == of.zeros


@pytest.mark.parametrize("basis", ["data", "batch"])
def test_direct_matching_is_fitted_by_least_squares_and_evaluated_on_cut_rows(basis: str) -> None:
    labels = tiny.data()[1][1]
    network, got = tiny.network().eval(), measured(basis)
    for rank in (4, 3, 1):
        x, y = cut_images(0, "block2", rank, basis)
        design = np.column_stack([list_rows(x), np.ones(len(list_rows(x)))])
        weight = np.linalg.lstsq(design, list_rows(y), rcond=1e-6)[0]
        x, y = cut_images(1, "block2", rank, basis)
        stitched = (np.column_stack([list_rows(x), np.ones(len(list_rows(x)))]) @ weight).reshape(12, 16, 4)
        logits = network.head(torch.from_numpy(stitched.mean(1)).float())
        row = take(got, "a", "block2", rank)["value"]
        assert row["dm.accuracy"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
        native = y.flatten(2).transpose(1, 2).numpy()
        error = ((stitched - native) ** 2).sum()
        assert row["dm.residual"] == pytest.approx(error / (native**2).sum(), rel=1e-3, abs=1e-7)
        spread = ((native - native.mean((0, 1))) ** 2).sum()
        assert row["dm.r2"] == pytest.approx(1 - error / spread, rel=1e-3)


def test_with_all_components_nothing_is_cut() -> None:
    row = take(measured("data"), "a", "block2", 4)["value"]
    assert row[["cka", "r2", "pwcca", "cka@pool", "cka@flatten", "dm.r2"]].to_numpy() == pytest.approx(1)
    assert row[["opd", "dm.residual"]].to_numpy() == pytest.approx(0, abs=1e-6)
    assert row["dm.agreement"] == 1


def test_probes_are_those_of_the_call_for_probes() -> None:
    train, test = tiny.data()
    alone = suture.probe(tiny.network(), train, test, sites=["block1", "block2"], ranks=[3, 1], recipe=PROBE,
                         batch_size=9, device="cpu")
    got = measured("data").probes
    assert set(got.pop("network")) == {"a"}
    pd.testing.assert_frame_equal(got, alone.table)


def test_task_loss_matching_trains_on_cut_representations() -> None:
    """One step of gradient descent from the identity, against autograd on cut rows."""
    (images, labels), test = tiny.data()
    recipe = TaskRecipe(epochs=1, batch_size=24, lr=0.5, optimizer="sgd", init="identity", weight_decay=0.0)
    network = tiny.network().eval()
    for basis in ("data", "batch"):
        found = suture.sensitivity({"a": network}, (images, labels), test, sites=["block2"], methods=["tlm"],
                                   indices=(), tlm=recipe, basis=basis, batch_size=24, **HOW)
        known = find_components(list_rows(represent(0)["block2"]))
        x = cut(represent(0)["block2"], 1, *known).float()
        layer = nn.Conv2d(4, 4, 1)
        with torch.no_grad():
            layer.weight.copy_(torch.eye(4)[:, :, None, None])
            layer.bias.zero_()
        optimizer = torch.optim.SGD(layer.parameters(), 0.5, momentum=0.9, nesterov=True)
        nn.functional.cross_entropy(network.head(layer(x).mean((2, 3))), labels).backward()
        optimizer.step()
        new = represent(1)["block2"]
        known = known if basis == "data" else find_components(list_rows(new))
        stitched = layer(cut(new, 1, *known).float())
        row = take(found, "a", "block2", 1)["value"]
        error = (stitched - new).square().sum() / new.square().sum()
        assert row["tlm.residual"] == pytest.approx(float(error.detach()), rel=1e-3)
        assert not any(name.startswith("dm.") for name in row.index)
        assert take(found, "a", "block2", 1).loc["tlm.residual", "mark"].startswith("one epoch")


def test_padding_tokens_are_in_no_moment() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Language().eval()
    g = torch.Generator().manual_seed(0)
    ids, labels = torch.randint(0, 13, (30, 7), generator=g), torch.arange(30) % 3
    mask = torch.arange(7) < torch.randint(2, 8, (30, 1), generator=g)
    batch = {"input_ids": ids, "attention_mask": mask.long()}
    found = suture.sensitivity({"a": network}, [(batch, labels)], sites=["blocks.1"], task="next_token",
                               indices=["cka", "opd", "r2_folds", "cka@pool"], **{**HOW, "ranks": [2]})
    x = suture.capture(network, batch, ["blocks.1"])["blocks.1"]
    made = cut(x, 2, *find_components(x[mask].double().numpy()))
    blocks = [MomentBlock.of(made[k::5][mask[k::5]], x[k::5][mask[k::5]], units=False) for k in range(5)]
    row = take(found, "a", "blocks.1", 2)["value"]
    for name, value in of_blocks(blocks, ["cka", "opd", "r2_folds"]).items():
        assert row[name] == pytest.approx(value.value, rel=1e-5)
    pooled = [torch.stack([t[k][mask[k]].double().mean(0) for k in range(30)]) for t in (made, x)]
    assert row["cka@pool"] == pytest.approx(of_matrices(*pooled, ["cka"])["cka"].value, rel=1e-5)


# -- what follows from the curves ----------------------------------------------------------------------------


def make_curves(values: dict[str, dict[int, float]], measure: str = "cka") -> pd.DataFrame:
    return pd.DataFrame([{"network": n, "site": "l0", "rank": r, "width": 8, "measure": measure, "value": v,
                          "reason": "" if v == v else "why", "mark": ""}
                         for n, of in values.items() for r, v in of.items()])


def make_probes(values: dict[str, dict[int, tuple[float, float]]]) -> pd.DataFrame:
    return pd.DataFrame([{"network": n, "site": "l0", "rank": r, "change": change, "p_holm": p}
                         for n, of in values.items() for r, (change, p) in of.items()])


CURVES = {"a": {8: 1.0, 4: 0.9, 2: 0.7, 1: 0.3}, "b": {8: 1.0, 4: 0.5, 2: 0.6, 1: 0.2}}
PROBES = {"a": {8: (0.0, math.nan), 4: (0.0, 1.0), 2: (-0.2, 0.01), 1: (-0.4, 0.0)},
          "b": {8: (0.0, math.nan), 4: (0.1, 0.3), 2: (-0.1, 0.2), 1: (-0.3, 0.04)}}


def test_the_distances_between_seeds_are_quantiles_over_pairs_without_marked_cells() -> None:
    values = {("a", "b"): 0.8, ("a", "c"): 0.6, ("b", "c"): 0.4, ("a", "a"): 1.0, ("a", "d"): math.nan}
    row = tabulate_spread(of_pairs(values), ["l0"], ["cka"]).iloc[0]
    assert row["median"] == pytest.approx(0.6)
    assert row["far"] == pytest.approx(np.quantile([0.8, 0.6, 0.4], 0.05))
    assert (row["networks"], row["pairs"], row["reason"]) == (3, 3, "")
    distances = tabulate_spread(of_pairs(values, measure="opd"), ["l0"], ["opd"]).iloc[0]
    assert distances["far"] == pytest.approx(np.quantile([0.8, 0.6, 0.4], 0.95))
    two = tabulate_spread(of_pairs({("a", "b"): 0.8}), ["l0"], ["cka"]).iloc[0]
    assert two["median"] == 0.8
    assert math.isnan(two["far"])
    assert "2 networks" in two["reason"]
    assert "of this name" in tabulate_spread(of_pairs(values), ["l7"], ["cka"]).iloc[0]["reason"]
    assert "without a mark" in tabulate_spread(of_pairs({("a", "b"): math.nan}), ["l0"],
                                               ["cka"]).iloc[0]["reason"]
    assert "one network" in tabulate_spread(None, ["l0"], ["cka"]).iloc[0]["reason"]


@pytest.mark.parametrize(("measure", "sign"), [("cka", 1), ("opd", -1)])
def test_the_smallest_deletion_that_is_noticed(measure: str, sign: int) -> None:
    """By hand: the largest rank beyond the threshold, against the largest at which the probe changes."""
    values = {n: {r: v if sign > 0 else 2 - 2 * v for r, v in of.items()} for n, of in CURVES.items()}
    limits = [0.65, 0.25] if sign > 0 else [0.7, 1.5]
    spread = pd.DataFrame([{"site": "l0", "measure": measure, "median": limits[0], "far": limits[1],
                            "reason": ""}])
    found = tabulate_detection(make_curves(values, measure), make_probes(PROBES), spread)
    found = found.set_index(["network", "threshold"])
    columns = ["rank", "deleted", "probe_rank", "noticed"]
    assert found.loc[("a", "median"), columns].tolist() == [1, 7, 2, False]
    assert found.loc[("b", "median"), columns].tolist() == [4, 4, 1, True]
    assert math.isnan(found.loc[("a", "95 %"), "rank"])
    assert found.loc[("a", "95 %"), "noticed"] == False  # noqa: E712
    assert found.loc[("b", "95 %"), ["rank", "noticed"]].tolist() == [1, True]
    near = tabulate_detection(make_curves(values, measure), make_probes(PROBES),
                              spread.assign(median=1.0 if sign > 0 else 0.0))
    assert near.iloc[0]["noticed"] is None
    assert "whole representation" in near.iloc[0]["reason"]
    still = {"a": {r: (c, 1.0) for r, (c, _) in PROBES["a"].items()}, "b": PROBES["b"]}
    kept = tabulate_detection(make_curves(values, measure), make_probes(still), spread)
    assert kept.iloc[0]["noticed"] is None
    assert "changes the probe" in kept.iloc[0]["reason"]


def test_rank_correlations_are_scipys_over_the_ranks_of_a_site() -> None:
    found = tabulate_correlations(make_curves(CURVES), make_probes(PROBES)).set_index("network")
    for name in ("a", "b"):
        x, y = [-v for v in CURVES[name].values()], [abs(c) for c, _ in PROBES[name].values()]
        assert found.loc[name, "spearman"] == pytest.approx(stats.spearmanr(x, y).statistic)
        assert found.loc[name, "kendall"] == pytest.approx(stats.kendalltau(x, y).statistic)
    flat = tabulate_correlations(make_curves({"a": {8: 1.0, 4: 1.0, 2: 1 - 1e-7}}), make_probes(PROBES))
    assert "the measure is the same" in flat.iloc[0]["reason"]
    lost = tabulate_correlations(make_curves({"a": {8: 1.0, 4: math.nan, 2: 0.1}}), make_probes(PROBES))
    assert "2 ranks" in lost.iloc[0]["reason"]


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_flipped_signs_are_scipys_permutation_test(n: int) -> None:
    values = np.random.default_rng(n).normal(0.4, 1, n)
    wanted = np.mean([np.mean(np.array(s) * values) >= values.mean() - 1e-12
                      for s in itertools.product((1, -1), repeat=n)])
    assert flip_signs(values) == pytest.approx(wanted)
    if n > 1:
        test = stats.permutation_test((values,), np.mean, permutation_type="samples", alternative="greater",
                                      n_resamples=np.inf)
        assert flip_signs(values) == pytest.approx(test.pvalue)
    many = np.random.default_rng(1).normal(0.2, 1, 40)
    assert flip_signs(many, seed=1) == pytest.approx(
        stats.ttest_1samp(many, 0, alternative="greater").pvalue, abs=0.03)


def test_power_is_that_of_simulated_tests() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.normal(0.5, 0.6, (4000, 8))
    wanted = (stats.ttest_1samp(drawn, 0, axis=1, alternative="greater").pvalue < 0.05).mean()
    scaled = stats.zscore(rng.normal(size=8), ddof=1) * 0.6
    assert find_mean_power(scaled, 0.5, 0.05) == pytest.approx(wanted, abs=0.03)
    assert find_mean_power(np.array([0.1, 0.9, 0.4, 0.5]), 0.5, 0.05) == 0  # four signs: p of 1/16


def test_outcomes_have_the_network_as_their_unit() -> None:
    names = "abcde"
    curves = make_curves({n: CURVES["a" if k % 2 else "b"] for k, n in enumerate(names)})
    probes = make_probes({n: PROBES["a" if k % 2 else "b"] for k, n in enumerate(names)})
    spread = pd.DataFrame([{"site": "l0", "measure": "cka", "median": 0.65, "far": 0.25, "reason": ""}])
    found = {o.test: o for o in list_outcomes(tabulate_detection(curves, probes, spread),
                                              tabulate_correlations(curves, probes))}
    share = found["sensitivity (median)"]
    assert (share.effect, share.n, share.unit_of_n) == (pytest.approx(0.6), 5, "networks")
    assert share.p == pytest.approx(flip_signs(np.array([0.5, -0.5, 0.5, -0.5, 0.5])))
    assert share.passed is None
    rho = found["sensitivity (Spearman)"]
    each = tabulate_correlations(curves, probes)["spearman"]
    assert rho.effect == pytest.approx(each.mean())
    assert (rho.p, rho.passed) == (1 / 32, True)
    assert (rho.low, rho.high) == pytest.approx(np.clip(stats.t.interval(
        0.95, 4, each.mean(), each.sem()), -1, 1))
    assert 0 < share.low < share.effect < share.high < 1
    two = list_outcomes(tabulate_detection(curves[curves.network < "c"], probes, spread),
                        tabulate_correlations(curves[curves.network < "c"], probes))[2]
    assert math.isnan(two.low)
    assert "2 networks" in two.reason


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 8, 30])
def test_signs_are_wrong_as_often_as_they_say(n: int) -> None:
    rng = np.random.default_rng(n)
    rate = np.mean([flip_signs(np.clip(rng.standard_t(3, n) / 3, -1, 1), k) <= 0.05 for k in range(3000)])
    assert 0.02 < rate < 0.065


def test_the_alignment_that_finds_corresponding_layers_best() -> None:
    good, bad = np.eye(3), np.ones((3, 3)) - np.eye(3)
    studies = {}
    for kind, values in (("one", {"cka": good, "cka@pool": bad}), ("other", {"cka": bad, "cka@pool": good})):
        made = [of_pairs(dict.fromkeys(itertools.combinations("abc", 2), v), measure=m)
                for m, v in values.items()]
        joined = {}
        for pair, one in made[0].comparisons.items():
            table = pd.concat([one.table, made[1].comparisons[pair].table], ignore_index=True)
            joined[pair] = type(one)(**{**vars_of(one), "table": table})
        studies[kind] = type(made[0])(made[0].networks, made[0].about, joined, {}, {"notes": []})
    found = rank_alignments(studies).set_index(["kind", "alignment"])
    assert found["share"].tolist() == [1, 0, 0, 1]
    assert found["best"].tolist() == [True, False, False, True]
    assert found["chance"].to_numpy() == pytest.approx(1 / 3)
    assert found["layers"].tolist() == [9] * 4
    with pytest.raises(SutureError, match="different networks"):
        rank_alignments({"one": of_pairs({("a", "a"): 1.0})})
    with pytest.raises(SutureError, match="studies"):
        rank_alignments([1])


def vars_of(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ("source", "target", "sources", "targets", "same_network",
                                                  "same_architecture", "arrays", "meta")}


# -- the call ------------------------------------------------------------------------------------------------


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("of the user's")


@cache
def of_seeds() -> Sensitivity:
    train, test = tiny.data()
    return suture.sensitivity({"a": tiny.network(), "b": tiny.other(), "c": Broken()}, train, test,
                              sites=["block1", "block2"], indices=["cka", "opd@pool"], **HOW)


def test_seeds_are_compared_at_corresponding_layers() -> None:
    found = of_seeds()
    assert found.networks == ["a", "b"]
    assert "of the user's" in found.failures["c"]
    made = suture.compare(tiny.network(), tiny.other(), *tiny.data(), indices=["cka", "opd@pool"],
                          methods=["dm"], sites=["block1", "block2"], ood=None, device="cpu",
                          precision="float64")
    spread = found.spread.set_index(["site", "measure"])
    for measure, site in itertools.product(("cka", "opd@pool", "dm.accuracy"), ("block1", "block2")):
        assert spread.loc[(site, measure), "median"] == pytest.approx(made.matrix(measure).loc[site, site])
    assert len(found.table) == 4 * len(found.measures)
    assert found.table["sentence"].str.endswith(".").all()
    with suture.style("column"):
        figure = found.plot(["cka"])
    assert len(figure.axes) == 4
    assert find_faults(figure) == []
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "median distance of seeds", "95 % of these distances", "largest rank that changes the probe"]
    assert len({ax.get_ylim() for ax in figure.axes[:2]}) == 1  # sites can be compared
    with pytest.raises(SutureError, match="cca"):
        found.plot(["cca"])


class Augmented(torch.utils.data.Dataset[Any]):
    """Examples that are other ones each time."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, k: int) -> tuple[Tensor, int]:
        return torch.rand(2, 8, 8), k % 3


def test_examples_that_change_are_noted() -> None:
    loader = torch.utils.data.DataLoader(Augmented(), batch_size=6)
    found = suture.sensitivity({"a": tiny.network()}, loader, tiny.data()[1], sites=["block2"],
                               indices=["cka"], methods=(), **HOW)
    assert any("come otherwise" in note for note in found.notes)
    assert any("1 steps" in note or "2 steps" in note for note in found.notes)


def test_a_given_study_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from suture.studies.sensitivity_test import call

    monkeypatch.setattr(call, "run_study", lambda given: pytest.fail("run again"))
    found = suture.sensitivity({"a": tiny.network(), "b": tiny.other()}, tiny.data()[0], sites=["block2"],
                               indices=["cka"], methods=(), study=of_pairs({("a", "b"): 0.5}), **HOW)
    assert found.measures == ["cka"]


def test_a_folder_keeps_curves_and_comparisons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from suture.studies.sensitivity_test import call

    measured_again: list[str] = []
    measure = call.measure_network
    monkeypatch.setattr(call, "measure_network",
                        lambda name, *given: measured_again.append(name) or measure(name, *given))

    def run(**more: Any) -> Sensitivity:
        return suture.sensitivity({"a": tiny.network(), "b": tiny.other()}, *tiny.data(), sites=["block2"],
                                  indices=["cka"], methods=(), folder=tmp_path, **{**HOW, **more})

    first, again = run(), run()
    assert measured_again == ["a", "b"]
    pd.testing.assert_frame_equal(first.curves, again.curves)
    pd.testing.assert_frame_equal(first.probes, again.probes)
    pd.testing.assert_frame_equal(first.spread, again.spread)
    next(iter((tmp_path / "curves").iterdir())).write_text("{")
    run()
    run(ranks=[2])
    assert len(measured_again) == 5


@pytest.mark.parametrize(("options", "named"), [
    ({"ranks": [9]}, "4, got 9"), ({"ranks": np.arange(3)}, "0"),
    ({"methods": ["mlt"]}, "mlt"), ({"methods": 5}, "methods"),
    ({"indices": ["ckaa"]}, "ckaa"), ({"token_rate": 0.5}, "token_rate"),
    ({"methods": ["tlm"], "tlm": TaskRecipe(seeds=2)}, "seeds=2"), ({"networks": {}}, "network"),
    ({"data": tiny.images()}, "labels"), ({"basis": "all"}, "basis"),
    ({"study": of_pairs({("a", "b"): 0.5}), "folder": "x"}, "both"), ({"sites": ["block9"]}, "block9")])
def test_bad_input_is_one_line(options: dict[str, Any], named: str) -> None:
    given = {"networks": {"a": tiny.network()}, "data": tiny.data()[0], **HOW, **options}
    with pytest.raises(SutureError, match=named) as error:
        suture.sensitivity(**given)
    assert "\n" not in str(error.value)
