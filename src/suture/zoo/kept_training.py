"""Training into a file of weights, which goes on where it was stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from suture._base import Progress, check_file, hash_tensors, keep_file
from suture.networks import Recipe
from suture.zoo.image_sets import ImageSet
from suture.zoo.registry import Report, train_network
from suture.zoo.weights import save_weights


def train_and_save(name: str, path: str | Path, seed: int, recipe: Recipe, data: tuple[ImageSet, ImageSet],
                   progress: Progress | None = None, *, device: str | torch.device = "cpu",
                   restart: bool = False,
                   metadata: Mapping[str, str] | None = None) -> tuple[nn.Module, Report]:
    """Train a network of the zoo as `train_network` does, and save its weights.

    A checkpoint beside the file is written about every minute and when a signal comes. The same call goes on
    from it. The file is locked meanwhile.

    Args:
        path: the `.safetensors` file.
        restart: start anew, and remove the checkpoint of an earlier call when the training begins.
        metadata: saved with the weights, beside seed, accuracy and name of the network.

    Raises:
        SutureError: as by `train_network`; the file cannot be written, another process writes to it, or the
            checkpoint is of another training.
    """
    path = check_file(path, ".safetensors")
    with keep_file(path, restart, progress) as open_keeper:
        keeper = open_keeper(make_training_key(name, seed, recipe, data[0]), device)
        made, report = train_network(name, seed, recipe, data, progress, device=device, keeper=keeper)
        save_weights(made, path, {"seed": str(seed), "accuracy": str(report.accuracy), "network": name,
                                  **(metadata or {})})
    return made, report


def make_training_key(name: str, seed: int, recipe: Recipe, data: ImageSet) -> dict[str, Any]:
    """Return all that decides the weights that a training ends with, but for rounding, as JSON."""
    return {"network": name, "seed": seed, "recipe": dataclasses.asdict(recipe), "suture": version("suture"),
            "torch": torch.__version__,
            "data": hash_tensors([("inputs", data.inputs), ("labels", data.labels)])[:16]}
