"""`suture study`: run, plan, status, report and gc of one TOML file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import suture
from suture import Study, SutureError, specs, zoo
from suture.networks import Recipe
from suture.studies.network_study.manifest import read_tasks
from suture.studies.population.sources import SpecNetwork, TrainedNetwork
from suture.studies.running import engines, tasks
from suture.studies.running.store import StudyStore
from suture.studies.spec import training
from tests.support import tiny

Command = Callable[..., tuple[int, str, str]]
SETTINGS = """
[settings]
methods = []
indices = ["cka"]
sites = ["block*"]
device = "cpu"
"""
SPEC = f"""
[data]
spec = "tests.support.tiny:data"
[networks]
a = "tests.support.tiny:network"
[networks."<i>b"]
spec = "tests.support.tiny:other"
about = {{word = "=1+1"}}
[networks.broken]
spec = "tests.support.tiny:nothing"
{SETTINGS}"""
TRAINED = f"""
[data]
spec = "tests.support.tiny:image_sets"
[networks.r]
train = "zoo:resnet_digits"
seeds = [0, 1]
recipe = {{epochs = 1, crop = 0, flip = false}}
[study]
pairs = "consecutive"
{SETTINGS.replace('"block*"', '"layer1.1"')}"""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Pairs that are compared in earnest, in order."""
    seen: list[tuple[str, str]] = []
    whole = tasks.compare
    monkeypatch.setattr(tasks, "compare", lambda **named: seen.append(named["names"]) or whole(**named))
    return seen


@pytest.fixture
def spec(tmp_path: Path, command: Command) -> Path:
    (tmp_path / "s.toml").write_text(SPEC)
    return tmp_path / "s.toml"


def test_a_study_from_its_plan_to_its_report(spec: Path, command: Command,
                                             counted: list[tuple[str, str]]) -> None:
    code, out, _ = command("study", "plan", "s.toml")
    assert code == 0
    assert "0 of 3 pairs done, 3 to do, about" in out
    assert "broken cannot be built" in out
    assert "note: s.toml runs code: tests.support.tiny:data" in out
    assert not Path("s").exists() or not list(Path("s").rglob("*.safetensors"))
    assert "0 done, 0 running, 0 failed, 6 to do" in command("study", "status", "s.toml")[1]
    code, out, _ = command("study", "run", "s.toml")
    assert code == 0
    assert "runs code" in out
    made = Study.load("s")
    given = {"a": tiny.network(), "<i>b": tiny.other()}
    alone = suture.study(given, *tiny.data(), methods=[], indices=["cka"], sites=["block*"], device="cpu")
    assert made.matrix("cka").loc[list(given), list(given)].equals(alone.matrix("cka"))
    value = f"{alone.matrix('cka').loc['a', '<i>b']:.3f}"
    assert f"a and <i>b ({value})" in out
    assert counted[:3] == [("a", "a"), ("a", "<i>b"), ("<i>b", "<i>b")]
    assert "3 of 3 pairs done, 0 to do\n" in command("study", "plan", "s.toml")[1]
    _, out, _ = command("study", "status", "s.toml")
    assert "3 done, 0 running, 3 failed, 0 to do" in out
    assert "a into broken and 2 other pairs failed: broken cannot be built: " in out
    command("study", "run", "s.toml")
    assert len(counted) == 6  # 3 of the reference
    code, out, _ = command("study", "report", "s.toml", "--out", "page")
    assert code == 0
    page, table = Path("page/report.html").read_text(), Path("page/table.csv").read_text()
    assert page.index(f"a and &lt;i&gt;b ({value})") < page.index("Failed pairs")
    assert "<i>" not in page
    assert "'=1+1" in table
    assert len(table.splitlines()) == len(made.table) + 1


def test_a_study_whose_networks_all_fail_has_a_page(spec: Path, command: Command) -> None:
    spec.write_text(SPEC.replace("tiny:network", "tiny:none").replace("tiny:other", "tiny:none"))
    assert command("study", "run", "s.toml")[0] == 2
    code, out, _ = command("study", "report", "s.toml")
    assert code == 0
    assert "None of 6 pairs could be compared" in out
    assert "a cannot be built" in Path("s/report.html").read_text()


