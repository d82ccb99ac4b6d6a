"""The sentences of a comparison: how many, in what order, and that their numbers are those of the table."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

import suture
from suture._base.errors import SutureError
from suture.numbers import Estimate
from suture.ood import NaturalRange, ShiftRange
from suture.results.findings import summarise_findings
from suture.results.inference.correspondence import measure_correspondence, pair_sites
from suture.results.verdicts import ARTEFACT, WORKING
from tests.results.test_standing import with_chance
from tests.support.synthetic import comparison


def mark(made, method, cells):
    table = made.table.copy()
    at = table["measure"].str.startswith(f"{method}.") & np.isin(
        table["source"] + " " + table["target"], [" ".join(cell) for cell in cells])
    table.loc[at, "mark"] = "still improving: yes"
    return dataclasses.replace(made, table=table)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("detectors", [(), ("maha",)])
def test_at_most_six_sentences(same, alike, detectors):
    made = comparison(4, 4, same_network=same, same_architecture=same or alike, detectors=detectors)
    found = summarise_findings(made)
    assert 1 <= count_sentences(found.all) <= 6
    assert all(sentence.endswith(".") and "nan" not in sentence for sentence in found.all)
    assert made.findings().all == found.all


@pytest.mark.parametrize("detectors", [(), ("maha",)])
def test_no_value_at_all(detectors):
    made = comparison(2, 3, same_network=False, detectors=detectors)
    table = made.table.assign(value=np.nan, low=np.nan, high=np.nan, mark="")
    table["reason"] = ["no rows"] * (len(table) - 1) + ["other"]
    failed = dataclasses.replace(made, table=table)
    assert failed.findings().all == ("No cell has a value: no rows.",)
    assert repr(failed).endswith(": No cell has a value: no rows.")
    none = dataclasses.replace(made, table=table.iloc[:0], arrays={})
    assert none.findings().all == ("No cell has a value.",)


def count_sentences(texts):
    return sum(len(re.findall(r"\.(?= [A-Z]|$)", text)) for text in texts)


def test_a_first_line_of_several_sentences_leaves_fewer_to_the_others():
    made = comparison(detectors=("maha",), same_network=False)
    table = made.table.copy()
    at = table["measure"].str.endswith("relative_accuracy")
    table.loc[at, ["value", "low", "high"]], table.loc[at, "reason"] = np.nan, "no labels"
    unlabelled = dataclasses.replace(
        made, arrays={name: of for name, of in made.arrays.items() if name != "target.correct"}, table=table,
        meta=made.meta | {"chance": {"scored": 200, "prediction": 170}, "warning": "one more sentence"})
    found, usual = summarise_findings(unlabelled), summarise_findings(made)
    assert count_sentences([found.first]) == 3
    assert count_sentences(found.all) == 6
    assert found.sentences[-1].startswith("Next:")
    assert count_sentences(usual.all) <= 6


def test_the_finding_comes_first_with_its_counts():
    made = comparison(detectors=("maha",))
    first = summarise_findings(made).sentences[0]
    tlm, dm = made.cells("tlm"), made.cells("dm")
    assert list(map(int, re.findall(r"\d+", first)))[:4] == [
        int(tlm.isin(WORKING).to_numpy().sum()), tlm.size, int((tlm == ARTEFACT).to_numpy().sum()),
        int(dm.isin(WORKING).to_numpy().sum())]


def test_marked_cells_carry_no_claim():
    made = comparison(detectors=("maha",))
    telling = summarise_findings(made).sentences[2]
    source, target = re.search(r"telling, (\S+) into (\S+):", telling).groups()
    marked = mark(made, "tlm", [(source, target)])
    after = summarise_findings(marked)
    assert f"{source} into {target}:" not in " ".join(after.sentences)
    assert "of 15 converged cells" in after.sentences[0]
    every = mark(made, "tlm", [(s, t) for s in made.sources for t in made.targets])
    assert "has not converged in any of 16 cells" in summarise_findings(every).sentences[0]
    assert "longer" in summarise_findings(every).sentences[-1]


def test_marked_cells_of_direct_matching_are_not_counted():
    made = comparison(detectors=("maha",))
    dm = made.cells("dm")
    marked = mark(made, "dm", [("layer1.0", target) for target in made.targets])
    rest = dm.iloc[1:].isin(WORKING).to_numpy().sum()
    assert f"direct matching {rest} of 12 unmarked" in summarise_findings(marked).sentences[0]
    assert "4 not generalising" in summarise_findings(marked).sentences[1]
    alone = dataclasses.replace(marked, table=marked.table[~marked.table["measure"].str.startswith("tlm.")])
    assert f"Direct matching makes {rest} of 12 unmarked cells work" in summarise_findings(alone).sentences[0]


def test_marked_cells_do_not_decide_whether_layers_are_nearest_to_themselves():
    """A lost contest that rests on marked cells is no answer, nor is one that is won over them."""
    made = comparison(detectors=("maha",), missing=False)
    rows = made.verdict().table.set_index("measure")
    assert (rows.loc[["cka", "cka_debiased"], "violated"] == 0).all()
    found = [dataclasses.replace(made, table=table) for table in (made.table.copy(), made.table.copy())]
    for other, value in zip(found, (2.0, -2.0), strict=True):
        at = ((other.table["source"] == "layer1.1") & (other.table["target"] == "layer1.0")
              & (other.table["measure"] == "cka"))
        other.table.loc[at, ["value", "mark"]] = [value, "few rows: 3"]
        other = dataclasses.replace(other, table=other.table)
        total = len(rows[~rows.index.str.contains(".", regex=False)])
        words = next(s for s in summarise_findings(other).sentences if s.startswith("Each layer"))
        assert f"by all {total - 1} indices" in words


@pytest.mark.parametrize("how", ["missing", "marked"])
def test_the_telling_pair_needs_both_methods(how):
    """The first cell is no artefact of the last column, so it must not be named when nothing is left."""
    made = comparison(detectors=("maha",))
    cells = [(s, t) for s in made.sources for t in made.targets]
    if how == "marked":
        bare = mark(made, "dm", cells)
    else:
        table = made.table.copy()
        at = table["measure"] == "dm.relative_accuracy"
        table.loc[at, ["value", "low", "high"]] = np.nan
        table.loc[at, "reason"] = "it broke"
        bare = dataclasses.replace(made, table=table)
    assert "Most telling" not in " ".join(summarise_findings(bare).all)


def test_the_telling_pair_is_the_largest_gap_among_artefacts():
    made = comparison(detectors=("maha",))
    gap = (made.matrix("tlm.relative_accuracy") - made.matrix("dm.relative_accuracy")).to_numpy(copy=True)
    gap[(made.cells("tlm") != ARTEFACT).to_numpy()] = -np.inf
    i, j = np.unravel_index(gap.argmax(), gap.shape)
    assert f"{made.sources[i]} into {made.targets[j]}:" in summarise_findings(made).sentences[2]


def test_what_makes_the_rest_meaningless_stands_alone():
    found = summarise_findings(with_chance(comparison(detectors=("maha",)), hits=22))
    assert found.first
    assert len(found.sentences) == 1


def test_layers_are_grouped_by_kind_of_measure():
    made = comparison(detectors=("maha",), missing=False)
    table = made.verdict().table
    rows = table[table["measure"].str.startswith("tlm.")]
    words = next(s for s in summarise_findings(made).sentences if s.startswith("Each layer"))
    held = int(((rows["violated"] == 0)).sum())
    assert f"{held} of {len(rows)} measures of task loss matching" in words


def test_a_single_index_is_the_only_one():
    made = comparison(missing=False)
    rows = made.table[made.table["measure"] == "cka"].reset_index(drop=True)
    single = dataclasses.replace(made, table=rows)
    assert any("nearest to itself by the only index." in s for s in summarise_findings(single).sentences)


def test_differences_within_noise_are_no_argument_against_a_measure():
    made = comparison(detectors=("maha",), missing=False)
    rows = made.verdict().table.set_index("measure")["beyond_noise"]
    words = next(s for s in summarise_findings(made).sentences if s.startswith("Each layer"))
    assert ("accuracies tie within noise" in words) == (rows.max() == 0)
    arrays = dict(made.arrays)
    arrays["tlm.correct"] = arrays["tlm.correct"].copy()
    arrays["tlm.correct"][0, 0], arrays["tlm.correct"][1, 0] = False, True
    table = made.table.copy()
    table.loc[(table["measure"] == "tlm.accuracy") & (table["target"] == "layer1.0"), "value"] = [0, 1, 1, 1]
    apart = dataclasses.replace(made, arrays=arrays, table=table)
    assert "within noise" not in " ".join(summarise_findings(apart).sentences)


def test_layers_of_two_networks_are_counted_by_one_measure_of_each_kind():
    made = comparison(4, 4, same_network=False, missing=False)
    rows = made.verdict().table.set_index("measure")["corresponding"]
    sentence = find_correspondence(made)
    assert f"the layer of the same name is nearest for {rows['cka_debiased']} of 4 layers" in sentence
    assert sentence.endswith(f"by DM R² {rows['dm.r2']} of 4, by TLM R² {rows['tlm.r2']} of 4.")
    marked = find_correspondence(mark(made, "tlm", [(s, "layer1.0") for s in made.sources]))
    assert marked.endswith(" of 3.")


def find_correspondence(made):
    return next(s for s in summarise_findings(made).sentences if "the layer of the same name" in s)


def test_equal_values_are_no_correspondence():
    """A measure at its ceiling for all layers must not find all of them."""
    made = comparison(4, 4, same_network=False, missing=False)
    table = made.table.copy()
    table.loc[table["measure"] == "tlm.relative_accuracy", "value"] = 1.0
    found = measure_correspondence(dataclasses.replace(made, table=table), "tlm.relative_accuracy")
    assert (found.nearest, found.rank, found.p) == (0, 2.5, 1)


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_saved_features_have_findings_against_chance(names):
    x = np.random.default_rng(0).normal(size=(60, 8))
    noise = np.random.default_rng(1).normal(size=(60, 8))
    related, unrelated = (suture.compare_arrays({n: x + k * noise for k, n in enumerate(names, 1)},
                                                dict.fromkeys(names, y)).findings().all
                          for y in (x, np.random.default_rng(2).normal(size=(60, 8))))
    if len(names) == 1:
        assert ", above chance" in related[0]
        assert ", not above chance" in unrelated[0]
    else:
        assert "4 of 4 cells are above chance" in related[0]
        assert "0 of 4 cells are above chance" in unrelated[0]


def test_without_natural_ranges_the_findings_say_how_to_get_them():
    assert "ood=suture.OOD()" in without_ranges().sentences[-1]


def without_ranges():
    made = comparison()
    return summarise_findings(dataclasses.replace(
        made, table=made.table[~made.table["measure"].str.endswith("natural_distance")]))


def test_networks_of_one_architecture_without_a_common_site_have_findings():
    made = comparison(4, 4, same_network=False)
    sources, targets = made.sources[:2], made.targets[2:]
    table = made.table[made.table["source"].isin(sources) & made.table["target"].isin(targets)]
    apart = dataclasses.replace(made, table=table, sources=sources, targets=targets, arrays={})
    assert not any("nearest" in sentence for sentence in summarise_findings(apart).all)
    with pytest.raises(SutureError, match="same name"):
        apart.findings("name")


def test_marked_cells_rank_no_corresponding_layer():
    made = comparison(4, 4, same_network=False)
    marked = mark(made, "dm", [("layer1.1", "layer1.0")])
    assert measure_correspondence(made, "dm.r2").layers == 4
    assert measure_correspondence(marked, "dm.r2").layers == 3


def test_the_rank_of_corresponding_layers_against_a_slow_reference():
    made = comparison(5, 4, same_network=False, missing=False)
    found = measure_correspondence(made, "dm.r2")
    values = made.matrix("dm.r2")
    ranks = [int((values[t] > values.loc[t, t]).sum()) + 1 for t in made.targets]
    assert (found.layers, found.nearest, found.rank) == (4, ranks.count(1), np.mean(ranks))
    assert found.chance == 3
    draws = np.random.default_rng(0).integers(5, size=(200_000, 4))
    assert found.p == pytest.approx(((draws == 0).sum(1) >= found.nearest).mean(), abs=5e-3)
    assert found.low <= found.rank <= found.high


def test_layers_correspond_by_name_by_order_or_as_given():
    made = comparison(5, 3, same_network=False, same_architecture=False)
    assert pair_sites(made) == ("order", {0: 0, 1: 2, 2: 4})
    assert pair_sites(made, "name") == ("name", {0: 0, 1: 1, 2: 2})
    assert pair_sites(comparison(5, 1, same_network=False, same_architecture=False)) == ("order", {})
    assert pair_sites(made, {made.targets[1]: made.sources[4]}) == ("given", {1: 4})
    with pytest.raises(SutureError, match="unknown source site 'no'"):
        made.findings({made.targets[0]: "no"})
    with pytest.raises(SutureError, match="got depth"):
        made.findings("depth")
    assert pair_sites(comparison(same_network=False))[0] == "name"


def test_a_range_that_is_missing_or_open_ended_is_said():
    made = comparison(detectors=("maha",))
    start = "No natural range at 1 of 4 target sites (the network works under no shift): "
    assert any(s.startswith(start) for s in summarise_findings(made).sentences)

    def with_range(**distances):
        kinds = tuple(ShiftRange(name, Estimate(0.5, 0.4, 0.6), name == "noise", (Estimate(d, d, d),) * 4)
                      for name, d in distances.items())
        about = made.meta["ood"] | {"range": NaturalRange("shifts/1", 200, 0.8, 32, kinds).as_record()}
        return dataclasses.replace(made, meta=made.meta | {"ood": about})

    assert not any("range" in s for s in summarise_findings(with_range(noise=0.4, blur=0.2)).sentences)
    sentences = summarise_findings(with_range(noise=0.2, blur=0.4)).sentences
    n = int((made.cells("tlm") == ARTEFACT).any(axis=0).sum())
    assert (f"The natural range is open-ended at {n} target sites with artefacts: the network works under "
            "the strongest blur.") in sentences
