"""Trainings into files: one that is stopped leaves the files of an unbroken one; a finished one is kept."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from suture import SutureError, zoo
from suture.networks import Recipe, compute_accuracy, training
from suture.zoo import kept_training, train_and_save
from tests.support.tiny import small_digits

NAME, RECIPE = "resnet_digits", Recipe(epochs=3, batch_size=16, crop=1, schedule="onecycle")
KEEP = (0, 2, 3)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a training with epochs kept, by name."""
    folder = tmp_path_factory.mktemp("unbroken")
    train_and_save(NAME, folder / "w.safetensors", 0, RECIPE, small_digits(), keep=KEEP)
    return read_files(folder)


def read_files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def stop_after(monkeypatch: pytest.MonkeyPatch, out: Path, steps: int, **options: Any) -> None:
    """Train with a signal in a step of 4 in each epoch."""
    set_rate, done = training.set_rate, []

    def count(*given: Any) -> float:
        done.append(given)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return set_rate(*given)

    with monkeypatch.context() as patched:
        patched.setattr(training, "set_rate", count)
        with pytest.raises(KeyboardInterrupt, match=r"kept in .*checkpoint-train"):
            train_and_save(NAME, out, 0, RECIPE, small_digits(), **options)


def test_kept_epochs_are_those_of_the_training(unbroken: dict[str, bytes], tmp_path: Path) -> None:
    """Epoch k is what a training of plain calls holds after k epochs; to keep it changes nothing."""
    assert set(unbroken) == {"w.safetensors", *(f"w-epoch{k}.safetensors" for k in KEEP)}
    fit, test = small_digits()
    seen = {}

    def note(network: torch.nn.Module, history: training.History) -> None:
        state = {name: t.clone() for name, t in network.state_dict().items()}
        seen[len(history.losses)] = state, compute_accuracy(network, *test.tensors), history

    report = zoo.train_network(NAME, 0, RECIPE, (fit, test), on_epoch=note)[1]
    plain = zoo.train_network(NAME, 0, RECIPE, (fit, test))[1]
    assert (report.fingerprint, report.history) == (plain.fingerprint, plain.history)
    for name, k in {"w": 3, **{f"w-epoch{k}": k for k in KEEP}}.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(unbroken[path.name])
        file = zoo.read_weights(path)
        state, accuracy, history = seen[k]
        assert file.tensors.keys() == state.keys()
        assert all(torch.equal(file.tensors[name], t) for name, t in state.items())
        assert file.metadata["epoch"] == str(k)
        assert float(file.metadata["accuracy"]) == accuracy
        assert len(history.losses) == k
    first = zoo.build(NAME, 0).state_dict()
    assert all(torch.equal(first[name], t) for name, t in seen[0][0].items())


@pytest.mark.parametrize("steps", [1, 4, 6, 12])
def test_a_stopped_training_goes_on_to_the_same_files(steps: int, unbroken: dict[str, bytes], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "w.safetensors"
    stop_after(monkeypatch, out, steps, keep=KEEP)
    assert "w.safetensors.checkpoint-train" in os.listdir(tmp_path)
    assert "w-epoch0.safetensors" in os.listdir(tmp_path)
    with pytest.raises(SutureError, match="restart"):
        train_and_save(NAME, out, 1, RECIPE, small_digits(), keep=KEEP)
    train_and_save(NAME, out, 0, RECIPE, small_digits(), keep=KEEP)
    assert read_files(tmp_path) == unbroken


def test_a_kill_between_files_leaves_the_same_files(unbroken: dict[str, bytes], tmp_path: Path) -> None:
    """Files of epochs without any checkpoint, as SIGKILL leaves them in the first minute."""
    for name in ("w-epoch0.safetensors", "w-epoch2.safetensors"):
        (tmp_path / name).write_bytes(unbroken[name])
    train_and_save(NAME, tmp_path / "w.safetensors", 0, RECIPE, small_digits(), keep=KEEP)
    assert read_files(tmp_path) == unbroken


def test_a_finished_training_is_taken_over(unbroken: dict[str, bytes], tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in unbroken.items():
        (tmp_path / name).write_bytes(content)
    wanted, report = zoo.train_network(NAME, 0, RECIPE, small_digits())
    monkeypatch.setattr(kept_training, "train_network", lambda *_, **__: pytest.fail("trains again"))
    for keep in (KEEP, (2,), ()):
        made, again = train_and_save(NAME, tmp_path / "w.safetensors", 0, RECIPE, small_digits(), keep=keep)
        assert dataclasses.replace(again, seconds=report.seconds) == report
        assert not made.training
    assert all(torch.equal(a, b) for a, b in zip(wanted.state_dict().values(), made.state_dict().values(),
                                                 strict=True))
    assert read_files(tmp_path) == unbroken


OTHER = {"recipe": {"recipe": dataclasses.replace(RECIPE, epochs=4)}, "seed": {"seed": 1},
         "smoothing": {"recipe": dataclasses.replace(RECIPE, label_smoothing=0.1)},
         "network": {"name": "resnet20"}, "data set": {"data": (small_digits()[0].subset(40),
                                                                small_digits()[1])}}


@pytest.mark.parametrize("files", ["w.safetensors", "w-epoch2.safetensors"])
@pytest.mark.parametrize("other", OTHER)
def test_files_of_another_training_are_refused(other: str, files: str, unbroken: dict[str, bytes],
                                               tmp_path: Path) -> None:
    (tmp_path / files).write_bytes(unbroken[files])
    given = {"name": NAME, "seed": 0, "recipe": RECIPE, "data": small_digits(), **OTHER[other]}
    word = "recipe" if other == "smoothing" else other
    with pytest.raises(SutureError, match=rf"{files}.* another {word}; .*restart") as e:
        train_and_save(path=tmp_path / "w.safetensors", **given)
    assert "\n" not in str(e.value)
    assert read_files(tmp_path) == {files: unbroken[files]}


@pytest.mark.parametrize(("keep", "words"), [
    ((0, 4), "from 0 to 3, got 4"), ((-1,), "-1"), ((0.5,), "0.5"), (3, "keep.*3"),
    ((1,), "epoch 1 was not")])
def test_epochs_that_cannot_be_kept_are_refused(keep: Any, words: str, unbroken: dict[str, bytes],
                                                tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(unbroken["w.safetensors"])
    with pytest.raises(SutureError, match=words):
        train_and_save(NAME, tmp_path / "w.safetensors", 0, RECIPE, small_digits(), keep=keep)


def test_an_epoch_before_a_checkpoint_is_refused_and_a_later_one_kept(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "w.safetensors"
    stop_after(monkeypatch, out, 6, keep=[0])
    with pytest.raises(SutureError, match="epoch 1 was not kept"):
        train_and_save(NAME, out, 0, RECIPE, small_digits(), keep=[0, 1])
    train_and_save(NAME, out, 0, RECIPE, small_digits(), keep=[2])
    assert sorted(os.listdir(tmp_path)) == ["w-epoch0.safetensors", "w-epoch2.safetensors", "w.safetensors"]


def test_a_restart_removes_the_epochs_of_an_earlier_training(unbroken: dict[str, bytes],
                                                             tmp_path: Path) -> None:
    for name, content in {**unbroken, "w-epochs.safetensors": b"mine"}.items():
        (tmp_path / name).write_bytes(content)
    train_and_save(NAME, tmp_path / "w.safetensors", 0, dataclasses.replace(RECIPE, epochs=1),
                   small_digits(), restart=True, keep=[1])
    assert sorted(os.listdir(tmp_path)) == ["w-epoch1.safetensors", "w-epochs.safetensors", "w.safetensors"]
