"""`suture validate`: tests of measures on the networks of a study's file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suture import zoo
from suture.studies import TrainedGroups, Validation
from suture.studies.spec import validated_file
from tests.support import tiny

Command = Callable[..., tuple[int, str, str]]
TRAINED = """
[data]
spec = "tests.support.tiny:image_sets"
[networks.r]
train = "zoo:resnet_digits"
seeds = [0, 1]
recipe = {epochs = 1, crop = 0, flip = false}
[settings]
methods = []
indices = ["cka"]
sites = ["layer3.1"]
device = "cpu"
"""


def test_a_file_of_a_study_is_the_population(command: Command, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    def train_two(kind: str, network: str, *given: Any, **named: Any) -> TrainedGroups:
        made = {str(k): zoo.build(network, seed=k, classes=3, in_channels=2) for k in range(2)}
        return TrainedGroups(kind, made, {name: {kind: name} for name in made}, *tiny.image_sets())

    monkeypatch.setattr(validated_file, "train_groups", train_two)
    (tmp_path / "s.toml").write_text(TRAINED)
    code, out, problems = command("validate", "s.toml", "--measures", "cka@pool,opd@pool", "--controls",
                                  "none", "--groups", "shortcut")
    assert (code, problems) == (0, "")
    assert "note: s.toml runs code: tests.support.tiny:image_sets" in out
    assert "note: Intervals over networks need 3 of them, got 2." in out
    assert "specificity" in out
    folder = tmp_path / "s" / "validation"
    assert {file.name for file in folder.glob("validation.*")} == {
        "validation.csv", "validation.html", "validation.json", "validation.png"}
    found = Validation.load(folder)
    assert found.measures == ("cka@pool", "opd@pool")
    assert {"shortcut", "shortcut (precision)"} < set(found.tests)
    assert "pairs within and across groups" in found.outcome("cka@pool", "shortcut").reason


@pytest.mark.parametrize(("asked", "named"), [
    (("--measures", "ckaa"), "ckaa"), (("--controls", "ghost"), "ghost"),
    (("--groups", "colours"), "colours")])
def test_what_there_is_not(command: Command, tmp_path: Path, asked: tuple[str, ...], named: str) -> None:
    (tmp_path / "s.toml").write_text(TRAINED)
    code, _, problems = command("validate", "s.toml", *asked)
    assert code == 2
    assert named in problems
