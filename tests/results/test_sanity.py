"""The sanity battery: planted cases, and an independent version that loops and counts."""

from __future__ import annotations

import dataclasses
from itertools import product
from math import comb

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from suture._base.errors import SutureError
from suture.numbers.measures import MEASURES
from suture.results import sanity as verdict
from suture.results.inference import noise as noise_tests
from suture.results.sanity import PAIR_COLUMNS, SELF_COLUMNS, run_sanity_battery
from tests.support.comparisons import of_values
from tests.support.languages import compared, made, texts
from tests.support.synthetic import NAMES, comparison

NAN = float("nan")


def on_itself(measure, values, sources=None, targets=None, **kinds):
    verdict = run_sanity_battery(of_values(measure, values, None, sources, targets, **kinds))
    assert len(verdict.table) == len(verdict.words) == 1
    return verdict.table.iloc[0], verdict.words[0]


def with_twin(measure, values, sources=None, targets=None):
    return on_itself(measure, values, sources, targets, same_network=False)


def test_violations_are_counted_per_target_layer():
    row, words = on_itself("tlm.relative_accuracy", [[0.90, 0.20, 0.95], [0.95, 0.8, 0.1], [0.93, 0.8, 0.99]])
    assert (row["layers"], row["violated"], row["undefined"]) == (3, 1, 0)
    assert (row["worst_target"], row["worst_source"]) == ("l0", "l1")
    assert row["worst_margin"] == pytest.approx(0.05)
    assert words == ("TLM relative accuracy: another layer is more similar than the layer itself for 1 of 3 "
                     "target layers. The largest margin is 0.050: l1 into l0.")


def test_distances_are_judged_the_other_way_round():
    row, _ = on_itself("opd", [[0.5, 0.1], [0.2, 0.0]])
    assert (row["violated"], row["worst_target"], row["worst_source"]) == (1, "l0", "l1")
    assert row["worst_margin"] == pytest.approx(0.3)


@pytest.mark.parametrize(("measure", "margin", "violated"), [
    ("cka", 1e-12, 0), ("cka", 0.0, 0), ("cka", 1e-8, 1), ("dm.residual", 1e-12, 0), ("dm.residual", 1e-8, 1),
    ("dm.kl", 5e-7, 0), ("dm.kl", 2e-6, 1), ("dm.ce_gap", 5e-7, 0), ("dm.residual_batches", 1e-8, 1),
    ("dm.accuracy", 1e-12, 1), ("dm.accuracy", 0.0, 0)])
def test_rounding_is_forgiven_to_real_numbers_and_not_to_counts(measure, margin, violated):
    better = margin if MEASURES[measure].larger_is_more_similar else -margin
    far, near = (0.1, 0.9) if better >= 0 else (0.9, 0.1)
    row, _ = on_itself(measure, [[0.5, far], [0.5 + better, near]])
    assert row["violated"] == violated


def test_nothing_to_quote_but_success():
    row, words = on_itself("dm.relative_accuracy", [[1, 0.1], [0.2, 1]])
    assert words == "DM relative accuracy: every target layer is most similar to itself (2 of 2)."
    assert (row["violated"], row["worst_margin"]) == (0, 0.0)
    assert (row["worst_target"], row["worst_source"]) == ("", "")


def test_missing_values_are_skipped_and_counted():
    row, words = on_itself("cka", [[NAN, 0.9, 0.1], [0.9, 0.5, NAN], [0.9, NAN, 0.7]])
    # l0 has no own value; l1 is beaten by l0; l2 is not.
    assert (row["layers"], row["violated"], row["undefined"]) == (2, 1, 3)
    assert words.endswith("The largest margin is 0.400: l0 into l1. No value: 3 of 9 cells.")
    row, words = on_itself("cka", [[0.5, NAN], [NAN, 0.5]])
    assert (row["layers"], row["undefined"]) == (0, 2)
    assert "no target layer has both its own value and that of another" in words


def test_layers_correspond_by_name_not_by_place():
    row, _ = on_itself("cka", [[0.1, 0.9], [0.9, 0.1], [0.5, 0.5]], ["a", "b", "c"], ["b", "a"])
    assert (row["layers"], row["violated"]) == (2, 0)
    row, _ = on_itself("cka", [[0.1], [0.9]], ["a", "b"], ["c"])
    assert row["layers"] == 0


