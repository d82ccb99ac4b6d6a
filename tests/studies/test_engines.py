"""Engines of a study: the same numbers everywhere, and workers that are lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import Future
from multiprocessing import Pipe
from pathlib import Path
from threading import Event, Lock, Thread
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

import suture
from suture import Study, SutureError
from suture.studies import Ray
from suture.studies.running import processes
from suture.studies.running.engine_choice import find_engine
from suture.studies.running.engines import Outcome
from suture.studies.running.tasks import PairTask
from tests.support import tiny

HOW: dict[str, Any] = {"methods": [], "indices": ["cka"], "device": "cpu", "sites": ["block*"]}
MARK = "SUTURE_TEST_MARK"


def kill_once() -> nn.Module:
    """Build a network; the first worker that does is killed."""
    mark = Path(os.environ[MARK])
    if not mark.exists() and os.environ.get("SUTURE_TEST_DRIVER") != str(os.getpid()):
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return tiny.other()


def kill_always() -> nn.Module:
    """Build a network in the process that asked for the study; every other one is killed."""
    if os.environ["SUTURE_TEST_DRIVER"] != str(os.getpid()):
        os.kill(os.getpid(), signal.SIGKILL)
    return tiny.other()


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    monkeypatch.setenv("SUTURE_TEST_DRIVER", str(os.getpid()))
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))


def run(engine: Any, folder: Path | None, networks: Any = None, **more: Any) -> Study:
    given = {"a": tiny.network, "b": tiny.other, "c": tiny.network()} if networks is None else networks
    return suture.study(given, *tiny.data(), folder=folder, engine=engine, **{**HOW, **more})


@pytest.mark.parametrize("start", ["forkserver", pytest.param("spawn", marks=pytest.mark.slow)])
def test_processes_give_the_same_numbers_and_replace_a_lost_worker(
        start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of a fork server get networks and data as those that are spawned do, and import once."""
    context = multiprocessing.get_context(start)
    context.set_forkserver_preload(["suture.studies.running.tasks", "tests.support.tiny", "pandas"])
    monkeypatch.setattr(processes, "get_context", lambda _: context)
    given = {"a": tiny.network, "b": kill_once, "c": tiny.network()}
    made = run("processes:2", tmp_path / "study", given)
    assert (tmp_path / "mark").exists()
    assert not made.failures
    assert made.table.equals(run("serial", None).table)


@pytest.mark.slow
def test_a_pair_whose_worker_always_ends_fails_and_the_others_do_not(tmp_path: Path) -> None:
    made = run("processes:2", tmp_path, {"a": tiny.network, "b": kill_always}, pairs="directed")
    assert set(made.pairs) == {("a", "a")}
    assert all("3 times" in reason for reason in made.failures.values())


@pytest.mark.slow
def test_ray_gives_the_same_numbers_and_replaces_a_lost_worker(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    given = {"a": tiny.network, "b": kill_once, "c": tiny.network()}
    made = run(Ray(workers=2), tmp_path / "study", given)
    assert (tmp_path / "mark").exists()
    assert not made.failures
    assert made.table.equals(run("serial", None).table)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:70000"])
def test_a_cluster_that_does_not_answer(address: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(SutureError, match=r"127\.0\.0\.1") as error:
        run(f"ray:{address}", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("engine", "named"), [
    ("slurm", "slurm"), ("processes:none", "none"), ("processes:0", "0"), ("serial:2", "serial:2"),
    ("ray:0", "workers"), ("ray:-2", "workers"), ("ray:1.5", "workers"), (3, "int")])
def test_engines_that_do_not_exist(engine: Any, named: str) -> None:
    with pytest.raises(SutureError, match=named):
        find_engine(engine)


def test_a_bare_number_is_that_of_workers_and_no_address() -> None:
    assert find_engine("ray:4") == Ray(workers=4)
    assert find_engine("processes:4") == processes.Processes(4)
    assert find_engine("ray:10.0.0.1:6379") == Ray("10.0.0.1:6379")


def test_a_worker_never_sees_the_interruption_of_a_terminal() -> None:
    """A worker inherits the signals that are blocked when it is started, and would print its traceback."""
    masks = list[set[int]]()

    class Pool:
        def submit(self, *_: Any) -> Future[str]:
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
            done: Future[str] = Future()
            done.set_result("outcome")
            return done

    assert list(processes._run_pool(Pool(), ["task"], {}, 1)) == ["outcome"]  # type: ignore[arg-type, list-item]
    assert signal.SIGINT in masks[0]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_what_no_machine_can_run_is_refused_and_not_waited_for() -> None:
    for make in (Ray, processes.Processes):
        with pytest.raises(SutureError, match="at least one worker"):
            make(workers=0)
    ended = list[bool]()
    ray = SimpleNamespace(is_initialized=lambda: False, init=lambda **_: None,
                          cluster_resources=lambda: {"CPU": 2.0}, shutdown=lambda: ended.append(True))
    with pytest.raises(SutureError, match="gpus for each pair of at most 0"), Ray(gpus=0.5)._connect(ray):
        pass
    with pytest.raises(SutureError, match="cpus for each pair of at most 2"), Ray(cpus=4)._connect(ray):
        pass
    with Ray(cpus=2)._connect(ray):
        pass
    assert len(ended) == 3


def test_what_cannot_be_sent_is_named(tmp_path: Path) -> None:
    with pytest.raises(SutureError, match="'b'"):
        run("processes", tmp_path, {"a": tiny.network, "b": lambda: tiny.other()})
    with pytest.raises(SutureError, match="folder"):
        run("processes", None)


def test_without_ray_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(SutureError, match="ray"):
        run("ray", tmp_path)


def test_a_worker_that_is_closed_before_its_task_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while workers start: the driver waits for the task, and the worker for the end of the driver."""
    waits, ended = Event(), Event()
    driver = SimpleNamespace(is_alive=lambda: waits.set() or not ended.is_set())
    monkeypatch.setattr(processes, "parent_process", lambda: driver)
    monkeypatch.setattr(processes, "_STOP", Event())
    monkeypatch.setattr(processes, "_BUSY", Lock())
    monkeypatch.setattr(processes.os, "_exit", lambda code: None)
    watched, closed = Pipe(duplex=False)
    closed.close()
    watcher = Thread(target=processes._end_with, args=(watched,), daemon=True)
    watcher.start()
    assert waits.wait(10)
    found: list[Outcome] = []
    task = Thread(target=lambda: found.append(processes._run(PairTask(("a", "b"), ""))), daemon=True)
    task.start()
    task.join(5)
    ended.set()
    watcher.join()  # as it ends its process, once os._exit is the real one again
    assert [outcome.record for outcome in found] == [None]
