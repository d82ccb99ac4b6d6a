"""What can be followed of a study while it runs: its log, callbacks, trackers, the live table."""

from __future__ import annotations

import io
import itertools
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

import suture
from suture import Study, SutureError, zoo
from suture.cli import study_display
from suture.cli.study_display import StudyDisplay
from suture.networks import Recipe
from suture.studies import FinishedPair, MLflow, WandB
from suture.studies.following.event_log import LOG, keep_log
from suture.studies.following.finished_pair import Callbacks
from suture.studies.network_study.layers import reduce_layers
from suture.studies.population.sources import FailedNetwork, TrainedNetwork
from suture.studies.running.engines import Outcome, Outcomes, Serial, run_task
from suture.studies.running.training_tasks import TrainTask
from suture.studies.spec.training import train_networks
from tests.support import tiny
from tests.support.comparisons import of_values

HOW: dict[str, Any] = {"methods": [], "indices": ["cka"], "device": "cpu", "sites": ["block1"]}


def broken() -> Any:
    raise ValueError("no\nweights")


def unfit() -> Any:
    return tiny.seeded(lambda: tiny.Tiny(5))


def run(**more: Any) -> Study:
    return suture.study({"a": tiny.network, "b": tiny.other, "c": unfit}, *tiny.data(),
                        **{"pairs": [("a", "b"), ("a", "c"), ("a", "a")], **HOW, **more})


def finished(left: int = 0, reason: str = "", **more: Any) -> FinishedPair:
    given: dict[str, Any] = {"about": ({"seed": 1}, {}), "key": f"k{left}", "seconds": 2.0,
                             "taken_over": False, "total": 3,
                             "load": lambda: of_values("cka", [[0.25]]), **more}
    return FinishedPair("a", "b", left=left, reason=reason, **given)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logging.LogRecord]]:
    """What is logged from now on."""
    found: list[logging.LogRecord] = []
    handler, before = logging.Handler(), LOG.level
    monkeypatch.setattr(handler, "emit", found.append)
    LOG.addHandler(handler)
    LOG.setLevel(logging.DEBUG)
    yield found
    LOG.setLevel(before)
    LOG.removeHandler(handler)


def test_the_log_has_pairs_failures_and_what_is_taken_over(tmp_path: Path,
                                                           events: list[logging.LogRecord]) -> None:
    with keep_log(tmp_path / "study.log"):
        run(folder=tmp_path)
    run(folder=tmp_path)
    levels = {(r.levelname, r.getMessage().split(":")[0].split(" failed")[0]) for r in events}
    assert {("INFO", "a into b"), ("WARNING", "a into c"), ("DEBUG", "a into b")} <= levels
    text = (tmp_path / "study.log").read_text()
    assert re.search(r"^\d{4}-\d\d-\d\d .* INFO a into b: \d+\.\d s; 2 of 3 pairs left$", text, re.MULTILINE)
    assert text.count("a into b") == 1  # nothing of the second run, nor of DEBUG
    with keep_log(tmp_path / "study.log"):
        LOG.info("more")
    assert (tmp_path / "study.log").read_text().startswith(text)
    with keep_log(tmp_path / "study.log" / "no.log"):  # cannot be written
        LOG.info("nothing")


def test_without_logging_set_up_nothing_is_printed() -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in LOG.handlers)
    assert LOG.level == logging.NOTSET


def test_callbacks_get_each_pair_and_their_errors_cost_nothing(tmp_path: Path,
                                                               events: list[logging.LogRecord]) -> None:
    seen: list[FinishedPair] = []

    def fail(pair: FinishedPair) -> None:
        raise ValueError("no tracker")

    made = run(folder=tmp_path, on_result=[fail, seen.append], about={"a": {"seed": 4}})
    assert [(p.source, p.target, p.left, p.total) for p in seen] == [
        ("a", "b", 2, 3), ("a", "c", 1, 3), ("a", "a", 0, 3)]
    assert seen[0].about == ({"seed": 4}, {})
    assert seen[0].seconds > 0
    assert seen[0].comparison is not None
    assert seen[0].comparison.table.equals(made.comparison("a", "b").table)
    assert seen[1].reason == made.failures["a", "c"]
    assert seen[1].comparison is None
    errors = [r for r in events if r.levelname == "ERROR"]
    assert len(errors) == 1  # once, of three
    note, = (note for note in made.meta["notes"] if "callback" in note)
    assert "failed 3 times" in note
    assert "ValueError: no tracker" in note
    again: list[FinishedPair] = []
    run(folder=tmp_path, on_result=again.append)
    assert [p.taken_over for p in again] == [True, True, False]
    assert run(on_result=seen.append).failures.keys() == made.failures.keys()
    assert seen[-1].seconds > 0  # also without a folder


