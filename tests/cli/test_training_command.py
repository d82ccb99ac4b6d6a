"""`suture train` with several seeds and kept epochs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from suture import zoo
from suture._base import fingerprint_network
from tests.support import tiny
from tests.support.tiny import small_digits

Capsys = pytest.CaptureFixture[str]
DIGITS = ["zoo:resnet_digits", "--data", "tests.support.tiny:small_digits"]


def test_several_seeds_in_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      capsys: Capsys) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--seeds", "3, 1", "--keep", "0,1", "--epochs", 1, "--label-smoothing", 0.1, "--out", "here"]
    code, out, err = tiny.suture(monkeypatch, capsys, "train", *DIGITS, *options)
    assert (code, err) == (0, "")
    places = [Path("here") / f"resnet_digits-seed{k}.safetensors" for k in (3, 1)]
    lines = out.splitlines()
    assert [line.partition("weights: ")[2] for line in lines] == [str(p) for p in places]
    networks, about = zoo.list_trained("here")
    assert [(a["seed"], a["epoch"]) for a in about.values()] == [(1, 0), (1, 1), (3, 0), (3, 1)]
    # "paper" is the recipe of data that are not the digits.
    recipe = dataclasses.replace(zoo.RECIPES["paper"], epochs=1, label_smoothing=0.1)
    wanted = zoo.train_network("resnet_digits", 3, recipe, small_digits())[1]
    assert fingerprint_network(networks["resnet_digits-seed3-epoch1"]()) == wanted.fingerprint
    assert lines[0].startswith(f"{wanted.accuracy:.1%} of 30 test images right")
    again = tiny.suture(monkeypatch, capsys, "train", *DIGITS, *options)
    assert again == (0, out, "")


@pytest.mark.parametrize(("options", "words"), [
    (["--seeds", "0,x"], "--seeds '0,x'"), (["--seeds", "-1"], "'-1'"), (["--seeds", "0,,1"], "'0,,1'"),
    (["--seeds", "9" * 30], "9" * 30), (["--seeds", "0", "--seed", "1"], "--seed or --seeds"),
    (["--seeds", "0", "--out", "w.safetensors"], "write --out w"), (["--keep", "0,1.5"], "'0,1.5'"),
    (["--keep", "0,2", "--epochs", "1"], "from 0 to 1, got 2"), (["--recipe", "papers"], "paper"),
    (["--precision", "fp16"], "fp16"), (["--label-smoothing", "1"], "label_smoothing")])
def test_options_that_do_not_fit(options: list[str], words: str, tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = tiny.suture(monkeypatch, capsys, "train", *DIGITS, *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert os.listdir() == []
