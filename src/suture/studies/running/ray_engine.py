"""The engine that runs the tasks of a study on Ray: on this machine, or on a cluster."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from suture._base import FOREIGN, Progress, SutureError, describe_error, expect, import_optional
from suture.studies.running.engines import Outcome, Outcomes, note_failure, run_task
from suture.studies.running.processes import MOST_ATTEMPTS, require_store
from suture.studies.running.store import StudyStore
from suture.studies.running.tasks import PairTask, Work

_PATIENCE = 10.0
"""Seconds that a cluster has to answer."""
_WORKS: dict[str, Work] = {}
"""The work of this worker, by the object of Ray that it came from."""


@dataclass(frozen=True)
class Ray:
    """Runs tasks on Ray, which starts workers, and begins the tasks of a lost one again.

    Each worker gets networks and data once. The folder of the study must be the same for all machines.

    Attributes:
        address: of a cluster, such as "auto" or "ray://head:10001". None: workers of this machine, unless
            this process is connected already.
        workers: number of CPUs that Ray may use on this machine. None: all.
        cpus, gpus: that each task asks for.
    """

    address: str | None = None
    workers: int | None = None
    cpus: float = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        expect(self.workers is None or self.workers >= 1, "at least one worker", self.workers)

    def run(self, work: Work, store: StudyStore | None, tasks: Sequence[PairTask],
            progress: Progress | None) -> Outcomes:
        """Run tasks; see `Engine`. Stages within a pair are not reported."""
        store = require_store(store, "ray")
        ray = import_optional("ray", "ray", "engine='ray'")
        sent = work.replace(settings={k: v for k, v in work.settings.items() if k != "progress"})
        with self._connect(ray):
            shared, remote = ray.put(sent), ray.remote(_run)
            how = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": MOST_ATTEMPTS - 1}
            running = {remote.options(**how).remote(shared, shared.hex(), store, task, self.cpus): task
                       for task in tasks}
            try:
                while running:
                    done = ray.wait(list(running))[0][0]
                    yield self._read(ray, done, store, running.pop(done))
            finally:
                for left in running:
                    ray.cancel(left, force=True)

    def _read(self, ray: Any, done: Any, store: StudyStore, task: PairTask) -> Outcome:
        try:
            return ray.get(done)  # type: ignore[no-any-return]
        except ray.exceptions.RayError as error:
            return Outcome(task, note_failure(store, task, f"its worker failed: {describe_error(error)}"))

    @contextmanager
    def _connect(self, ray: Any) -> Iterator[None]:
        if ray.is_initialized():
            yield
            return
        try:
            _check_address(self.address)
            here: dict[str, Any] = ({} if self.address else
                                    {"num_cpus": self.workers, "include_dashboard": False})
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", **here)
        except FOREIGN as error:
            place = f"the cluster {self.address!r}" if self.address else "Ray on this machine"
            raise SutureError(f"cannot reach {place}: {describe_error(error)}; start it, or write "
                              "engine='serial'") from error
        try:
            if not self.address:
                self._check_resources(ray.cluster_resources())
            yield
        finally:
            ray.shutdown()

    def _check_resources(self, found: Mapping[str, float]) -> None:
        """Check that a pair can ever start on this machine; Ray itself would wait without end."""
        for kind, name, asked in (("CPU", "cpus", self.cpus), ("GPU", "gpus", self.gpus)):
            most = found.get(kind, 0)
            expect(asked <= most, f"{name} for each pair of at most {most:g}, what Ray has on this machine",
                   f"{asked:g}")


def _check_address(address: str | None) -> None:
    """Raise an `OSError` if nothing answers at a host and port; Ray itself would wait for minutes."""
    host, _, port = (address or "").rpartition("//")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()


def _run(work: Work, key: str, store: StudyStore, task: PairTask, cpus: float) -> Outcome:
    import torch

    torch.set_num_threads(max(1, int(cpus)))
    return run_task(_WORKS.setdefault(key, work), store, task)
