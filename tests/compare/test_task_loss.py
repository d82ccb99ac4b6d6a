"""Task loss matching in a comparison: marks of what has not converged, and what makes another comparison."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import suture
from suture import Prepared, TaskRecipe
from suture.compare.fitting.task_loss import Trained, Training
from suture.stitching import Curves
from tests.support import tiny
from tests.support.fit import too_late
from tests.support.interruptions import assert_same_numbers
from tests.support.languages import made as language_model
from tests.support.languages import stream, texts
from tests.support.tiny import twice_as_large


def compared(recipe: TaskRecipe, **options: Any) -> suture.Comparison:
    return suture.compare(tiny.network(), options.pop("target", None), *tiny.data(), tlm=recipe, ood=None,
                          device="cpu", **options)


def test_cells_of_a_half_trained_grid_are_marked_and_say_so(tmp_path: Path) -> None:
    seen: list[str] = []
    recipe = TaskRecipe(epochs=3, lr=1e-2, batch_size=8, objective="match")
    made = compared(recipe, progress=lambda stage, done, total: seen.append(stage))
    assert "checking convergence" in seen
    marks = made.marks("tlm.accuracy")
    assert list(marks.index) == list(marks.columns) == ["block1", "block2"]
    assert (marks != "").any(axis=None)
    assert made.marks("tlm.residual").equals(marks)
    assert (made.marks("dm.accuracy") == "").all(axis=None)
    assert (made.marks("cka") == "").all(axis=None)
    n = int((marks != "").sum(axis=None))
    assert any(f"has not converged: {n} of 4 cells" in note for note in made.meta["notes"])
    made.save(tmp_path)
    assert suture.load(tmp_path).equals(made)
    for name in ("tlm", "dm"):
        assert made.arrays[f"{name}.objective"].shape == (2, 2)


def test_the_objective_of_direct_matchings_own_layers_is_the_networks() -> None:
    made = compared(TaskRecipe(epochs=2, lr=1e-2, batch_size=8))
    x, y = tiny.data()[0]
    with torch.no_grad():
        own = float(torch.nn.functional.cross_entropy(tiny.network()(x), y))
    assert np.diag(made.arrays["dm.objective"]) == pytest.approx(own, rel=1e-4)


def test_one_epoch_is_marked_without_another_pass() -> None:
    seen: list[str] = []
    made = compared(TaskRecipe(epochs=1), progress=lambda stage, done, total: seen.append(stage))
    assert made.marks("tlm.agreement").map(lambda m: "one epoch" in m).all(axis=None)
    assert "checking convergence" not in seen
    assert "dm.objective" not in made.arrays


def test_training_that_starts_at_direct_matching_and_hardly_moves_is_not_marked() -> None:
    made = compared(TaskRecipe(epochs=10, init="dm", lr=1e-6), target=tiny.other())
    assert (made.marks("tlm.accuracy") == "").all(axis=None)
    assert not any("has not converged" in note for note in made.meta["notes"])


def test_training_that_moves_away_from_direct_matching_is_marked() -> None:
    recipe = TaskRecipe(epochs=10, init="dm", lr=3.0, batch_size=8, objective="match")
    made = compared(recipe, target=tiny.other())
    assert made.marks("tlm.accuracy").map(lambda m: "above direct matching" in m).any(axis=None)


BRIEF = TaskRecipe(epochs=1, batch_size=16)


@pytest.fixture(scope="module")
def after_moments() -> suture.Comparison:
    """A result after its first stage, which the same comparison goes on from."""
    kept: list[suture.Comparison] = []
    made = compared(BRIEF, on_stage=kept.append, indices=())
    resumed = compared(BRIEF, previous=kept[0], indices=())
    assert resumed.table.equals(made.table)
    return kept[0]


@pytest.mark.parametrize("change", [
    {"objective": "soft"}, {"temperature": 2.0}, {"mix": 0.1}, {"optimizer": "sgd"}, {"crop": 1},
    {"flip": True},
    {"precision": "bf16"}, {"seeds": 2}, {"patience": 1}, {"held_out": 0.2}, {"weight_decay": 0.0},
    {"init": "identity"}])
def test_other_settings_are_another_comparison(after_moments: suture.Comparison,
                                               change: dict[str, Any]) -> None:
    with pytest.raises(suture.SutureError, match="other networks, data or settings"):
        compared(replace(BRIEF, **change), previous=after_moments, indices=())


def test_training_with_crops_where_the_networks_want_different_inputs() -> None:
    data = Prepared((tiny.images(24), tiny.labels(24)), twice_as_large, None)
    made = suture.compare(tiny.network(), tiny.other(), data, methods=["tlm"], indices=(), ood=None,
                          device="cpu", tlm=TaskRecipe(epochs=1, batch_size=12, crop=1))
    assert made.matrix("tlm.accuracy").notna().all(axis=None)


# -- a mark does not depend on the other cells ---------------------------------------------------------------

SHORT = TaskRecipe(epochs=2, lr=1e-2, batch_size=24)


def decided() -> torch.nn.Module:
    """A network whose predictions differ, so that a layer that is not trained loses accuracy."""
    made = tiny.network()
    with torch.no_grad():
        made.head.bias -= made(tiny.images()).mean(0)
        for p in made.head.parameters():
            p *= 50
    return made


def data_of(network: torch.nn.Module) -> Any:
    """Images, with the network's own predictions as labels."""
    with torch.no_grad():
        return tiny.images(), network(tiny.images()).argmax(1)


