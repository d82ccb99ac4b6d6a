"""The demo: its files, nothing computed twice, what it prints."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import suture
from suture import SutureError, TaskRecipe, zoo
from suture.cli import demo as demonstration
from suture.results import page, summarise_findings
from tests.support import synthetic, tiny
from tests.support.tiny import data, network, small_digits

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def short_demo(monkeypatch: pytest.MonkeyPatch) -> TaskRecipe:
    train, test = (split.subset(n) for split, n in zip(small_digits(), (32, 16), strict=True))
    monkeypatch.setattr(zoo, "digits", lambda split: train if split == "train" else test)
    monkeypatch.setattr(zoo, "DIGITS_RECIPE", dataclasses.replace(zoo.DIGITS_RECIPE, epochs=1))
    # Two sites show what six do.
    monkeypatch.setattr(demonstration, "SITES", ("layer1.0", "layer3.1"))
    return TaskRecipe(epochs=1, batch_size=30)


def test_the_demo_leaves_its_files_and_computes_nothing_twice(tmp_path: Path, short_demo: TaskRecipe,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "new" / "demo"
    stages: set[str] = set()
    first = suture_demo(out, short_demo, lambda stage, done, total: stages.add(stage))
    assert {s.partition(":")[0] for s in stages} == {"network A", "network B", "A into A", "A into B"}
    pairs = ["A-A", "A-B"]
    files = ["comparison.safetensors", "report.html", "table.csv"]
    assert sorted(p.name for p in out.iterdir()) == [*pairs, "A.safetensors", "B.safetensors", "report.html"]
    for pair in pairs:
        assert sorted(p.name for p in (out / pair).iterdir()) == files
        assert suture.load(out / pair).equals(first.comparisons[pair])
        assert first.comparisons[pair].same_network == (pair[0] == pair[2])
    assert first.report == out / "report.html"
    assert set(first.accuracies) == {"A", "B"}
    prints = {p: c.meta["fingerprints"] for p, c in first.comparisons.items()}
    assert prints["A-A"][0] == prints["A-B"][0] != prints["A-B"][1]

    kept = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    monkeypatch.setattr(zoo, "train_network", lambda *args, **kwargs: pytest.fail("trains again"))
    monkeypatch.setattr(page, "write_page", lambda comparisons, path: Path(path))  # seconds; written above
    stages.clear()
    again = suture_demo(out, short_demo, lambda stage, done, total: stages.add(stage))
    assert {s.split(": ")[1].partition(" the ")[0] for s in stages} == {"checking", "taken over"}
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")} == kept
    assert again.accuracies == first.accuracies
    for pair in pairs:
        assert again.comparisons[pair].table.equals(first.comparisons[pair].table)
    np.testing.assert_array_equal(again.comparisons["A-A"].arrays["tlm.correct"],
                                  first.comparisons["A-A"].arrays["tlm.correct"])


def suture_demo(out: Path, recipe: TaskRecipe, progress: Any, seed: int = 0) -> demonstration.DemoResult:
    return demonstration.run_demo(out, seed=seed, device="cpu", recipe=recipe, progress=progress)


def test_the_demo_goes_on_where_it_was_stopped_and_refuses_another_seed(tmp_path: Path,
                                                                        short_demo: TaskRecipe) -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "A into A: task loss matching":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        suture_demo(tmp_path, short_demo, stop)
    assert suture.load(tmp_path / "A-A").meta["stages"] == ["moments", "dm"]
    with pytest.raises(SutureError, match=r"A\.safetensors.* another seed"):
        suture_demo(tmp_path, short_demo, None, seed=1)


def test_the_demo_command_prints_accuracies_verdicts_and_the_report(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    comparison = suture.compare(network(), None, *data(), methods=["dm"], device="cpu", names=("A", "A"))
    given: dict[str, Any] = {}

    def demo(out: Path, **options: Any) -> demonstration.DemoResult:
        given.update(options, out=out)
        return demonstration.DemoResult({"A": 0.9876}, {"A-A": comparison}, out / "report.html")

    monkeypatch.setattr(demonstration, "run_demo", demo)
    code, text, err = tiny.suture(monkeypatch, capsys, "demo", "--out", tmp_path, "--seed", 5,
                                  "--device", "cpu")
    assert (code, err) == (0, "")
    assert (given["out"], given["seed"], given["device"]) == (tmp_path, 5, "cpu")
    assert "network A: 98.8% of 500 test images right" in text
    assert "A -> A" in text
    for sentence in summarise_findings(comparison).all:
        assert sentence in text
    assert f"report: {tmp_path / 'report.html'}" in text


def test_the_demo_prints_at_most_thirty_lines_of_at_most_160_characters(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    """The longest findings: artefacts, marks and two networks."""
    made = {f"A-{b}": dataclasses.replace(
        synthetic.comparison(6, 6, same_network=b == "A", detectors=("maha",)), source="A", target=b)
        for b in "AB"}
    monkeypatch.setattr(demonstration, "run_demo", lambda out, **options: demonstration.DemoResult(
        {"A": 0.9876, "B": 0.98}, made, Path("suture-demo/report.html")))
    _, text, _ = tiny.suture(monkeypatch, capsys, "demo", "--out", tmp_path)
    lines = text.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 160
    assert "Task loss matching makes" in lines[lines.index("A -> A") + 1]