def test_a_callback_is_a_function_and_is_closed() -> None:
    with pytest.raises(SutureError, match="on_result"):
        run(on_result=[3])
    closed: list[str] = []

    class Tracker:
        def __call__(self, pair: FinishedPair) -> None:
            raise KeyboardInterrupt

        def close(self) -> None:
            closed.append("closed")

    callbacks = Callbacks([Tracker()])
    with pytest.raises(KeyboardInterrupt), callbacks.open():
        callbacks.tell(finished())
    assert closed == ["closed"]


def test_mlflow_has_a_run_for_each_pair_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a real store of files on this machine."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    tracking = pytest.importorskip("mlflow.tracking")
    tracker = MLflow("mine", f"file://{tmp_path}/runs")
    made = run(on_result=tracker, about={"a": {"epoch (of 5)": 3}})
    assert not any("callback" in note for note in made.meta["notes"])
    run(on_result=MLflow("mine", f"file://{tmp_path}/runs"))  # knows what is there
    client = tracking.MlflowClient(f"file://{tmp_path}/runs")
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    done = [r for r in runs if r.info.status == "FINISHED"]
    assert sorted(r.info.run_name for r in done) == ["a into a", "a into b"]
    found = {r.info.run_name: r for r in done}
    value = reduce_layers(made.comparison("a", "b"), "cka", "diagonal").value
    assert found["a into b"].data.metrics["cka"] == pytest.approx(value)
    assert found["a into b"].data.params == {"source": "a", "target": "b", "source.epoch _of 5_": "3"}
    assert found["a into b"].info.end_time >= found["a into b"].info.start_time
    failed = [r for r in runs if r.info.status == "FAILED"]
    assert {r.data.tags["suture.failure"] for r in failed} == {made.failures["a", "c"]}


