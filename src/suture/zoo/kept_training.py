"""Training into files of weights, which goes on where it was stopped."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from suture._base import (
    FilePath,
    Keeper,
    Progress,
    Seed,
    SutureError,
    Whole,
    check_file,
    checked,
    display_progress,
    expect,
    fingerprint_network,
    hash_tensors,
    keep_file,
    log_event,
    name_callback,
)
from suture.networks import History, Recipe, compute_accuracy
from suture.zoo.image_sets import ImageSet
from suture.zoo.registry import Report, train_network
from suture.zoo.trained_networks import load_trained
from suture.zoo.weights import read_metadata, save_weights


class EpochNotKeptError(SutureError):
    """A training has an epoch behind it that was to be kept and was not."""


_WORDS = {"suture": "version of suture", "torch": "version of torch", "data": "data set"}
_RESTART = "write restart=True (--restart) to train it anew"


@checked
def train_and_save(name: str, path: FilePath, seed: Seed, recipe: Recipe, data: tuple[ImageSet, ImageSet],
                   progress: Progress | bool | None = None, *, device: str | torch.device = "cpu",
                   restart: bool = False, metadata: Mapping[str, str] | None = None,
                   keep: Collection[Whole] = ()) -> tuple[nn.Module, Report]:
    """Train a network of the zoo as `train_network` does, and save its weights.

    A checkpoint beside the file is written about every minute and when a signal comes. The same call goes on
    from it, to the same files. A training that is finished is taken over: its weights are loaded. The file is
    locked meanwhile.

    Args:
        path: the `.safetensors` file of the weights after the last epoch.
        progress: as for `train_network`.
        restart: start anew. The checkpoint and the files of an earlier training are removed when the training
            begins.
        metadata: saved with the weights, beside seed, epoch, recipe, accuracy and history of the network.
        keep: epochs after which the weights are saved as well, in files such as `NAME-epoch5.safetensors`
            beside `NAME.safetensors`. 0 is before training.

    Returns:
        The network and its `Report`; `seconds` are 0 if it was taken over.

    Raises:
        SutureError: as by `train_network`; the file cannot be written, another process writes to it, or there
            are files of another training.
    """
    path = check_file(path, ".safetensors")
    odd = next((k for k in keep if not 0 <= k <= recipe.epochs), None)
    expect(odd is None, f"epochs to keep from 0 to {recipe.epochs}", odd, "write a larger epochs=")
    key = make_training_key(name, seed, recipe, data[0])
    files = _Files(path, {k: v if isinstance(v, str) else json.dumps(v) for k, v in key.items()},
                   {"classes": str(data[0].classes), "channels": str(data[0].inputs.shape[1]),
                    **(metadata or {})}, data[1], tuple(keep))
    with (display_progress(name_callback("progress")(progress)) as shown,
          keep_file(path, restart, shown) as open_keeper):
        if not restart and files.find_finished():
            note = f"taken over: weights ({path.name})"
            log_event(note, of="train")
            if shown is not None:
                shown(note, 1, 1)
            return files.take_over(recipe, data, device)
        keeper = open_keeper(key, device)
        if not restart:
            files.check_earlier(keeper)

        def save_epoch(network: nn.Module, history: History) -> None:
            if restart and not history.losses:
                files.remove_epochs()
            files.save_epoch(network, history)

        made, report = train_network(name, seed, recipe, data, shown, device=device, keeper=keeper,
                                     on_epoch=save_epoch)
        files.save(path, made, report.history, report.accuracy)
    return made, report


@dataclass(frozen=True)
class _Files:
    """The files of a training: that of the last epoch, and one for each epoch that is kept.

    Attributes:
        path: of the last epoch.
        key: strings that decide the weights, saved with them.
        others: further strings to save.
        test: images of the accuracies.
        keep: epochs.
    """

    path: Path
    key: dict[str, str]
    others: dict[str, str]
    test: ImageSet
    keep: tuple[int, ...]

    def save(self, path: Path, network: nn.Module, history: History, accuracy: float) -> None:
        words = json.dumps([history.losses, history.accuracies])
        save_weights(network, path, {**self.key, **self.others, "accuracy": str(accuracy), "history": words,
                                     "epoch": str(len(history.losses))})

    def save_epoch(self, network: nn.Module, history: History) -> None:
        """Save the weights after an epoch, if it is kept."""
        epoch = len(history.losses)
        if epoch in self.keep:
            self.save(name_epoch(self.path, epoch), network, history,
                      compute_accuracy(network, self.test.inputs, self.test.labels))

    def find_finished(self) -> bool:
        """Return True if the training was finished before, with all epochs to keep.

        Raises:
            SutureError: files of another training, or an epoch is missing.
        """
        for path in (self.path, *list_epochs(self.path).values()):
            if path.exists():
                self._check_key(path)
        if not self.path.exists():
            return False
        self._check_epochs(self.keep)
        return True

    def check_earlier(self, keeper: Keeper) -> None:
        """Check that a training that was stopped left the epochs that come before its checkpoint."""
        checkpoint = keeper.load("train")
        if checkpoint is not None:
            done = checkpoint.about["position"]["steps"]
            self._check_epochs([k for k in self.keep if k <= done])

    def take_over(self, recipe: Recipe, data: tuple[ImageSet, ImageSet],
                  device: str | torch.device) -> tuple[nn.Module, Report]:
        """Load the network of the last epoch; its accuracy is computed anew."""
        network = load_trained(self.path).to(device)
        name, seed = self.key["network"], int(self.key["seed"])
        losses, accuracies = json.loads(read_metadata(self.path)["history"])
        accuracy = compute_accuracy(network, self.test.inputs, self.test.labels)
        return network, Report(name, seed, replace(recipe, seed=seed), data[0].name, data[1].name,
                               History(tuple(losses), tuple(accuracies)), accuracy, 0.0,
                               fingerprint_network(network))

    def remove_epochs(self) -> None:
        for path in list_epochs(self.path).values():
            path.unlink()

    def _check_key(self, path: Path) -> None:
        found = read_metadata(path)
        changed = next((k for k, v in self.key.items() if found.get(k) != v), None)
        if changed is not None:
            what = _WORDS.get(changed, changed)
            raise SutureError(f"{str(path)!r} holds weights of another {what}; choose another place, or "
                              f"{_RESTART}")

    def _check_epochs(self, epochs: Collection[int]) -> None:
        """Check that epochs which this training has behind it were kept."""
        missing = next((k for k in epochs if not name_epoch(self.path, k).exists()), None)
        if missing is not None:
            raise EpochNotKeptError(f"{str(self.path)!r} is trained further, and epoch {missing} was not "
                                    f"kept; leave it out of keep, or {_RESTART}")


def name_epoch(path: Path, epoch: int) -> Path:
    """Return the file of an epoch that is kept, beside that of the last one."""
    return path.with_name(f"{path.stem}-epoch{epoch}{path.suffix}")


def list_epochs(path: Path) -> dict[int, Path]:
    """Return the files of epochs that were kept beside that of the last one."""
    name = re.compile(re.escape(path.stem) + r"-epoch(\d+)\.safetensors")
    found = {int(named[1]): p for p in path.parent.iterdir() if (named := name.fullmatch(p.name))}
    return dict(sorted(found.items()))


def make_training_key(name: str, seed: int, recipe: Recipe, data: ImageSet) -> dict[str, Any]:
    """Return all that decides the weights that a training ends with, but for rounding, as JSON."""
    return {"network": name, "seed": seed, "recipe": replace(recipe, seed=seed).as_key(),
            "suture": version("suture"), "torch": torch.__version__,
            "data": hash_tensors([("inputs", data.inputs), ("labels", data.labels)])[:16]}