def test_status_knows_what_runs_and_how_long_the_rest_takes(spec: Path, command: Command) -> None:
    spec.write_text(SPEC.replace("[networks.broken]\n", "[networks.c]\n").replace("nothing", "network"))
    assert command("study", "run", "s.toml")[0] == 0
    store = StudyStore(Path("s"))
    listed = read_tasks(store.read_manifest())
    for task, seconds in zip(listed, (0, 0, 10, 20, 30, 40), strict=True):
        store.finish(task, seconds=seconds)
    for task in listed[:2]:
        next(Path("s/tasks").glob(f"{task.slug}.json")).unlink()
    with store.claim(listed[0]):
        _, out, _ = command("study", "status", "s.toml")
    assert "4 done, 1 running, 0 failed, 1 to do" in out
    assert "about 50 s left" in out
    assert "changed" not in out
    spec.write_text(spec.read_text().replace('["cka"]', '["opd"]'))
    assert "s.toml has changed since the last run" in command("study", "status", "s.toml")[1]


def test_networks_are_trained_before_the_pairs(tmp_path: Path, command: Command,
                                               monkeypatch: pytest.MonkeyPatch,
                                               counted: list[tuple[str, str]]) -> None:
    path = tmp_path / "t.toml"
    path.write_text(TRAINED)
    seen: list[int] = []
    whole = zoo.train_and_save

    def train(name: str, path: Path, seed: int, *given: Any, **named: Any) -> tuple[nn.Module, zoo.Report]:
        seen.append(seed)
        if seed == 7:
            raise SutureError("diverged")
        return whole(name, path, seed, *given, **named)

    monkeypatch.setattr(training.zoo, "train_and_save", train)
    built: list[str] = []
    build = specs.build_network
    monkeypatch.setattr(specs, "build_network",
                        lambda spec, **named: built.append(str(named["weights"])) or build(spec, **named))
    _, out, _ = command("study", "plan", "t.toml")
    assert "to train first: r-seed0, r-seed1" in out
    assert seen == []
    assert "0 of 2 networks trained" in command("study", "status", "t.toml")[1]
    assert command("study", "run", "t.toml")[0] == 0
    assert "2 of 2 networks trained" in command("study", "status", "t.toml")[1]
    assert Study.load("t").about["seed"].tolist() == [0, 1]
    built.clear()
    assert command("study", "run", "t.toml")[0] == 0
    assert built == []  # neither trained nor built to learn that nothing has changed
    path.write_text(TRAINED.replace("[0, 1]", "[0, 1, 7]"))
    assert "r-seed7 cannot be built: its training failed: diverged" in command("study", "run", "t.toml")[1]
    assert (seen, counted) == ([0, 1, 7], [("r-seed0", "r-seed1")])
    file = next(Path("t/networks").glob("r-seed0-*.safetensors"))
    file.write_bytes(file.read_bytes()[:-5] + b"12345")
    path.write_text(TRAINED)
    command("study", "run", "t.toml")
    assert (seen[3:], counted) == ([0], [("r-seed0", "r-seed1")])  # the same weights again
    path.write_text(TRAINED.replace("[0, 1]", "[1, 2]"))
    _, out, _ = command("study", "gc", "t.toml")
    assert ("r-seed0" in out, "r-seed1" in out.replace("r-seed0--r-seed1", "")) == (True, False)
    command("study", "gc", "t.toml", "--yes")
    assert sorted(p.name[:7] for p in Path("t/networks").iterdir()) == ["known.j", "r-seed1"]


