"""A run into a folder is killed anywhere, and the same call ends in the result of an unbroken one."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import suture
from suture import SutureError
from suture._base import LOCK, Keeper, save_tensors
from suture._base.keeping import checkpoints
from suture._base.keeping.locks import find_start
from suture.numbers import NumericalError
from suture.ood import distances
from suture.results import Comparison
from tests.support import tiny
from tests.support.interruptions import assert_same_numbers
from tests.support.kept_runs import compare, kill_after

FILES = ["comparison.safetensors", "table.csv"]
SHORT: dict[str, Any] = {"methods": ["dm"], "indices": ["cka"], "ood": None}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoints, "_SHARE", 0)


@pytest.fixture(scope="module")
def whole() -> Comparison:
    return compare(None)


def send(sent: int, stage: str = "moments", at: int = 2) -> Callable[[str, int, int | None], None]:
    """Return a progress function that sends this process a signal in the middle of a stage."""
    def progress(now: str, done: int, total: int | None) -> None:
        if (now, done) == (stage, at):
            os.kill(os.getpid(), sent)

    return progress


@pytest.mark.usefixtures("always")
def test_a_run_that_is_killed_in_its_stages_ends_as_an_unbroken_one(tmp_path: Path,
                                                                    whole: Comparison) -> None:
    for stage, at in (("moments", 2), ("energy detectors", 2), ("natural range", 2),
                      ("task loss matching", 5), ("evaluating tlm", 2)):
        child = os.fork()
        if not child:
            try:
                compare(tmp_path / "out", progress=send(signal.SIGKILL, stage, at))
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    seen: list[str] = []
    made = compare(tmp_path / "out", progress=lambda stage, done, total: seen.append(stage))
    assert "went on from a checkpoint of evaluating tlm" in seen
    assert_same_numbers(made, whole)
    assert_same_numbers(suture.load(tmp_path / "out"), whole)
    assert sorted(os.listdir(tmp_path / "out")) == FILES


@pytest.mark.slow
@pytest.mark.usefixtures("always")
def test_twenty_kills_at_random_moments(tmp_path: Path, whole: Comparison) -> None:
    def run(folder: Path) -> None:
        compare(folder, lambda read: time.sleep(0.01))

    drawn, kills, began, folder = random.Random(0), 0, time.monotonic(), tmp_path / "unbroken"
    assert kill_after(600, lambda: run(folder))
    took, words = time.monotonic() - began, []
    for number in range(20):
        folder = tmp_path / str(number)
        while not kill_after(wait := drawn.uniform(0.1, 0.6) * took, lambda: run(folder)):  # noqa: B023
            kills += 1
            there = sorted(p.stem for p in folder.glob("*.safetensors"))
            words.append(f"run {number} killed after {wait:.1f} s with {', '.join(there) or 'nothing'}")
        assert_same_numbers(suture.load(folder), whole)
        assert sorted(os.listdir(folder)) == FILES
        if kills >= 20:
            break
    words.append(f"{kills} kills in {number + 1} runs of {took:.1f} s; all equal the unbroken run")
    print("", *words, sep="\n")  # noqa: T201
    assert kills >= 20


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_pass_that_runs_and_says_so(tmp_path: Path, whole: Comparison,
                                                       sent: signal.Signals) -> None:
    before = signal.getsignal(sent)
    with pytest.raises(KeyboardInterrupt, match=r"kept in .*: moments so far") as caught:
        compare(tmp_path, progress=send(sent))
    assert caught.value.number == sent  # type: ignore[attr-defined]
    assert signal.getsignal(sent) is before
    assert os.listdir(tmp_path) == ["checkpoint-moments.safetensors"]
    assert_same_numbers(compare(tmp_path), whole)


def test_a_schedule_over_data_of_unknown_length_goes_on(tmp_path: Path) -> None:
    class Stream:
        def __iter__(self) -> Iterator[Any]:
            return iter(tiny.batches(tiny.images(), tiny.labels()))

    def run(folder: Path, progress: Any = None) -> Comparison:
        return suture.compare(tiny.network(), data=Stream(), methods=["tlm"], indices=["cka"], ood=None,
                              tlm=suture.TaskRecipe(epochs=3, lr=0.1, schedule="onecycle"), device="cpu",
                              save_to=folder, progress=progress)

    unbroken = run(tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):  # in the second epoch, whose length the first one told
        run(tmp_path / "out", send(signal.SIGTERM, "task loss matching", 5))
    assert_same_numbers(run(tmp_path / "out"), unbroken)


@pytest.mark.usefixtures("always")
def test_the_reason_of_missing_scores_outlives_a_pass_that_was_done(tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NumericalError("no test decomposition")

    monkeypatch.setattr(distances, "eigh", fail)
    given: dict[str, Any] = SHORT | {"ood": suture.OOD(("mahalanobis", "neighbours"))}
    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path, progress=send(signal.SIGINT, "evaluating dm"), **given)
    assert (tmp_path / "checkpoint-evaluating-dm.safetensors").exists()
    made = compare(tmp_path, **given)
    assert set(made.matrix("dm.ood_mahalanobis", "reason").to_numpy().ravel()) == {"no test decomposition"}
    assert_same_numbers(made, compare(None, **given))


def test_a_second_signal_ends_the_run_at_once(tmp_path: Path) -> None:
    def twice(stage: str, done: int, total: int | None) -> None:
        if stage == "moments":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("still runs")

    with pytest.raises(KeyboardInterrupt, match="nothing was finished yet"):
        compare(tmp_path / "out", progress=twice, **SHORT)
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("always")
def test_data_that_come_otherwise_start_the_pass_anew_and_say_so(tmp_path: Path) -> None:
    class Shuffled:
        def __init__(self, stops: int) -> None:
            self.left, self.passes = stops, 0

        def __iter__(self) -> Iterator[Any]:
            self.passes += 1
            order = torch.randperm(24, generator=torch.Generator().manual_seed(self.passes))
            for batch in tiny.batches(tiny.images()[order], tiny.labels()[order]):
                self.left -= 1
                if not self.left:
                    raise KeyboardInterrupt
                yield batch

    test, seen = (tiny.images(12, seed=1), tiny.labels(12)), list[str]()
    how = {"indices": ["cka"], "methods": ["dm"], "ood": None, "device": "cpu", "save_to": tmp_path}
    first = Shuffled(0)
    suture.compare(tiny.network(), None, first, test, **how | {"save_to": None})
    reads = 0
    while "checkpoint-moments.safetensors" not in os.listdir(tmp_path):
        reads += 1
        with pytest.raises(KeyboardInterrupt):
            suture.compare(tiny.network(), None, Shuffled(reads), test, **how)
    late = Shuffled(0)
    late.passes = 50
    made = suture.compare(tiny.network(), None, late, test, **how, progress=lambda s, d, t: seen.append(s))
    assert [s for s in seen if "started moments anew: the data did not come as they did before" in s]
    assert made.meta["n_fit"] == 24


@pytest.mark.parametrize(("stage", "at", "changed"),
                         [("indices", 4, 0), ("intervals", 2, 0), ("natural range", 2, 1)])
def test_what_was_made_from_data_that_have_changed_starts_anew(
        stage: str, at: int, changed: int, tmp_path: Path) -> None:
    def run(folder: Path | None, images: list[torch.Tensor], progress: Any = None) -> Comparison:
        fit, test = ((x, tiny.labels(len(x))) for x in images)
        return suture.compare(tiny.network(), tiny.other(), fit, test, methods=["dm"], indices=["cka"],
                              ood="mahalanobis", jackknife=5, device="cpu", save_to=folder, progress=progress)

    old = [tiny.images(24), tiny.images(16, seed=1)]
    new = [x.clone() for x in old]
    new[changed][10:] = tiny.images(len(new[changed]) - 10, seed=7)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, old, send(signal.SIGINT, stage, at))
    assert (tmp_path / f"checkpoint-{stage.replace(' ', '-')}.safetensors").exists()
    seen: list[str] = []
    made = run(tmp_path, new, lambda now, done, total: seen.append(now))
    assert f"started {stage} anew: the data did not come as they did before" in seen
    assert_same_numbers(made, run(None, new))


def test_checkpoints_of_another_run_are_refused_and_restart_removes_them(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path, progress=send(signal.SIGINT), **SHORT)
    with pytest.raises(SutureError, match=r"checkpoint-moments\.safetensors.*restart"):
        compare(tmp_path, **SHORT | {"seed": 5})
    compare(tmp_path, **SHORT | {"seed": 5}, restart=True)
    assert sorted(os.listdir(tmp_path)) == FILES


def fail_at(number: int) -> Callable[[int], None]:
    def fail(read: int) -> None:
        if read == number:
            raise ValueError("damaged")

    return fail


@pytest.mark.parametrize(("before", "options"), [
    (None, {"sites": ["nowhere"]}), (None, {"task": "next_token"}), (fail_at(3), {}),
    (fail_at(1), {"task": "none"}), (None, {"progress": send(signal.SIGINT)})])
def test_restart_gives_up_no_result_before_the_new_run_has_one(tmp_path: Path, before: Any,
                                                               options: dict[str, Any]) -> None:
    old = compare(tmp_path, **SHORT)
    with pytest.raises((SutureError, KeyboardInterrupt)):
        compare(tmp_path, before or (lambda read: None), **SHORT | options | {"restart": True})
    assert suture.load(tmp_path).equals(old)
    if "progress" not in options:
        seen: list[str] = []
        made = compare(tmp_path, **SHORT, progress=lambda stage, done, total: seen.append(stage))
        assert_same_numbers(made, old)
        assert seen[0].startswith("checking")  # and not computed again


@pytest.mark.usefixtures("always")
def test_a_restarted_run_goes_on_without_restart(tmp_path: Path) -> None:
    other = SHORT | {"seed": 5, "indices": ["cka@flatten"]}
    compare(tmp_path, **SHORT)
    with pytest.raises(KeyboardInterrupt, match="moments so far; the same call without restart goes on"):
        compare(tmp_path, **other, restart=True, progress=send(signal.SIGINT))
    with pytest.raises(SutureError, match="restart"):
        compare(tmp_path, **SHORT)  # the checkpoint is of the other run
    seen: list[str] = []

    def stop(stage: str, done: int, total: int | None) -> None:
        seen.append(stage)
        send(signal.SIGINT, "evaluating dm")(stage, done, total)

    with pytest.raises(KeyboardInterrupt, match=r"kept in .*: moments, evaluating dm so far; the"):
        compare(tmp_path, **other, progress=stop)
    assert "went on from a checkpoint of moments" in seen
    seen.clear()
    compare(tmp_path, **other, progress=lambda stage, done, total: seen.append(stage))
    assert "went on from a checkpoint of evaluating dm" in seen
    assert "moments" not in seen  # which its own result holds
    assert_same_numbers(suture.load(tmp_path), compare(None, **other))
    assert sorted(os.listdir(tmp_path)) == FILES


@pytest.mark.parametrize("restart", [False, True])
def test_checkpoints_of_others_are_never_removed(tmp_path: Path, restart: bool) -> None:
    compare(tmp_path, **SHORT)
    save_tensors(tmp_path / "checkpoint-1000.safetensors", "mine/1", {"x": torch.ones(1)}, {})
    with pytest.raises(SutureError, match="holds 'checkpoint-1000"):
        compare(tmp_path, **SHORT, restart=restart)
    (tmp_path / "checkpoint-1000.safetensors").rename(tmp_path / "checkpoint-moments.safetensors")
    keeper = Keeper(tmp_path)
    keeper.remove_all()
    assert keeper.has("moments")


def test_a_lock_that_is_taken_over_is_announced_once(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(json.dumps({"process": 2**22 + 1, "host": socket.gethostname()}))
    seen: list[str] = []
    compare(tmp_path, **SHORT | {"methods": ()}, progress=lambda stage, done, total: seen.append(stage))
    assert seen.count(f"the lock of process {2**22 + 1}, which has ended, was taken over") == 1


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]), "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\0\0"),
    "gone": lambda path: path.unlink()}


@pytest.mark.parametrize(("name", "damage"), [
    *(("comparison.safetensors", damage) for damage in DAMAGES),
    *(("checkpoint-moments.safetensors", damage) for damage in ("longer", "gone"))])
def test_a_damaged_folder_names_the_file_and_restart_replaces_only_own_files(
        tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "out"
    if name.startswith("checkpoint"):
        with pytest.raises(KeyboardInterrupt):
            compare(folder, progress=send(signal.SIGINT), **SHORT)
    else:
        compare(folder, **SHORT)
    (folder / "report.html").write_text("kept")
    (folder / f".{name}.{'0' * 16}").touch()
    DAMAGES[damage](folder / name)
    if (folder / name).exists():
        with pytest.raises(SutureError, match=rf"{name}.*restart"):
            compare(folder, **SHORT)
    elif name in FILES:
        with pytest.raises(SutureError, match=r"table\.csv"):
            compare(folder, **SHORT)
        (folder / "table.csv").unlink()
    made = compare(folder, **SHORT, restart=True)
    assert made.equals(suture.load(folder))
    assert sorted(os.listdir(folder)) == [FILES[0], "report.html", FILES[1]]
    (folder / "mine.txt").touch()
    with pytest.raises(SutureError, match=r"mine\.txt"):
        compare(folder, **SHORT, restart=True)
    assert (folder / "mine.txt").exists()


@pytest.mark.parametrize("kind", ["foreign", "file", "dangling", "long", "locked"])
def test_a_bad_folder_is_found_before_any_pass(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "out"
    if kind == "file":
        folder.touch()
    elif kind == "dangling":
        folder.symlink_to("nowhere")
    elif kind == "long":
        folder = tmp_path / ("x" * 300)
    else:
        folder.mkdir()
        held = {"process": os.getppid(), "host": socket.gethostname(), "started": find_start(os.getppid())}
        (folder / ("mine.txt" if kind == "foreign" else LOCK)).write_text(json.dumps(held))
    with pytest.raises(SutureError):
        compare(folder, lambda read: pytest.fail("a batch was read"), **SHORT)


def test_saving_is_refused_while_another_process_holds_the_folder(tmp_path: Path) -> None:
    made = compare(None, **SHORT)
    (tmp_path / LOCK).write_text(json.dumps({"process": 1, "host": "elsewhere"}))
    with pytest.raises(SutureError, match="on host elsewhere"):
        made.save(tmp_path)


def test_a_file_of_somebody_else_with_our_name_is_never_removed(tmp_path: Path) -> None:
    save_tensors(tmp_path / "comparison.safetensors", "mine/1", {"x": torch.ones(1)}, {})
    with pytest.raises(SutureError):
        compare(tmp_path, **SHORT, restart=True)
    assert (tmp_path / "comparison.safetensors").exists()
