"""What is asked of `suture.reproduce`: experiments, files, data, seeds, and records part by part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

import suture
from suture import SutureError
from suture._base import SutureWarning
from suture.studies import ReproduceOptions, StudyFile, plan_reproduction, read_reproduction
from suture.studies.experiments.call import RECORDS, describe_machine, leave_out_lacking, run_experiment
from suture.studies.experiments.experiment import Experiment, Part
from suture.studies.experiments.first_seeds import keep_seeds
from suture.studies.experiments.record import Found, Record, read_parts
from suture.studies.experiments.scale_files import choose_files, find_scale
from suture.studies.spec.toml_file import TomlFile


@pytest.mark.parametrize(("asked", "names"), [
    (["e3", "E1"], ["E1", "E3"]), ("E5", ["E5", "E5-back"]), ("E5-BACK.toml", ["E5-back"]),
    (["E5", "E5.toml"], ["E5", "E5-back"]), (("E5.toml", "d"), ["E5", "D"])])
def test_experiments_and_files_are_chosen_in_their_order(asked: Any, names: list[str]) -> None:
    assert [file.path.stem for file in choose_files(asked, find_scale("tiny"))] == names


@pytest.mark.parametrize(("asked", "named"), [
    ("E99", "E99"), ("E5-bakc.toml", "E5-back.toml"), ("base.toml", "base.toml"), ([], r"\[\]"), (7, "7"),
    ([None], "None"), (["all", "E1"], "'all'")])
def test_what_is_no_experiment_is_named(asked: Any, named: str) -> None:
    with pytest.raises(SutureError, match=named):
        choose_files(asked, find_scale("tiny"))


def test_there_is_no_such_scale() -> None:
    with pytest.raises(SutureError, match="huge"):
        suture.reproduce("E1", scale="huge")


@pytest.mark.parametrize(("scale", "data", "named"), [
    ("small", {"cifra10": "."}, "cifra10.*cifar10"), ("tiny", {"cifar10": "."}, "tiny needs none"),
    ("small", {"cifar10": "nowhere"}, "'nowhere'"), ("small", {"cifar10": 7}, "cifar10.*int"),
    ("small", "data/cifar10", "'data/cifar10'")])
def test_paths_of_data_are_checked_before_any_work(scale: str, data: Any, named: str) -> None:
    with pytest.raises(SutureError, match=named):
        suture.reproduce("E1", scale=scale, data=data)


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = ReproduceOptions("E1", scale="small", data={"cifar10": "~"}).choose_files()
    assert asked[0].paths == {"cifar10": str(tmp_path)}


def choose(*names: str, data: tuple[str, ...] = (), scale: str = "paper") -> Any:
    return ReproduceOptions(names, scale=scale, data=dict.fromkeys(data, ".")).choose_files()


def test_a_file_without_data_is_left_out_beside_one_that_has_them() -> None:
    asked = choose("E1", "E2", data=("cifar10", "random_images", "svhn"))
    with pytest.warns(SutureWarning, match="E1-imagenet.toml .*--data imagenet=PATH"):
        found = leave_out_lacking(asked, "paper")
    assert [each.file.path.name for each in found] == ["E1.toml", "E1-vit.toml", "E2.toml"]


def test_an_experiment_without_data_names_all_that_its_first_file_needs() -> None:
    with pytest.raises(SutureError, match=r"E1 and E3 .*--data random_images=PATH --data svhn=PATH$"):
        leave_out_lacking(choose("E1", "E3", "E9", data=("cifar10",)), "paper")


@pytest.mark.parametrize("name", ["E4", "E7", "E9", "E11", "D"])
def test_experiments_without_detectors_need_no_data_of_detectors(name: str) -> None:
    assert not any(each.lacks for each in choose(name, data=("cifar10",)))


def test_a_plan_goes_as_far_as_data_go(tmp_path: Path) -> None:
    found = plan_reproduction(ReproduceOptions("all", scale="paper", folder=tmp_path))
    assert {part.path.name: part.lacks for part in found if part.experiment in ("E5", "E9")} == {
        "E5.toml": ("cifar10", "svhn"), "E5-back.toml": ("svhn", "cifar10"), "E9.toml": ("cifar10",)}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "n", "pairs"), [
    ("E1", 2, [(0, 0), (1, 1)]), ("E2", 3, [(0, 1), (1, 2)]), ("E3", 2, [(0, 0), (1, 1), (0, 1)]),
    ("E1", 99, [(k, k) for k in range(10)])])
def test_the_first_seeds_are_kept(name: str, n: int, pairs: list[tuple[int, int]]) -> None:
    paths = dict.fromkeys(("cifar10", "random_images", "svhn"), ".")
    file = keep_seeds(TomlFile.read(find_scale("paper") / f"{name}.toml").fill(paths), n)
    wanted = {(f"resnet18-seed{a}", f"resnet18-seed{b}") for a, b in pairs}
    assert set(StudyFile.of(file).list_pairs()) == wanted


def test_one_seed_has_no_pairs_of_seeds() -> None:
    with pytest.raises(SutureError, match=r"first 1 seeds in E2.toml"):
        keep_seeds(TomlFile.read(find_scale("paper") / "E2.toml"), 1)


class Told(Experiment):
    """An experiment whose parts find what they are told, or fail."""

    name = "E5"

    def __init__(self, values: dict[str, float]) -> None:
        self.values = values

    def run(self, part: Part) -> Found:
        return Found({"t": pd.DataFrame({"x": [self.values[part.name]]})}, {"n": part.name})

    def judge_claims(self, record: Record) -> Any:
        return ()


def run_told(folder: Path, values: dict[str, float], parts: tuple[str, ...]) -> dict[str, Any]:
    given = ReproduceOptions("E5", folder=folder)
    spec: Any = SimpleNamespace(settings=SimpleNamespace(torch_device=torch.device("cpu")))
    run_experiment(Told(values), [Part(name, spec) for name in parts], given)
    kept = read_parts(given.place / RECORDS / "E5")
    return {name: found.tables["t"]["x"].tolist() for name, found in kept.items()}


def test_a_record_is_written_part_by_part(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        run_told(tmp_path, {"": 1}, ("", "back"))
    assert read_parts(tmp_path / "tiny" / RECORDS / "E5").keys() == {""}
    assert run_told(tmp_path, {"back": 2}, ("back",)) == {"": [1], "back": [2]}
    assert run_told(tmp_path, {"": 3}, ("",)) == {"": [3], "back": [2]}


def test_parts_of_an_earlier_run_do_not_mix_with_those_that_are_run_anew(tmp_path: Path) -> None:
    run_told(tmp_path, {"": 1, "back": 2}, ("", "back"))
    with pytest.raises(KeyError):
        run_told(tmp_path, {"": 3}, ("", "back"))
    assert read_parts(tmp_path / "tiny" / RECORDS / "E5").keys() == {""}


def test_the_machine_of_a_record_has_the_name_of_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert describe_machine(torch.device("cuda:1")) == f"{describe_machine(torch.device('cpu'))}, GPU 1"


def test_a_damaged_record_is_written_anew(tmp_path: Path) -> None:
    run_told(tmp_path, {"": 1}, ("",))
    (tmp_path / "tiny" / RECORDS / "E5" / "about.json").write_text("{")
    assert run_told(tmp_path, {"back": 2}, ("back",)) == {"back": [2]}


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        about = json.loads((folder / "about.json").read_text())
        (folder / "about.json").write_text(json.dumps(change(about)))
    return apply


@pytest.mark.parametrize("damage", [
    edit(lambda about: [about]), edit(lambda about: {**about, "experiment": "E1"}),
    edit(lambda about: {**about, "experiment": 7}), edit(lambda about: {**about, "tables": ["none"]}),
    lambda folder: (folder / "cells.csv").write_text("a\n1\n"),
    lambda folder: (folder / "cells.csv").write_text("")])
def test_a_record_of_another_version_is_one_line(damage: Callable[[Path], object], tmp_path: Path) -> None:
    table = pd.DataFrame({"part": [""], "source_network": ["a"], "target_network": ["b"]})
    folder = tmp_path / RECORDS / "E5"
    Record("E5", "tiny", {"cells": table}, {"parts": {"": {}}}).save(folder)
    damage(folder)
    with pytest.raises(SutureError, match=r"E5.*run (E5|the experiment) again"):
        read_reproduction(tmp_path, "tiny")
