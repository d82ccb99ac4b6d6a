"""`suture reproduce`: what it asks for, what it plans, and a page that is made from records alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from suture.studies import EXPERIMENTS

Command = Callable[..., tuple[int, str, str]]
DOCS = Path(__file__).parents[2] / "docs" / "paper" / "tiny"


@pytest.mark.parametrize(("asked", "named"), [
    (("E99",), "E99"), (("E1", "--scale", "huge"), "huge"), (("E1", "--scale", "small"), "cifar10"),
    (("E1", "--data", "cifar10"), "'cifar10'"),
    (("E1", "--scale", "small", "--data", "cifar10=nowhere"), "'nowhere'"),
    (("E1", "--scale", "small", "--data", "cifar10=.", "--data", "cifar10=x"), "one path of cifar10"),
    (("E1", "--seeds", "0"), "seeds"), (("E1", "--plan", "--page"), "--plan or --page"),
    (("E99", "--page"), "E99"), (("E1", "--page"), "records")])
def test_what_there_is_not(command: Command, asked: tuple[str, ...], named: str) -> None:
    code, out, problems = command("reproduce", *asked)
    assert (code, out) == (2, "")
    assert named in problems
    assert len(problems.splitlines()) == 1


def test_a_page_is_made_from_records(command: Command, tmp_path: Path) -> None:
    shutil.copytree(DOCS / "records" / "E5", tmp_path / "reproduction" / "tiny" / "records" / "E5")
    code, out, problems = command("reproduce", "all", "--page")
    assert (code, problems) == (0, "")
    claim = EXPERIMENTS["E5"].question
    made = tmp_path / "reproduction" / "tiny"
    assert claim in (made / "page.md").read_text()
    assert "E5, " in out
    assert {path.suffix for path in (made / "figures").iterdir()} == {".png", ".pdf"}
    assert {path.suffix for path in (made / "tables").iterdir()} == {".csv", ".tex"}
    table = (made / "tables" / "E5-means-over-cells.tex").read_text()
    assert "TLM relative accuracy" in table
    assert r"\%" in table


def test_a_plan_trains_nothing(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("reproduce", "E9", "--plan")
    assert code == 0
    assert "E9" in out
    assert not list(tmp_path.rglob("reproduction"))


def test_a_plan_says_what_data_to_name(command: Command) -> None:
    code, out, problems = command("reproduce", "E1", "--scale", "paper", "--plan")
    assert (code, problems) == (0, "")
    assert "E1-imagenet.toml needs imagenet, resnet18_weights, vit_weights" in out
    assert "--data cifar10=PATH --data random_images=PATH --data svhn=PATH" in out