def test_a_network_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    given = SpecNetwork("zoo:resnet_digits", path)
    assert given.find_stamp() is None  # no such file
    stamps = []
    for seed in (0, 1):
        zoo.save_weights(zoo.build("resnet_digits", seed), path)
        stamps += [given.find_stamp(), given.find_stamp()]
    assert stamps[0] == stamps[1] != stamps[2]
    others = [SpecNetwork("zoo:resnet20", path), SpecNetwork("zoo:resnet_digits", path, 1),
              SpecNetwork("zoo:resnet_digits", path, 0, "raw"), SpecNetwork("zoo:resnet_digits")]
    found = [given.find_stamp(), given.find_stamp(tiny.image_sets()[0]), *(o.find_stamp() for o in others)]
    assert len(set(found)) == len(found)
    assert SpecNetwork("tests.support.tiny:network").find_stamp() is None


def test_a_training_of_another_process_is_waited_for(tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    images = tiny.image_sets()
    recipe = Recipe(epochs=1)
    given = TrainedNetwork("resnet_digits", recipe, tmp_path / "networks" / "w-1234.safetensors")
    lock = given.path.with_name(".w-1234.safetensors.writing.lock")
    lock.parent.mkdir()
    lock.write_text('{"process": 1, "host": "elsewhere"}')

    def end_it(seconds: float) -> None:
        zoo.save_weights(zoo.build("resnet_digits", 0, classes=3, in_channels=2), given.path)
        lock.unlink()

    monkeypatch.setattr(engines.time, "sleep", end_it)
    monkeypatch.setattr(training.zoo, "train_and_save", None)
    made = training.train_networks({"a": given}, images, torch.device("cpu"), engines.Serial(), tmp_path)
    assert made == {"a": given}
    assert given.build(images[0]).network.fc.out_features == 3


def test_gc_lists_first_and_removes_only_what_nothing_names(spec: Path, command: Command) -> None:
    assert "nothing to remove" in command("study", "gc", "s.toml")[1]
    command("study", "run", "s.toml")
    before = sorted(Path("s").rglob("*"))
    assert "nothing to remove" in command("study", "gc", "s.toml")[1]
    spec.write_text(SPEC.replace('a = "tests', 'c = "tests').replace("nothing", "none"))
    named = next(Path("s/tasks").glob("*b--*b*.json")).name
    for name in ("pairs/notes.txt", f"tasks/{named}.damaged-12345678", "study.json.damaged-12345678"):
        (Path("s") / name).touch()
    _, out, _ = command("study", "gc", "s.toml")
    assert "pairs/a--" in out
    assert "notes" not in out
    assert set(before) <= set(Path("s").rglob("*"))
    assert command("study", "gc", "s.toml", "--yes")[0] == 0
    kept = {p.name for p in Path("s").rglob("*") if p.is_file()}
    assert {"notes.txt", "study.json"} <= kept
    assert not any("damaged" in name for name in kept)
    assert [p.name[:6] for p in Path("s/tasks").glob("*.json")] == ["i-b--i"]


@pytest.mark.parametrize("words", [("run",), ("plan",), ("status",), ("report",), ("gc",)])
@pytest.mark.parametrize("text", [None, "x =", SPEC + "tlm = 3", "\x00",
                                  SPEC.replace("tiny:data", "tiny:none")])
def test_bad_input_is_one_line_and_2(spec: Path, command: Command, words: Any, text: str | None) -> None:
    if text is None:
        spec.unlink()
    else:
        spec.write_text(text)
    code, _, err = command("study", *words, "s.toml")
    if "status" not in words or "none" not in str(text):
        assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize("words", [(), ("runn",), ("run",), ("report", "s.toml", "--measure", "ckaa")])
def test_a_bad_command_line_is_one_line_and_2(spec: Path, command: Command, words: Any) -> None:
    if words[:1] == ("report",):
        command("study", "run", "s.toml")
    code, _, err = command("study", *words)
    assert (code, err.count("\n")) == (2, 1)


def test_another_folder_is_refused(spec: Path, command: Command) -> None:
    Path("s").mkdir()
    Path("s/thesis.txt").write_text("mine")
    for word in ("run", "plan", "report", "gc"):
        code, _, err = command("study", word, "s.toml")
        assert (code, err.count("\n")) == (2, 1)
