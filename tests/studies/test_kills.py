"""A study that is killed anywhere, and the same call ends in what an unbroken one gives."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import suture
from suture import Study
from suture.studies.network_study import call
from suture.studies.running import tasks
from tests.support import tiny
from tests.support.interruptions import assert_same_numbers
from tests.support.kept_runs import SlowLoader, begin

HOW: dict[str, Any] = {"methods": ["dm", "tlm"], "indices": ["cka"], "device": "cpu", "sites": ["block*"],
                       "ood": None, "tlm": suture.TaskRecipe(epochs=2, lr=1e-2)}
ROOT = str(Path(__file__).parents[2])


def rest(read: int) -> None:
    time.sleep(0.005)


def run(folder: Path | None, engine: Any = "serial", **more: Any) -> Study:
    given = {"a": tiny.network, "b": tiny.other, "c": tiny.network()}
    return suture.study(given, SlowLoader(rest), SlowLoader(rest, 16, 1), folder=folder, engine=engine,
                        **{**HOW, **more})


@pytest.fixture(scope="module")
def whole() -> Study:
    return run(None)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")]))


def note_words(work: Callable[[], object]) -> None:
    """Run `work`, and keep what an interruption says."""
    try:
        work()
    except KeyboardInterrupt as error:
        Path(os.environ["SUTURE_TEST_WORDS"]).write_text(str(error))
        raise


def find_workers(driver: int) -> list[int]:
    """Return the worker processes that a driver has started: its own children, or those of its Ray.

    Ray's agents are no workers: its whole node ends with one of them.
    """
    parents, found = {driver}, list[int]()
    for path in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name)):
        try:
            number, parent = int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])
            if parent in parents:
                parents.add(number)
                command = (path.parent / "cmdline").read_bytes()
                found += [number] * (b"spawn_main" in command
                                     or command.startswith((b"ray::IDLE", b"ray::_run")))
        except (OSError, ValueError):
            continue
    return found


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(ended: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not ended():
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_for_workers(workers: Sequence[int], whom: str) -> None:
    """Wait until all workers have ended; the error says which have not, after whose death."""
    try:
        wait_for(lambda: not any(map(is_alive, workers)))
    except AssertionError:
        left = {w: (Path(f"/proc/{w}/cmdline").read_bytes(), Path(f"/proc/{w}/stat").read_text()[:60],
                    Path(f"/proc/{w}/wchan").read_text()) for w in workers if is_alive(w)}
        raise AssertionError(f"after the death of {whom}: {left}") from None


def kill(driver: int, whom: str, drawn: random.Random) -> list[int]:
    """Kill the driver, one of its workers, or both; return the workers that there were."""
    workers = find_workers(driver)
    hit: Sequence[int] = {"driver": [driver], "worker": workers, "both": [driver, *workers]}[whom]
    if whom == "worker" and workers:
        hit = [drawn.choice(workers)]
    for process in hit:
        os.kill(process, signal.SIGKILL)
    return workers


def read_records(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("tasks/*.json")}


def assert_whole(folder: Path, whole: Study) -> None:
    made = Study.load(folder)
    assert made.pairs == whole.pairs
    for pair in whole.pairs:
        assert_same_numbers(made.comparison(*pair), whole.comparison(*pair))
    assert not list(folder.rglob("*.damaged-*"))


def kill_until_done(folder: Path, engine: str, waits: Callable[[], float], most: int,
                    drawn: random.Random, **more: Any) -> int:
    """Run a study until it is done, and kill it `most` times at most; records that there were must stay."""
    kills, known = 0, dict[str, bytes]()
    while True:
        driver = begin(lambda: run(folder, engine, **more))
        if kills < most:
            time.sleep(waits())
            done, status = os.waitpid(driver, os.WNOHANG)
            if not done:
                whom = drawn.choice(["driver", "worker", "both"]) if engine != "serial" else "driver"
                workers = kill(driver, whom, drawn)
                kills += 1
                status = os.waitpid(driver, 0)[1]
                assert status == (0 if whom == "worker" else signal.SIGKILL)
                wait_for_workers(workers, whom)
        else:
            status = os.waitpid(driver, 0)[1]
        now = read_records(folder)
        assert known == {name: now[name] for name in known}
        known = now
        if not status:
            return kills


SHORT: dict[str, Any] = {"methods": (), "pairs": "self"}


def test_kills_leave_no_trace(tmp_path: Path) -> None:
    whole = run(None, **SHORT)
    began = time.monotonic()
    run(tmp_path / "unbroken", **SHORT)
    took, drawn = time.monotonic() - began, random.Random(0)
    kill_until_done(tmp_path / "study", "serial", lambda: drawn.uniform(0.3, 0.7) * took, 2, drawn, **SHORT)
    assert_whole(tmp_path / "study", whole)


def note_compare(monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    """Note pairs in a file when they are compared in earnest, also in forked processes."""
    whole = tasks.compare

    def note(*given: Any, **named: Any) -> Any:
        with log.open("a") as file:
            file.write(" ".join(named["names"]) + "\n")
        return whole(*given, **named)

    monkeypatch.setattr(tasks, "compare", note)


def test_two_drivers_share_the_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note_compare(monkeypatch, tmp_path / "log")
    drivers = [begin(lambda: run(tmp_path / "study", **{**SHORT, "pairs": "all"})) for _ in range(2)]
    assert [os.waitpid(driver, 0)[1] for driver in drivers] == [0, 0]
    done = (tmp_path / "log").read_text().splitlines()
    assert sorted(done) == ["a a", "a b", "a c", "b b", "b c", "c c"]
    assert len(Study.load(tmp_path / "study").pairs) == 6


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["serial", "processes:2"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_says_what_is_kept_and_leaves_no_worker(
        engine: str, sent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUTURE_TEST_WORDS", str(tmp_path / "words"))
    driver = begin(lambda: note_words(lambda: run(tmp_path / "study", engine)))
    wait_for(lambda: len(list(tmp_path.glob("study/tasks/*.json"))) >= 2, 120)
    workers = find_workers(driver)
    assert bool(workers) == (engine != "serial")
    os.kill(driver, sent)
    assert os.waitpid(driver, 0)[1] == 1 << 8
    assert not any(map(is_alive, workers))
    words = (tmp_path / "words").read_text()
    assert re.fullmatch(r"interrupted after \d of 6 pairs, which are kept in '.*study'; the same call goes "
                        "on from there", words)
    assert not list(tmp_path.rglob("*.lock"))


def test_an_interruption_without_a_folder_says_so() -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "pairs":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match="after 1 of 3 pairs; nothing is kept") as caught:
        run(None, **SHORT, progress=stop)
    assert "\n" not in str(caught.value)


def test_an_interruption_before_the_first_pair_says_that_earlier_results_are_kept(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(call, "arrange", stop)
    with pytest.raises(KeyboardInterrupt, match=r"before the first pair; '.*study' keeps"):
        run(tmp_path / "study")


def test_a_suspended_holder_notices_that_its_claim_was_taken(tmp_path: Path) -> None:
    """Another process takes the claim in mid-pair, and ends without a word."""
    stages: list[str] = []

    def steal(stage: str, done: int, total: int | None) -> None:
        stages.append(stage)
        claims = list(tmp_path.glob("tasks/.*.claim.lock"))
        if "moments" in stage and len(stages) < 99:
            stages.extend([""] * 99)
            claims[0].write_text(json.dumps({"process": 2**22 + 1, "host": socket.gethostname()}))

    made = run(tmp_path, **SHORT, progress=steal)
    assert len(made.pairs) == 3
    assert "waiting for pairs of other processes" in stages
    assert made.table.equals(run(None, **SHORT).table)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["serial", "processes:2", "ray"])
def test_twenty_kills_at_random_moments(engine: str, tmp_path: Path, whole: Study) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    began = time.monotonic()  # the first one, of `whole`, has loaded what all need
    assert not os.waitpid(begin(lambda: run(tmp_path / "unbroken", engine)), 0)[1]
    took, drawn, kills, number = time.monotonic() - began, random.Random(0), 0, 0
    while kills < 20:
        kills += kill_until_done(tmp_path / str(number), engine, lambda: drawn.uniform(0.1, 0.8) * took,
                                 20 - kills, drawn)
        assert_whole(tmp_path / str(number), whole)
        number += 1
    print(f"\n{engine}: {kills} kills in {number} studies of {took:.1f} s; all equal the unbroken one")  # noqa: T201
