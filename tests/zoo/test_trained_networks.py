"""Trained networks from their folder, for a study."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import suture
from suture import SutureError, zoo
from suture.networks import Recipe
from tests.support.tiny import small_digits

RECIPE = Recipe(epochs=1, batch_size=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks with their first epoch, in the order of neither name nor seed, and other files."""
    made = tmp_path_factory.mktemp("trained")
    for name, seed, keep in (("a", 10, [0]), ("b", 9, [0, 1])):
        zoo.train_and_save("resnet_digits", made / f"{name}.safetensors", seed, RECIPE, small_digits(),
                           keep=keep)
    zoo.save_weights(nn.Linear(2, 2), made / "mine.safetensors", {"seed": "1"})
    (made / "notes.txt").write_text("mine")
    return made


def test_networks_are_listed_by_seed_and_epoch(folder: Path) -> None:
    networks, about = zoo.list_trained(folder)
    assert list(networks) == list(about) == ["b-epoch0", "b-epoch1", "a-epoch0", "a"]
    assert [(a["architecture"], a["seed"], a["epoch"]) for a in about.values()] == [
        ("resnet_digits", s, k) for s in (9, 10) for k in (0, 1)]
    for name, make in networks.items():
        file = zoo.read_weights(folder / f"{name}.safetensors")
        assert about[name]["accuracy"] == float(file.metadata["accuracy"])
        made = pickle.loads(pickle.dumps(make))()  # as a worker process gets it
        assert not made.training
        assert all(torch.equal(t, file.tensors[n]) for n, t in made.state_dict().items())


def test_names_hold_wherever_the_process_works(folder: Path, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    networks = zoo.list_trained(".").networks
    monkeypatch.chdir(tmp_path)
    assert isinstance(networks["a"](), nn.Module)


def test_a_study_takes_them(folder: Path) -> None:
    networks, about = zoo.list_trained(folder)
    made = suture.study(networks, *small_digits(), about=about, pairs="consecutive", methods=(),
                        indices="cka", sites=["layer1.0"], ood=None, device="cpu")
    assert list(made.comparisons) == [("b-epoch0", "b-epoch1"), ("b-epoch1", "a-epoch0"), ("a-epoch0", "a")]
    assert not made.failures
    wanted = suture.compare(networks["b-epoch0"](), networks["b-epoch1"](), *small_digits(), methods=(),
                            indices="cka", sites=["layer1.0"], ood=None, device="cpu")
    found = made.comparison("b-epoch0", "b-epoch1")
    np.testing.assert_array_equal(found.matrix("cka"), wanted.matrix("cka"))


def test_folders_without_trained_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SutureError, match=r"no trained network.*--seeds"):
        zoo.list_trained(tmp_path)
    with pytest.raises(SutureError, match=r"folder.*none"):
        zoo.list_trained(tmp_path / "none")
    zoo.save_weights(nn.Linear(2, 2), tmp_path / "mine.safetensors")
    with pytest.raises(SutureError, match=r"mine\.safetensors.*zoo.build"):
        zoo.load_trained(tmp_path / "mine.safetensors")
    os.truncate(tmp_path / "mine.safetensors", 100)
    with pytest.raises(SutureError, match=r"mine\.safetensors"):
        zoo.list_trained(tmp_path)