def planted(gains, losses, n=400):
    """Self-stitched correctness: into l0, source l1 gains and loses so many examples against l0 itself."""
    own = np.zeros(n, dtype=bool)
    own[:n // 2] = True
    other = own.copy()
    other[:losses] = False
    other[n // 2:n // 2 + gains] = True
    correct = np.zeros((2, 2, n), dtype=bool)
    correct[0, 0], correct[1, 0] = own, other
    correct[1, 1] = True
    return correct


@pytest.mark.parametrize(("gains", "losses", "clear"), [(6, 0, 1), (5, 0, 0), (20, 5, 1), (20, 10, 0),
                                                        (1, 0, 0)])
@pytest.mark.parametrize("quantity", ["accuracy", "relative_accuracy", "agreement"])
def test_noise_is_told_from_difference(gains, losses, clear, quantity):
    # Exact two-sided p: 6:0 -> 2/64 = 0.031, 5:0 -> 0.0625, 20:5 -> 0.0041, 20:10 -> 0.099
    correct = planted(gains, losses)
    examples = "agree" if quantity == "agreement" else "correct"
    row, words = on_itself(f"tlm.{quantity}", correct.mean(axis=2), arrays={f"tlm.{examples}": correct})
    assert (row["violated"], row["beyond_noise"]) == (1, clear)
    assert words.endswith(f" Beyond test-set noise: {clear} of 1 (McNemar, Holm, p < 0.05).")


def test_holm_and_the_choice_of_the_rival_cost():
    # One layer beaten 6:0 (p = 0.031) is clear alone, but neither beside a second one nor against two others.
    correct = np.zeros((2, 2, 100), dtype=bool)
    correct[1, 0, :6] = correct[0, 1, :6] = True
    row, words = on_itself("tlm.accuracy", correct.mean(axis=2), arrays={"tlm.correct": correct})
    assert (row["violated"], row["beyond_noise"]) == (2, 0)
    assert "Beyond test-set noise: 0 of 2 (" in words
    correct = np.zeros((3, 3, 100), dtype=bool)
    correct[1, 0, :6] = True
    row, _ = on_itself("tlm.accuracy", correct.mean(axis=2), arrays={"tlm.correct": correct})
    assert (row["violated"], row["beyond_noise"]) == (1, 0)


@pytest.mark.parametrize(("measure", "arrays"), [
    ("cka", {}), ("tlm.accuracy", {}), ("dm.residual", {"dm.correct": planted(9, 0)})])
def test_without_examples_nothing_is_said_about_noise(measure, arrays):
    row, words = on_itself(measure, [[0.5, 0.5], [0.9, 0.9]], arrays=arrays)
    assert np.isnan(row["beyond_noise"])
    assert "noise" not in words


def test_examples_of_another_shape_are_refused():
    with pytest.raises(SutureError, match=r"'dm.correct' of shape .* = \(2, 2, N\), got \(3, 2, 5\)"):
        on_itself("dm.accuracy", [[1, 0], [0, 1]], arrays={"dm.correct": np.zeros((3, 2, 5), dtype=bool)})


def test_correspondence_of_two_networks():
    row, words = with_twin("cka", [[0.9, 0.8, 0.1], [0.7, 0.6, 0.2], [0.1, 0.5, 0.9]])
    # Columns: l1 is nearer to l0 (0.8) than to its own (0.6). Rows: l1 is nearer to target l0 (0.7).
    assert (row["layers"], row["corresponding"]) == (3, 2)
    assert (row["source_layers"], row["corresponding_by_source"]) == (3, 2)
    assert (row["worst_target"], row["worst_source"]) == ("l1", "l0")
    assert row["worst_margin"] == pytest.approx(0.2)
    assert words == ("CKA (biased): the corresponding source layer is the most similar one for 2 of 3 target "
                     "layers. The corresponding target layer is the most similar one for 2 of 3 source "
                     "layers. The largest margin is 0.200: l0 into l1.")


def test_rows_and_columns_are_judged_apart():
    row, _ = with_twin("tlm.accuracy", [[0.9, 0.95], [0.1, 0.99]])
    assert (row["corresponding"], row["corresponding_by_source"], row["worst_margin"]) == (2, 1, 0.0)


@pytest.mark.parametrize(("own", "corresponding"), [(0.7, 1), (0.8, 2), (0.9, 2)])
def test_a_tie_counts_if_the_corresponding_layer_attains_it(own, corresponding):
    row, _ = with_twin("dm.accuracy", [[own, 0.1], [0.8, 0.9]])
    assert row["corresponding"] == corresponding


def test_two_architectures_have_no_correspondence():
    verdict = run_sanity_battery(of_values("cka", [[1, 0], [0, 1]], same_network=False,
                                           same_architecture=False))
    assert verdict.table.empty
    assert len(verdict.words) == 1
    assert "does not apply" in verdict.words[0]


def test_columns_and_order_of_measures():
    verdict = comparison().verdict()
    assert tuple(verdict.table.columns) == SELF_COLUMNS
    assert list(verdict.table["measure"]) == [m for m in NAMES if MEASURES[m].judged]
    assert tuple(comparison(same_network=False).verdict().table.columns) == PAIR_COLUMNS


def slow_self(measure, values, names, correct):
    """The battery of one measure by loops: violated, beyond noise, worst margin."""
    sign = 1 if MEASURES[measure].larger_is_more_similar else -1
    slack = 0 if MEASURES[measure].functional else 1e-9
    violated, worst, chances = 0, 0.0, []
    for j in range(len(names)):
        rivals = [i for i in range(len(names)) if i != j and values[i][j] == values[i][j]]
        if values[j][j] != values[j][j]:
            continue
        beating = [i for i in rivals if sign * values[i][j] > sign * values[j][j] + slack]
        if not beating:
            continue
        violated += 1
        worst = max(worst, *(sign * (values[i][j] - values[j][j]) for i in beating))
        smallest = 1.0
        for i in beating:
            plus = sum(1 for a, b in zip(correct[i][j], correct[j][j], strict=True) if a and not b)
            minus = sum(1 for a, b in zip(correct[i][j], correct[j][j], strict=True) if b and not a)
            tail = sum(comb(plus + minus, k) for k in range(min(plus, minus) + 1)) / 2 ** (plus + minus)
            smallest = min(smallest, min(1.0, 2 * tail))
        chances.append(min(1.0, smallest * len(rivals)))
    clear = 0
    for rank, chance in enumerate(sorted(chances)):
        if chance * (len(chances) - rank) >= 0.05:
            break
        clear += 1
    return violated, clear, worst


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("measure", ["tlm.accuracy", "tlm.residual", "r2"])
def test_against_loops(measure, seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 6))
    correct = rng.random((size, size, 60)) < rng.uniform(0.3, 0.9, (size, size, 1))
    values = correct.mean(axis=2) if measure == "tlm.accuracy" else rng.random((size, size)).round(1)
    values[rng.random((size, size)) < 0.1] = NAN
    row, _ = on_itself(measure, values, arrays={"tlm.correct": correct})
    violated, clear, worst = slow_self(measure, values.tolist(), range(size), correct.tolist())
    assert row["violated"] == violated
    assert row["worst_margin"] == pytest.approx(worst)
    if measure == "tlm.accuracy":
        assert row["beyond_noise"] == clear


def test_the_reference_sees_clear_cases():
    found = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(2, 6))
        correct = rng.random((size, size, 60)) < rng.uniform(0.3, 0.9, (size, size, 1))
        found += slow_self("tlm.accuracy", correct.mean(axis=2).tolist(), range(size), correct.tolist())[1]
    assert found > 5


