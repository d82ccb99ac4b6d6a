"""Comparisons with every kind of stage, which are killed or stopped in the middle of one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import suture
from suture.results import Comparison
from tests.support import tiny

OOD = suture.OOD(("mahalanobis", "neighbours", "energy"), auxiliary=tiny.images(40, seed=3) * 3 - 1,
                 energy=suture.EnergyRecipe(epochs=2, tune_epochs=1, batch_size=8))


class SlowLoader:
    """Batches of 8 examples; `before` is called before each with the number of batches so far."""

    def __init__(self, before: Callable[[int], object], n: int = 24, seed: int = 0) -> None:
        self.batches = tiny.batches(tiny.images(n, seed=seed), tiny.labels(n))
        self.before, self.read = before, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches:
            self.before(self.read)
            self.read += 1
            yield batch


def compare(folder: Path | None, before: Callable[[int], object] = lambda read: None,
            **options: Any) -> Comparison:
    """Compare two networks; `before` can end it in any pass."""
    given: dict[str, Any] = {"methods": ["dm", "tlm"], "indices": ["cka", "cka@pool", "rows"],
                             "device": "cpu", "tlm": suture.TaskRecipe(epochs=3, lr=1e-2), "ood": OOD,
                             "save_to": folder}
    return suture.compare(tiny.network(), tiny.other(), SlowLoader(before), SlowLoader(before, 16, 1),
                          **given | options)


def begin(work: Callable[[], object]) -> int:
    """Run `work` in a forked process, and return its number."""
    child = os.fork()
    if not child:
        code = 1
        try:
            torch.set_num_threads(1)
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def kill_after(seconds: float, work: Callable[[], object]) -> bool:
    """Run `work` in a forked process, and kill it (SIGKILL) after some time; return True if it was done."""
    child = begin(work)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, status
            return True
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
