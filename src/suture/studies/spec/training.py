"""The networks that a study trains before its pairs."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from suture import zoo
from suture._base import FOREIGN, LockedError, Progress, SutureError, describe_error, hold_lock
from suture.studies.population.sources import FailedNetwork, TrainedNetwork

_WAIT = 0.5
"""Seconds between two looks at a training of another process."""


def train_networks(networks: Mapping[str, Any], images: tuple[zoo.ImageSet, zoo.ImageSet],
                   device: torch.device, progress: Progress | None = None) -> dict[str, Any]:
    """Train networks whose weights are missing or damaged.

    One whose training fails says why when it is built. A training goes on where it was stopped. One that
    another process works on is waited for.
    """
    made = dict(networks)
    waiting = [name for name, given in made.items() if isinstance(given, TrainedNetwork)]
    while waiting:
        busy = []
        for name in waiting:
            try:
                _train(made[name], images, device, _prefix(progress, name))
            except LockedError:
                busy.append(name)
            except FOREIGN as error:
                reason = str(error) if isinstance(error, SutureError) else describe_error(error)
                made[name] = FailedNetwork(f"its training failed: {reason}")
        if busy == waiting:
            time.sleep(_WAIT)
        waiting = busy
    return made


def _train(given: TrainedNetwork, images: tuple[zoo.ImageSet, zoo.ImageSet], device: torch.device,
           progress: Progress | None) -> None:
    with hold_lock(given.path, "writing"):
        if not is_trained(given.path):
            zoo.train_and_save(given.name, given.path, given.recipe.seed, given.recipe, images, progress,
                               device=device)


def is_trained(path: Path) -> bool:
    """Return True if a file holds whole weights; a damaged one is set aside."""
    if not path.exists():
        return False
    try:
        zoo.read_weights(path)
    except SutureError:
        with suppress(FileNotFoundError):
            path.rename(path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}"))
        return False
    return True


def _prefix(progress: Progress | None, name: str) -> Progress | None:
    if progress is None:
        return None
    tell = progress
    return lambda stage, done, total: tell(f"{name}: {stage}", done, total)