def marks_of(network: torch.nn.Module, target: Any = None, data: Any = None, **options: Any) -> Any:
    made = suture.compare(network, target, data_of(network) if data is None else data, indices=(), ood=None,
                          device="cpu", **{"tlm": SHORT} | options)
    return made.marks("tlm.agreement"), made


@cache
def marks_of_all(recipe: TaskRecipe) -> Any:
    return marks_of(decided(), tlm=recipe)[0]


@pytest.mark.parametrize("options", [
    {"target_sites": ["block1", "block2"]}, {"target_sites": ["block2"]},
    {"sites": ["block1"], "target_sites": ["block2"]}, {"target": "copy"},
    {"target": "copy", "sites": ["block2"], "target_sites": ["block1"]},
    {"target_sites": ["block1"], "tlm": replace(SHORT, seeds=2)},
], ids=["all targets", "one target", "one cell", "equal copy", "equal copy, one cell", "two initialisations"])
def test_the_mark_of_a_cell_is_the_same_whichever_other_cells_are_computed(options: dict[str, Any]) -> None:
    network, wanted = decided(), marks_of_all(options.get("tlm", SHORT))
    assert wanted.map(lambda m: "own layer not reached" in m).any(axis=None)
    target = copy.deepcopy(network) if options.pop("target", None) else None
    marks, _ = marks_of(network, target, **options)
    assert marks.equals(wanted.loc[marks.index, marks.columns])


@pytest.mark.parametrize(("network", "data", "task", "sites"), [
    (language_model(), stream(texts(8)), "next_token", ["blocks.0", "blocks.1"]),
    (decided(), [tiny.images()], "classification", ["block1", "block2"])], ids=["padded texts", "no labels"])
def test_of_texts_and_without_labels_the_mark_is_the_same_too(network: torch.nn.Module, data: Any, task: str,
                                                              sites: list[str]) -> None:
    how: dict[str, Any] = {"data": data, "tlm": replace(SHORT, objective="soft", lr=1e-4), "task": task}
    wanted, _ = marks_of(network, sites=sites, **how)
    assert wanted.map(lambda m: "own layer not reached" in m).any(axis=None)
    marks, _ = marks_of(network, sites=sites[1:], target_sites=sites[:1], **how)
    assert marks.equals(wanted.loc[marks.index, marks.columns])


def test_two_networks_have_no_own_layer_and_a_stitched_network_has_the_mark_of_its_cell() -> None:
    network = decided()
    marks, _ = marks_of(network, tiny.other(), data_of(network))
    assert not marks.map(lambda m: "own layer" in m).any(axis=None)
    wanted = marks_of_all(SHORT)
    made = suture.stitch(network, "block1", network, "block2", data_of(network), method="tlm", tlm=SHORT,
                         device="cpu")
    assert made.fit["mark"] == wanted.loc["block1", "block2"]


def test_a_network_with_chosen_target_sites_is_stitched_to_itself_all_the_same() -> None:
    network = decided()
    _, made = marks_of(network, target_sites=["block2"])
    assert made.same_network
    assert list(made.verdict().table["layers"].unique()) == [1]


# -- several initialisations ---------------------------------------------------------------------------------

SEEDS = TaskRecipe(epochs=3, lr=1e-2, batch_size=24, seed=5, seeds=3)


@pytest.fixture(scope="module")
def together() -> suture.Comparison:
    return compared(SEEDS, indices=())


@pytest.fixture(scope="module")
def alone() -> list[suture.Comparison]:
    """A comparison for each initialisation; a batch holds all examples, so their order changes nothing."""
    return [compared(replace(SEEDS, seed=5 + k, seeds=1), indices=()) for k in range(3)]


