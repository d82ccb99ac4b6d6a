"""Convergence: curves whose answer is known, and the yardsticks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from suture import TaskRecipe
from suture.results.verdicts import list_causes
from suture.stitching import convergence
from suture.stitching.convergence import (
    collect_own_layers,
    compute_epoch_rates,
    find_unconverged,
    measure_improvement,
    merge_marks,
    stack_curves,
)
from suture.stitching.trainer import Curves

EPOCHS = np.arange(30)


def decay(constants: float, n: int = 30, end: float = 0.3, fall: float = 2.0) -> list[float]:
    """An exponential that has `constants` time constants behind it at its end."""
    return list(end + fall * np.exp(-constants * np.arange(n) / n))


def annealed(constants: float, n: int = 30) -> tuple[list[float], list[float]]:
    """The same in the time that a cosine schedule leaves, and the rates."""
    rates = compute_epoch_rates(TaskRecipe(epochs=n, schedule="cosine"))
    time = np.cumsum(rates) / np.sum(rates)
    return list(0.3 + 2 * np.exp(-constants * time)), rates


# -- the curve -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", [
    [0.7] * 30, decay(8), decay(8, 10), list(0.5 + 0.01 * EPOCHS), [0.7, 0.7], [0.7] * 3, [0.7, 0.8, 0.9],
    [2.0, *[0.5] * 29], list(1e-3 * (1 - EPOCHS / 60)), list(0.1 + 0.0015 * (1 - EPOCHS / 30)),
], ids=["flat", "done", "done, short", "rising", "two", "three", "three that rise", "one step", "tiny",
        "below floor"])
def test_these_have_converged(curve: list[float]) -> None:
    assert measure_improvement(curve) is None


@pytest.mark.parametrize(("curve", "share"), [
    (decay(0.7), 0.2), (decay(2), 0.08), (decay(3), 0.05), (list(2 - EPOCHS / 30), 0.2), (decay(1, 4), 0.2),
    ([2.0, 1.5], 0.4), ([2.0, 1.5, 1.2], 0.2), ([0.5, 0.9, 0.85, 0.8, 0.7, 0.6], 1.0)],
    ids=["half way", "two constants", "three constants", "line", "four epochs", "two", "three",
         "back from a rise"])
def test_these_are_still_improving(curve: list[float], share: float) -> None:
    found = measure_improvement(curve)
    assert found is not None
    assert share / 2 < found < share * 2
    # Units and a level do not matter, as long as the fall is no trifle.
    assert measure_improvement([5 + 3 * v for v in curve]) == pytest.approx(found)


def test_a_single_epoch_shows_nothing() -> None:
    assert measure_improvement([0.1]) == 1.0


@pytest.mark.parametrize("n", [8, 30, 100])
def test_noise_on_a_plateau_is_seldom_taken_for_a_fall(n: int) -> None:
    taken = 0
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(size=n)
        taken += measure_improvement(list(np.array(decay(60, n)) + 0.05 * noise)) is not None
    assert taken <= 0.08 * 200


def test_noise_does_not_hide_a_fall() -> None:
    found = [measure_improvement(list(np.array(decay(0.7)) + 0.01
                                      * np.random.default_rng(seed).normal(size=30))) for seed in range(50)]
    assert sum(f is not None for f in found) >= 48
    spiked = decay(0.7)
    spiked[26] = 9.0
    assert measure_improvement(spiked) is not None


def test_a_rate_that_ends_at_zero_does_not_pass_for_convergence() -> None:
    half, rates = annealed(1)
    assert half[-4] - half[-1] < 0.002, "the curve is flat at its end"
    assert measure_improvement(half) is None
    found = measure_improvement(half, rates)
    assert found is not None
    assert 0.1 < found < 0.3
    assert measure_improvement(*annealed(8)) is None


@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
def test_rates_of_epochs_are_relative_to_the_peak(schedule: Any) -> None:
    rates = compute_epoch_rates(TaskRecipe(epochs=20, lr=3.0, schedule=schedule))
    assert len(rates) == 20
    assert max(rates) == pytest.approx(1, abs=0.05)
    assert (rates[-1] < 0.05) == (schedule != "constant")


# -- the verdict on cells ------------------------------------------------------------------------------------


def curves(**kinds: list[float]) -> Curves:
    """Cells (0, 0), (1, 0), ... with these losses."""
    cells = {(k, 0): loss for k, loss in enumerate(kinds.values())}
    return Curves(cells, {c: [0.5] * len(loss) for c, loss in cells.items()})


def test_cells_are_marked_for_what_their_curve_shows() -> None:
    found = find_unconverged(curves(done=decay(8), on_the_way=decay(1)), TaskRecipe(epochs=30))
    assert list(found) == [(1, 0)]
    assert found[1, 0].startswith("still improving: the last fifth of training brought 1")
    assert find_unconverged(curves(one=[0.1]), TaskRecipe(epochs=1)) == {
        (0, 0): "one epoch: a single epoch cannot show convergence"}


def test_failed_cells_have_their_reason_and_no_mark() -> None:
    made = curves(on_the_way=decay(1))
    made.failed[0, 0] = "the task loss is not finite"
    assert find_unconverged(made, TaskRecipe(epochs=30)) == {}


def test_with_early_stopping_the_held_out_curve_decides_and_a_stop_is_an_end() -> None:
    recipe = TaskRecipe(epochs=30, patience=3)
    made = curves(overfits=decay(1), goes_on=decay(8), stopped=decay(1)[:12])
    made.held_out.update({(0, 0): [0.5] * 30, (1, 0): decay(1), (2, 0): decay(1)[:12]})
    made.stopped[2, 0] = 12
    assert list(find_unconverged(made, recipe)) == [(1, 0)]


def test_the_schedule_of_the_recipe_counts() -> None:
    half, _ = annealed(1)
    assert find_unconverged(curves(half=half), TaskRecipe(epochs=30)) == {}
    assert list(find_unconverged(curves(half=half), TaskRecipe(epochs=30, schedule="cosine"))) == [(0, 0)]


def test_an_own_layer_that_is_not_reached_marks_its_column() -> None:
    made = Curves({(i, j): decay(8) for i in range(2) for j in range(2)}, {})
    found = find_unconverged(made, TaskRecipe(epochs=30), own={"a": 0.979, "b": 0.98}, targets=["a", "b"])
    assert set(found) == {(0, 0), (1, 0)}
    assert all(f.startswith("own layer not reached: ") for f in found.values())
    assert "0.979" in found[0, 0]


def test_an_objective_above_direct_matchings_marks_the_cell() -> None:
    made = curves(a=decay(8), b=decay(8), c=decay(1))
    found = find_unconverged(made, TaskRecipe(epochs=30), ends={(0, 0): 0.52, (1, 0): 0.505, (2, 0): 0.9},
                  matched={(0, 0): 0.5, (1, 0): 0.5, (2, 0): 0.1})
    assert set(found) == {(0, 0), (2, 0)}
    assert "ends at 0.52, direct matching's layer has 0.5" in found[0, 0]
    assert list_causes(found[2, 0]) == ["still improving", "above direct matching"]


def test_marks_of_several_initialisations_say_how_many_they_concern() -> None:
    runs = [{(0, 0): "a: 1; b: 2", (0, 1): "b: 5"}, {(0, 0): "a: 1"}, {(0, 0): "a: 1; b: 3"}]
    assert merge_marks(runs) == {(0, 0): "a: 1; b: in 2 of 3 initialisations, 2",
                                 (0, 1): "b: in 1 of 3 initialisations, 5"}
    assert merge_marks(runs[:1]) == runs[0]
    assert list_causes(merge_marks(runs)[0, 0]) == ["a", "b"]


def test_own_layers_are_read_from_the_rows() -> None:
    def row(source: str, target: str, measure: str, value: float, reason: str = "") -> dict[str, Any]:
        return {"source": source, "target": target, "measure": measure, "value": value, "reason": reason}

    rows = [row("a", "a", "tlm.relative_accuracy", 0.9), row("a", "a", "tlm.agreement", 0.8),
            row("a", "b", "tlm.relative_accuracy", 0.1),
            row("b", "b", "tlm.relative_accuracy", math.nan, "no labels"),
            row("b", "b", "tlm.agreement", 0.7), row("a", "a", "dm.relative_accuracy", 1.0)]
    assert collect_own_layers(rows) == {"a": 0.9, "b": 0.7}


def test_curves_as_arrays_end_in_nan() -> None:
    made = Curves({(0, 0): [3.0, 2.0], (0, 1): [1.0]}, {(0, 0): [0.1, 0.2], (0, 1): [0.3]})
    arrays = stack_curves(made, (1, 2), 2)
    assert set(arrays) == {"tlm.loss", "tlm.train_accuracy"}
    np.testing.assert_array_equal(arrays["tlm.loss"], [[[3, 2], [1, np.nan]]])
    made.held_out[0, 0] = [0.5]
    np.testing.assert_array_equal(stack_curves(made, (1, 2), 2)["tlm.held_out"],
                                  [[[0.5, np.nan], [np.nan, np.nan]]])


# -- thresholds ----------------------------------------------------------------------------------------------


def test_thresholds_are_what_their_words_say() -> None:
    end = math.log(100)
    assert convergence.LEAST_SHARE == 0.01
    late = measure_improvement(decay(end * 1.3, 200))
    early = measure_improvement(decay(end * 0.6, 200))
    assert late is None
    assert early is not None