@pytest.mark.parametrize(("tlm", "dm", "gap"), [
    ([[1, 0.9], [0.98, 1]], [[1, 0.8], [0.3, 1]], "l1 into l0: relative accuracy 0.980 against 0.300."),
    ([[0.5, 0.2], [0.3, 1]], [[1, 0.2], [0.3, 1]], ""),
    ([[NAN, NAN], [NAN, NAN]], [[1, 0.2], [0.3, 1]], ""),
])
def test_the_gap_names_the_cell_where_tlm_exceeds_dm_most_and_nothing_where_it_does_not(tlm, dm, gap):
    one, other = (of_values(f"{m}.relative_accuracy", v) for m, v in (("tlm", tlm), ("dm", dm)))
    verdict = run_sanity_battery(dataclasses.replace(one, table=pd.concat([one.table, other.table])))
    assert verdict.gap.endswith(gap)
    assert bool(verdict.gap) == bool(gap)


def test_the_verdict_tests_numbers_of_tokens_by_signed_ranks() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(4, 9, 60)
    correct = np.tile(tokens // 2, (2, 2, 1)).astype(np.float32)
    correct[0, 1] += 2  # the other layer looks better at the second site, beyond noise
    result = compared(made(), texts(4), texts(60, 1), methods=["dm"], ood=None,
                      sites=["blocks.0", "blocks.1"])
    table = result.table.copy()
    for (i, s), (j, t) in product(enumerate(result.sources), enumerate(result.targets)):
        here = (table.source == s) & (table.target == t) & (table.measure == "dm.accuracy")
        table.loc[here, "value"] = correct[i, j].sum() / tokens.sum()
    judged = run_sanity_battery(dataclasses.replace(result, table=table, arrays={"dm.correct": correct}))
    row = judged.table.set_index("measure").loc["dm.accuracy"]
    assert (row["violated"], row["beyond_noise"]) == (1, 1)
    assert "Beyond test-set noise: 1 of 1 (Wilcoxon over texts, Holm" in " ".join(judged.words)
    noise = correct.copy()
    noise[0, 1] = correct[1, 1] + rng.choice([-1, 1], 60)
    p = stats.wilcoxon(noise[0, 1], correct[1, 1]).pvalue
    assert noise_tests.compute_p_value(noise[0, 1], correct[1, 1]) == pytest.approx(p)
    assert noise_tests.compute_p_value(correct[1, 1], correct[1, 1]) == 1


# -- marked cells --------------------------------------------------------------------------------------------

def with_marks(measure, values, marked, correct=None, **kinds):
    marks = [["still improving: 3 %" if (i, j) in marked else "" for j in range(len(values[0]))]
             for i in range(len(values))]
    arrays = {} if correct is None else {"tlm.correct": correct}
    verdict = run_sanity_battery(of_values(measure, values, marks, arrays=arrays, **kinds))
    return verdict.table.iloc[0], verdict.words[0]


ALL = set(product(range(2), repeat=2))


@pytest.mark.parametrize("values", [[[0.5, 0.1], [0.9, 0.9]], [[0.9, 0.1], [0.1, 0.9]]])
@pytest.mark.parametrize("same", [True, False])
def test_a_grid_of_marked_cells_claims_nothing(values, same):
    row, words = with_marks("tlm.accuracy", values, ALL, planted(20, 0), same_network=same)
    assert words.startswith("TLM accuracy: no claim: ")
    assert "noise" not in words
    assert "most similar" not in words
    assert row["marked"] == row["layers"] + (0 if same else row["source_layers"])
    assert verdict.is_open(row)
    assert not verdict.is_lost(row)
    if same:
        assert np.isnan(row["beyond_noise"])


@pytest.mark.parametrize(("marked", "count"), [
    (set(), 0), ({(0, 0)}, 1), ({(1, 0)}, 1), ({(0, 1)}, 1), ({(0, 0), (1, 1)}, 2)])
def test_a_contest_lost_by_marked_cells_says_so_and_is_not_tested(marked, count):
    correct = np.concatenate([planted(20, 0)] * 2, 2)
    correct[0, 1, :100] = True
    correct[1, 1] = False
    values = correct.mean(axis=2)
    row, words = with_marks("tlm.accuracy", values, marked, correct)
    assert (row["violated"], row["marked"]) == (2, count)
    assert ("Of these 2, 1 rests on marked cells." in words) == (count == 1)
    if count < 2:
        assert row["beyond_noise"] == 2 - count
        assert f"Beyond test-set noise: {2 - count} of {2 - count} (" in words
    else:
        assert "no claim" in words


def test_a_rival_without_a_mark_is_enough_and_only_it_is_tested():
    correct = np.zeros((3, 3, 100), dtype=bool)
    correct[1, 0, :50] = correct[2, 0, :3] = True
    row, words = with_marks("tlm.accuracy", correct.mean(axis=2), {(1, 0)}, correct)
    assert (row["violated"], row["marked"], row["beyond_noise"]) == (1, 0, 0)
    assert "The largest margin is 0.500: l1 into l0." in words
    row, _ = with_marks("tlm.accuracy", correct.mean(axis=2), set(), correct)
    assert row["beyond_noise"] == 1


def test_a_layer_most_similar_to_itself_among_marked_cells_rests_on_them():
    row, words = with_marks("tlm.accuracy", [[0.9, 0.1], [0.1, 0.9]], {(1, 0)})
    assert words.endswith("is most similar to itself (2 of 2). Of these 2, 1 rests on marked cells.")
    assert not verdict.is_lost(row)
    row, words = with_marks("tlm.accuracy", [[0.9, 0.1], [0.1, 0.9]], {(1, 0)}, same_network=False)
    assert "Of these 4, 2 rest on marked cells." in words


def test_the_gap_says_that_its_cell_is_marked():
    values = [[1, 0.9], [0.98, 1]], [[1, 0.8], [0.3, 1]]
    one, other = (of_values(f"{m}.relative_accuracy", v, marks) for m, v, marks in
                  zip(("tlm", "dm"), values, ([["", ""], ["still improving: 3 %", ""]], None), strict=True))
    found = run_sanity_battery(dataclasses.replace(one, table=pd.concat([one.table, other.table])))
    assert found.gap.endswith("0.980 against 0.300. That cell is marked (still improving: 3 %).")


def test_several_initialisations_are_tested_with_their_spread():
    rng = np.random.default_rng(0)
    hits = rng.random((3, 2, 2, 400)) < np.array([[0.5, 0.9], [0.7, 0.9]])[:, :, None]
    for spread, clear in ((0.0, 1), (0.4, 0)):
        runs = hits.mean(3) + spread * np.array([-1, 0, 1])[:, None, None]
        arrays = {"tlm.correct": hits.mean(0).astype(np.float32), "tlm.runs.accuracy": runs}
        row, words = on_itself("tlm.accuracy", hits.mean((0, 3)), arrays=arrays)
        assert row["beyond_noise"] == clear
        assert (f"Beyond noise of the test set and initialisations: {clear} of {row['violated']} (t over "
                "examples and initialisations, Holm, p < 0.05).") in words