def test_mlflow_keeps_one_network_under_two_names_apart(tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """They have one key; words may have any letters."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    tracking = pytest.importorskip("mlflow.tracking")
    store = f"file://{tmp_path}/runs"
    callbacks = Callbacks([MLflow("mine", store)])
    one = finished(about=({"größe (m)": 1}, {}))
    for each in (one, replace(one, source="b"), one):
        callbacks.tell(each)
    assert not callbacks.notes
    client = tracking.MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert sorted(r.info.run_name for r in runs) == ["a into b", "b into b"]
    assert all(r.data.params["source.gr__e _m_"] == "1" for r in runs)


def test_wandb_has_a_step_for_each_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for its client."""
    steps: list[Any] = []

    def init(**given: Any) -> Any:
        steps.append(given)
        return SimpleNamespace(log=steps.append, finish=lambda: steps.append("finished"))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    tracker = WandB("mine", mode="offline")
    callbacks = Callbacks([tracker])
    with callbacks.open():
        callbacks.tell(finished(1))
        callbacks.tell(finished(reason="diverged"))
    assert steps == [{"project": "mine", "name": None, "mode": "offline", "dir": None},
                     {"source": "a", "source.seed": 1, "target": "b", "cka": 0.25, "seconds": 2.0},
                     {"source": "a", "source.seed": 1, "target": "b", "failure": "diverged", "seconds": 2.0},
                     "finished"]


@pytest.mark.parametrize(("kind", "extra"), [(MLflow, "mlflow"), (WandB, "wandb")])
def test_a_missing_tracker_is_one_line_before_the_study(kind: Any, extra: str,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suture._base.errors.importlib.import_module",
                        lambda name: (_ for _ in ()).throw(ModuleNotFoundError(name=name)))
    with pytest.raises(SutureError, match=rf"suture\[{extra}\]"):
        kind()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Seconds that pass between two looks at the clock."""
    step = SimpleNamespace(seconds=1.0)
    now = itertools.accumulate(iter(lambda: step.seconds, None))
    monkeypatch.setattr(study_display.time, "monotonic", lambda: next(now))
    return step


def test_without_a_terminal_a_line_comes_every_so_often(clock: Any) -> None:
    text = io.StringIO()
    with StudyDisplay(Console(file=text, width=200), every=10) as display:
        for left in range(30, 0, -1):
            display.tell(finished(left, total=31))
        clock.seconds = 20
        display.tell(finished(0, "out of memory", total=31))
    lines = text.getvalue().splitlines()
    assert len(lines) == 7  # the clock is asked twice a pair
    assert re.fullmatch(r"\d+ of 31 pairs, about \d+ (s|min) left", lines[0])
    assert lines[-1] == "31 of 31 pairs, 1 failed"


def test_the_table_of_a_terminal_shows_what_ended_and_what_runs(clock: Any) -> None:
    display = StudyDisplay(Console(file=io.StringIO(), force_terminal=True))
    for left in (9, 8):
        display.tell(finished(left, total=10))
    display.tell(finished(7, "[red]diverged", total=10))
    display.progress("a into d: moments", 2, 8)
    display.progress("a into d: opened", 8, 8)
    shown = Console(file=io.StringIO(), width=100)
    shown.print(display._draw())
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "3 of 10 pairs, 1 failed, about" in text
    assert "failed: [red]diverged" in text
    assert "2 of 8" in text
    assert "opened" not in text


class Counted:
    """An engine that notes its tasks."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def run(self, work: Any, store: Any, tasks: Sequence[Any], progress: Any) -> Outcomes:
        for task in tasks:
            self.seen.append(task)
            yield run_task(work, store, task, progress) if task.recipe.seed != 7 else Outcome(
                task, store.finish(task, "its worker was lost"))


def test_trainings_run_on_the_engine(tmp_path: Path, events: list[logging.LogRecord]) -> None:
    def give(seed: int, *epochs: int | None) -> dict[str, Any]:
        made = Recipe(epochs=2, batch_size=12, seed=seed)
        path = tmp_path / "networks" / f"s{seed}-0123.safetensors"
        return {f"s{seed}-epoch{k}": TrainedNetwork("resnet_digits", made, path, k) for k in epochs}

    engine, images = Counted(), tiny.image_sets()
    cpu = torch.device("cpu")
    made = train_networks({**give(0, 1, 2), **give(7, 1, 2)}, images, cpu, engine, tmp_path)
    assert [(type(t), t.pair[0], t.keep) for t in engine.seen] == [
        (TrainTask, "s0", (1, 2)), (TrainTask, "s7", (1, 2))]
    assert [type(source) for source in made.values()] == [TrainedNetwork] * 2 + [FailedNetwork] * 2
    with pytest.raises(SutureError, match="its training failed: its worker was lost"):
        made["s7-epoch1"].build()
    alone = zoo.train_network("resnet_digits", 0, Recipe(epochs=2, batch_size=12), images)[0].state_dict()
    one, two = (made[f"s0-epoch{k}"].build(images[0]).network.state_dict() for k in (1, 2))
    assert all(torch.equal(value, alone[name]) for name, value in two.items())
    assert not all(torch.equal(value, alone[name]) for name, value in one.items())
    logged = [r.getMessage() for r in events]
    assert any(re.fullmatch(r"training of s0: \d+\.\d s; 1 of 2 trainings left", text) for text in logged)
    assert any("training of s7 failed: its worker was lost" in text for text in logged)
    # An epoch that was not kept before is trained again, to the same weights, beside those that were.
    more = train_networks({**give(0, 0, 2)}, images, cpu, Serial(), tmp_path)
    again = more["s0-epoch2"].build(images[0]).network.state_dict()
    assert all(torch.equal(value, alone[name]) for name, value in again.items())
    assert sorted(zoo.list_epochs(tmp_path / "networks" / "s0-0123.safetensors")) == [0, 1, 2]


def test_an_interruption_of_trainings_says_what_is_kept(tmp_path: Path) -> None:
    class Stopped:
        def run(self, *given: Any) -> Outcomes:
            raise KeyboardInterrupt
            yield

    path = tmp_path / "networks" / "a-0.safetensors"
    given = {"a": TrainedNetwork("resnet_digits", Recipe(epochs=1), path)}
    with pytest.raises(KeyboardInterrupt, match="after 0 of 1 trainings"):
        train_networks(given, tiny.image_sets(), torch.device("cpu"), Stopped(), tmp_path)