def test_initialisation_k_is_the_one_of_seed_plus_k(together: suture.Comparison,
                                                    alone: list[suture.Comparison]) -> None:
    for k, (name, one) in enumerate(zip(("tlm", "tlm.run1", "tlm.run2"), alone, strict=True)):
        for part in ("weight/0/1", "bias/1/0", "loss", "objective"):
            assert together.arrays[f"{name}.{part}"] == pytest.approx(
                one.arrays[f"tlm.{part}"], rel=1e-3, abs=1e-4), (k, part)
    assert not np.allclose(together.arrays["tlm.weight/0/1"], together.arrays["tlm.run1.weight/0/1"])


def test_values_are_means_over_initialisations_and_intervals_hold_their_spread(
        together: suture.Comparison, alone: list[suture.Comparison]) -> None:
    for measure in (m for m in together.measures if m.startswith("tlm.")):
        singles = np.stack([one.matrix(measure).to_numpy() for one in alone])
        assert together.matrix(measure).to_numpy() == pytest.approx(singles.mean(0), rel=1e-3, abs=1e-3)
        assert together.arrays[f"tlm.runs.{measure[4:]}"] == pytest.approx(singles, rel=1e-3, abs=1e-3)
        low, high = (together.matrix(measure, end).to_numpy() for end in ("low", "high"))
        known = ~np.isnan(low)
        assert ((low <= singles.min(0) + 1e-4) & (singles.max(0) <= high + 1e-4))[known].all(), measure
    assert not any("one initialisation" in note for note in together.meta["notes"])
    assert any("has one initialisation: its intervals hold test examples only" in note
               for note in alone[0].meta["notes"])


def test_results_per_example_are_means_that_give_the_values_of_the_table(
        together: suture.Comparison, alone: list[suture.Comparison]) -> None:
    cells = ("block1", "block2"), ("block2", "block2")
    wanted = np.mean([one.arrays["tlm.kl"] for one in alone], 0)
    assert together.arrays["tlm.kl"] == pytest.approx(wanted, abs=1e-3)
    for measure in ("tlm.kl", "tlm.accuracy", "tlm.residual", "tlm.ce_gap"):
        found = together.difference(*cells, measure)
        values = together.matrix(measure)
        assert found.value == pytest.approx(values.loc[cells[0]] - values.loc[cells[1]])
        assert found.test == "t over examples and initialisations"
    both = together.difference(cells[0], cells[0], "dm.kl", "tlm.kl")
    assert both.low < both.value < both.high


def test_two_initialisations_go_on_from_an_earlier_result_and_run_dry() -> None:
    recipe, kept = replace(BRIEF, seeds=2), []
    made = compared(recipe, on_stage=kept.append, indices=())
    assert_same_numbers(compared(recipe, previous=kept[0], indices=()), made)
    assert suture.dry_run(tiny.network(), None, *tiny.data(), tlm=recipe, target_sites=["block2"],
                          device="cpu").seconds["tlm"]


def test_test_data_in_another_order_are_refused_before_the_initialisations_are_averaged() -> None:
    data, test = tiny.data()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*test), batch_size=4, shuffle=True)
    with pytest.raises(suture.SutureError, match="shuffle=False"):
        suture.compare(tiny.network(), None, data, loader, methods=["tlm"], device="cpu",
                       tlm=replace(BRIEF, seeds=2), on_stage=too_late)


@pytest.mark.parametrize("init", ["dm", "identity"])
def test_initialisations_that_would_be_equal_are_refused(init: Any) -> None:
    with pytest.raises(suture.SutureError, match=f"seeds=2 with init='{init}'"):
        TaskRecipe(seeds=2, init=init)


def test_a_single_stitching_layer_has_one_initialisation() -> None:
    with pytest.raises(suture.SutureError, match="seeds=2"):
        tiny.stitched(method="tlm", tlm=replace(BRIEF, seeds=2))
    assert tiny.stitched(method="dm", tlm=replace(BRIEF, seeds=2)).fit["method"] == "dm"


def test_a_cell_fails_if_one_of_its_initialisations_does() -> None:
    runs = [Trained({}, Curves({}, {}, failed=failed), {}, {}) for failed in ({}, {(0, 1): "nan"}, {})]
    training = Training(runs, {(1, 1): "unfit"})
    assert training.failed == {(1, 1): "unfit", (0, 1): "initialisation 2 of 3: nan"}
    assert Training(runs[1:2], {}).failed == {(0, 1): "nan"}
