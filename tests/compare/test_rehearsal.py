"""The dry run: what it passes, what it predicts, and a plan that is set up once."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

import suture
from suture.compare import make_ready
from suture.compare.records import Evaluation
from suture.compare.rehearsal.timing import Cost, _repeat_examples, measure_step
from suture.indices import INDICES, Request
from suture.stitching import Task
from tests.support import tiny
from tests.support.interruptions import assert_same_numbers

REHEARSAL, RUN, NULL_TIME = map(import_module, (
    "suture.compare.rehearsal.dry_run", "suture.compare.run", "suture.compare.rehearsal.null_time"))
GIVEN: dict[str, Any] = {"device": "cpu", "methods": ["dm", "tlm"], "tlm": tiny.RECIPE, "indices": ["cka"]}


@pytest.fixture
def set_ups(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The set-ups that are made while a test runs."""
    made: list[object] = []
    for module in (REHEARSAL, RUN):
        original = module.set_up
        monkeypatch.setattr(module, "set_up", lambda *a, of=original: made.append(of(*a)) or made[-1])
    return made


def test_a_plan_is_estimated_and_run_with_one_set_up(set_ups: list[object]) -> None:
    data, test = tiny.data()
    given = GIVEN | {"methods": ["dm"], "ood": None}
    ready, heard = make_ready(tiny.network(), None, data, test, **given), []
    assert set(ready.estimate().seconds) == {"moments", "dm"}
    found = ready.run(lambda *a: heard.append(a[0]))
    assert len(set_ups) == 1
    assert "moments" in heard
    assert_same_numbers(found, suture.compare(tiny.network(), None, data, test, **given))


@pytest.mark.parametrize("recipe", [{}, {"optimizer": "sgd", "flip": True}, {"objective": "match"}])
def test_a_dry_run_makes_no_optimiser_whose_import_takes_seconds(
        recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("an optimiser")

    monkeypatch.setattr(torch.optim.Optimizer, "__init__", fail)
    data, test = tiny.data()
    given = GIVEN | {"tlm": suture.TaskRecipe(epochs=3, **recipe), "ood": None}
    seconds = suture.dry_run(tiny.network(), None, data, test, **given).seconds
    assert seconds["tlm"] is not None
    assert seconds["dm"] is not None
    assert seconds["tlm"] > seconds["dm"] > 0


def test_results_of_one_cell_are_repeated_to_time_its_scores() -> None:
    cells = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    found = Evaluation(Task.CLASSIFICATION, np.array([4]), None, np.ones(4, bool),
                       np.ones(4, np.float32), 0, cells > 5, None, None, None, {(1, 2): 3}, {}, cells[0],
                       cells[0], cells)
    made = _repeat_examples(found, 6)
    assert made.examples == 6
    assert made.error.shape == (1, 1, 6)
    assert made.error[0, 0].tolist() == [0, 1, 2, 3, 0, 1]
    assert made.scale.shape == (1, 6)
    assert not made.broken


def test_a_step_counts_every_layer() -> None:
    setup = make_ready(tiny.network(), None, tiny.data()[0], device="cpu", methods=["dm"], ood=None).setup
    layers = [setup.make_layer((0, 0)).init_random(0) for _ in range(3)]
    assert 0 < measure_step(layers[:1]) < 1
    assert measure_step([]) == 0


@pytest.mark.parametrize("option", ["groups", "within"])
def test_labels_of_few_examples_are_estimated_as_they_are_run(option: str) -> None:
    given: dict[str, Any] = {"methods": (), "indices": ["cka@within", "cka@pool"], "nulls": 9,
                             "device": "cpu", option: np.arange(10) // 2}
    ready = make_ready(tiny.network(), tiny.other(), (tiny.images(10), tiny.labels(10)), **given)
    assert ready.estimate().state == ready.setup.make_accumulators().nbytes_planned
    assert ready.run().meta["n_fit"] == 10


@pytest.mark.parametrize("methods", [["dm"], ["tlm"], ["dm", "tlm"]])
def test_the_first_method_has_the_time_of_the_natural_range(methods: list[str],
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(work: Callable[[int], object], tried: int, *given: object) -> Cost:
        work(tried)
        return Cost(0.0, 1.0)

    monkeypatch.setattr(REHEARSAL, "measure_cost", measure)
    monkeypatch.setattr(REHEARSAL, "count_shifted_examples", lambda *given: 10**9)
    given = GIVEN | {"methods": methods, "ood": suture.OOD(())}
    seconds = suture.dry_run(tiny.network(), None, *tiny.data(), **given).seconds
    long = [name for name, s in seconds.items() if s is not None and s > 1e8]
    assert long == methods[:1]


@pytest.mark.parametrize(("names", "nulls", "predicted"), [
    (["r2", "jaccard:2@pool", "r2@within"], 9, True), ("cka@flatten", 9, False), ("r2", 0, False),
])
def test_permutations_are_predicted(names: Any, nulls: int, predicted: bool) -> None:
    given: dict[str, Any] = GIVEN | {"methods": (), "indices": names}
    seconds = suture.dry_run(tiny.network(), tiny.other(), (tiny.images(40), tiny.labels(40)), nulls=nulls,
                             **given).seconds
    assert ("nulls" in seconds) == predicted
    assert all(s is not None and s > 0 for s in seconds.values())


def test_the_time_of_permutations_grows_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 0.5, 2.1] * 4)
    monkeypatch.setattr(NULL_TIME, "measure_seconds", lambda work, *given: next(times))
    for draws, expected in ((9, 1.0 + 8 * 0.2), (200, 1.0 + 199 * 0.2)):
        found = NULL_TIME._time_cell([Request(INDICES["r2"])], "pool", (20, 2, 3), draws)
        assert found == pytest.approx(expected)
