"""The commands, in this process: what they print, what they leave behind, and what they leave alone."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suture
from suture import SutureError, TaskRecipe, cli, zoo
from suture.cli import demo as demonstration
from suture.results.report import figures
from suture.results.summary import summarise_findings
from suture.zoo import ImageSet
from tests.support import tiny
from tests.support.tiny import Block, Tiny, data, network, other, seeded

Capsys = pytest.CaptureFixture[str]
MARKUP = "[red]x[/red]"


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds and have their own tests; here it matters where they are put."""
    def save(comparison: Any, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "all.png").write_bytes(b"")

    monkeypatch.setattr(figures, "save_figures", save)


def small_digits() -> tuple[ImageSet, ImageSet]:
    return zoo.digits("train").subset(60), zoo.digits("test").subset(30)


class Marked(nn.Module):
    """Names that rich would take for markup or for an emoji."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module(MARKUP, Block(2, 3))
        self.add_module(":car:", Block(3, 3))
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.get_submodule(":car:")(self.get_submodule(MARKUP)(x)).mean((2, 3)))


def marked() -> nn.Module:
    return seeded(Marked)


class Talks(Tiny):
    """A module without a tensor, one that leads nowhere, one that is bypassed, and one with a long name."""

    LONG = "a_name_that_is_longer_than_a_line_of_a_terminal_with_eighty_columns_which_happens_in_practice"

    def __init__(self) -> None:
        super().__init__()
        self.idle, self.words = nn.Linear(4, 4), Words()
        self.add_module(self.LONG, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        first = self.block1(x)
        h = self.get_submodule(self.LONG)(self.block2(first)).mean((2, 3))
        self.idle(h)
        self.words(h)
        return self.head(h) + first.mean((2, 3))


class Words(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "words"


def talks() -> nn.Module:
    return seeded(Talks)


def _rows(out: str) -> list[list[str]]:
    """Cells of the table that `layers` prints, folded names put together."""
    rows: list[list[str]] = []
    for line in out.splitlines():
        if not line.startswith("│"):
            continue
        cells = [c.strip() for c in line.strip("│").split("│")]
        if cells[1] or re.match(r"no:|yes|output", cells[3]):
            rows.append(cells)
        else:
            rows[-1] = [rows[-1][0] + cells[0], *rows[-1][1:3], f"{rows[-1][3]} {cells[3]}".strip()]
    return rows


# -- help and layers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("args", "words"), [
    ([], ["demo", "compare", "train", "report", "layers"]),
    (["--help"], ["demo", "compare", "train", "report"]),
    (["demo", "--help"], ["--out", "--seed", "--device"]), (["report", "--help"], ["--out", "FOLDERS"]),
    (["compare", "--help"], ["SOURCE", "TARGET", "--source-weights", "--data", "--sites", "--methods",
                             "--out", "--seed", "--device", "--allow-bypass"]),
    (["train", "--help"], ["NETWORK", "--epochs", "--lr", "--out"]),
    (["layers", "--help"], ["--all", "--sites"]),
])
def test_help(args: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    code, out, err = tiny.suture(monkeypatch, capsys, *args)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: ")
    for w in words:
        assert w.lower() in out.lower()


def test_layers_tells_names_and_shapes_as_they_are(monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    code, out, err = tiny.suture(monkeypatch, capsys, "layers", "zoo:resnet_digits", "--data",
                                 "tests.cli.test_commands:small_digits")
    assert (code, err) == (0, "")
    seen: dict[str, Tensor] = {}
    made = zoo.build("resnet_digits").eval()
    for name, module in made.named_modules():
        if re.fullmatch(r"layer\d\.\d", name):
            module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
    made(small_digits()[0].inputs[:2])
    wanted = [[name, f"map {'x'.join(map(str, x.shape[1:]))}", str(x.shape[2] * x.shape[3]), "yes"]
              for name, x in seen.items()]
    assert len(wanted) == 6
    assert _rows(out) == wanted


def test_layers_all_lists_what_is_no_site_too(monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    code, out, _ = tiny.suture(monkeypatch, capsys, "layers", "tests.cli.test_commands:talks", "--data",
                               "tests.support.tiny:data", "--all")
    rows = {name: rest for name, *rest in _rows(out)}
    assert code == 0
    assert list(rows) == ["block1.conv", "block1", "block2.conv", "block2", Talks.LONG, "idle",
                          "words", "head"]
    assert rows["block1"] == ["map 3x8x8", "64", "yes"]
    assert rows["block2"] == ["map 4x4x4", "16", "no: block1 goes around"]
    assert rows["head"][:2] == ["vector 3", "1"]
    assert rows["words"][2].startswith("no: site 'words' of the network returns no")
    assert rows["idle"][2].startswith("no: the output of the network does not depend")


def test_layers_takes_sites(monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    code, out, _ = tiny.suture(monkeypatch, capsys, "layers", "tests.support.tiny:network", "--data",
                               "tests.support.tiny:data", "--sites", "block*, head")
    assert code == 0
    assert [r[0] for r in _rows(out)] == ["block1", "block2", "head"]
    assert _rows(out)[2] == ["head", "vector 3", "1", "output"]


# -- train, compare, report ----------------------------------------------------------------------------------


def test_from_training_to_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    monkeypatch.chdir(tmp_path)
    digits = ["--data", "tests.cli.test_commands:small_digits"]
    for seed, name in enumerate(("one", "two")):
        code, out, err = tiny.suture(monkeypatch, capsys, "train", "zoo:resnet_digits", *digits, "--epochs",
                                     1, "--seed", seed, "--out", f"{name}.safetensors")
        assert (code, err) == (0, "")
        assert f"weights: {name}.safetensors" in out
    trained = zoo.build("resnet_digits", 3)
    metadata = zoo.load_weights(trained, "one.safetensors")
    assert metadata["seed"] == "0"
    assert f"{float(metadata['accuracy']):.1%} of 30 test images" in tiny.suture(
        monkeypatch, capsys, "train", "zoo:resnet_digits", *digits, "--epochs", 1, "--out",
        "again.safetensors")[1]

    code, out, err = tiny.suture(monkeypatch, capsys, "compare", "zoo:resnet_digits", "--source-weights",
                                 "one.safetensors", "--target-weights",
                                 "two.safetensors", *digits, "--methods", "dm",
                                 "--sites", "layer1.0,layer3.1", "--out", "result", "--device", "cpu")
    assert (code, err) == (0, "")
    assert "one -> two" in out
    made = suture.load("result")
    two = zoo.build("resnet_digits", 3)
    zoo.load_weights(two, "two.safetensors")
    wanted = suture.compare(trained, two, *small_digits(), sites=["layer1.0", "layer3.1"], methods=["dm"],
                            device="cpu")
    assert made.table.equals(wanted.table)
    assert made.meta["fingerprints"] == wanted.meta["fingerprints"]
    assert (made.source, made.target, made.same_network, made.same_architecture) == ("one",
                                                                                     "two", False, True)
    assert Path("result/figures/all.png").exists()

    code, out, err = tiny.suture(monkeypatch, capsys, "report", "result", "result", "--out",
                                 "both/report.html")
    assert (code, err) == (0, "")
    assert "report: both/report.html" in out
    for page in ("result/report.html", "both/report.html"):
        text = Path(page).read_text()
        assert "layer3.1" in text
        assert "one" in text


def test_code_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       capsys: Capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_models.py").write_text("from tests.support.tiny import other as build\n")
    (tmp_path / "my_data.py").write_text("from tests.support.tiny import data as splits\n")
    code, out, err = tiny.suture(
        monkeypatch, capsys, "compare", "tests.support.tiny:network", "my_models:build", "--data",
        "my_data:splits", "--methods", "dm, tlm", "--epochs", 1, "--batch-size", 16,
        "--lr", 0.01, "--init", "dm", "--schedule", "cosine", "--seed", 3, "--device", "cpu")
    assert (code, err) == (0, "")
    assert "tests.support.tiny:network -> my_models:build" in out
    made = suture.load("suture-result")
    recipe = TaskRecipe(1, 16, 0.01, init="dm", schedule="cosine", seed=3)
    wanted = suture.compare(network(), other(), *data(), tlm=recipe, seed=3, device="cpu")
    assert made.table.equals(wanted.table)
    assert made.meta["settings"] == wanted.meta["settings"]


def test_the_recipe_of_task_loss_matching_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                              capsys: Capsys) -> None:
    code, out, err = tiny.suture(monkeypatch, capsys, "compare", "tests.support.tiny:network", "--data",
                                 "tests.support.tiny:data",
                                 "--methods", "tlm", "--epochs", 3, "--objective", "mixed", "--temperature",
                                 2, "--optimizer", "sgd", "--schedule", "onecycle", "--crop", 1, "--flip",
                                 "--tlm-precision", "bf16", "--patience", 2, "--out", tmp_path / "out",
                                 "--device", "cpu")
    assert (code, err) == (0, "")
    recipe = TaskRecipe(epochs=3, optimizer="sgd", schedule="onecycle", crop=1, flip=True, objective="mixed",
                        temperature=2.0, precision="bf16", patience=2)
    made = suture.load(tmp_path / "out")
    assert made.meta["settings"]["tlm"] == dataclasses.asdict(recipe)
    assert "tlm.held_out" in made.arrays
    for note in made.meta["notes"]:
        assert f"note: {note}" in out


def test_no_methods_gives_indices_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capsys: Capsys) -> None:
    code, _, _ = tiny.suture(monkeypatch, capsys, "compare", "tests.support.tiny:network", "--data",
                             "tests.support.tiny:data", "--methods", "none", "--target-sites", "block2",
                             "--precision", "float64", "--out", tmp_path / "out")
    made = suture.load(tmp_path / "out")
    assert code == 0
    assert {m.partition(".")[0] for m in made.measures} == {"cka", "cka_debiased", "cca", "pwcca",
                                                            "pwcca_target", "opd", "r2"}
    assert (made.sources, made.targets) == (("block1", "block2"), ("block2",))
    assert made.meta["settings"]["precision"] == "float64"


def test_indices_by_name_argument_alignment_and_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: Capsys) -> None:
    names = ["cka", "svcca:0.9", "rsa_correlation@pool", "jaccard:3@pool", "cka@flatten", "opd@paper"]
    code, _, _ = tiny.suture(monkeypatch, capsys, "compare", "tests.support.tiny:network", "--data",
                             "tests.support.tiny:data", "--methods", "none", "--indices", ",".join(names),
                             "--jackknife", "5", "--sample", "20", "--out", tmp_path / "out")
    made = suture.load(tmp_path / "out")
    assert code == 0
    assert set(made.measures) == set(names)
    for name in names:
        assert (made.matrix(name, "reason") == "").all(axis=None), name
        has_interval = made.matrix(name, "low").notna().all(axis=None)
        assert has_interval == (name in ("cka", "svcca:0.9", "rsa_correlation@pool")), name
    assert (made.table.query("measure == 'jaccard:3@pool'")["n"] == 20).all()
    assert made.meta["settings"]["jackknife"] == 5
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(("given", "names"), [
    (("a:f", None, None, None), ("a:f", "a:f")), (("a:f", None, "b:f", None), ("a:f", "b:f")),
    (("a:f", Path("w/x.pt"), "a:f", Path("w/y.pt")), ("x", "y")),
    (("a:f", None, "a:f", None), ("a:f (source)", "a:f (target)")),
    (("a:f", Path("v/x.pt"), "a:f", Path("w/x.pt")), ("x (source)", "x (target)")),
])
def test_names_of_the_two_networks(given: Any, names: tuple[str, str]) -> None:
    assert cli.stitching_commands._choose_names(*given) == names


# -- names with markup ---------------------------------------------------------------------------------------


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                             capsys: Capsys) -> None:
    code, out, _ = tiny.suture(monkeypatch, capsys, "layers", "tests.cli.test_commands:marked", "--data",
                               "tests.support.tiny:data")
    assert code == 0
    assert [r[0] for r in _rows(out)] == [MARKUP, ":car:"]

    weights, result = tmp_path / "[bold]w.safetensors", tmp_path / "[red]out[/red]"
    zoo.save_weights(marked(), weights)
    code, out, _ = tiny.suture(monkeypatch, capsys, "compare", "tests.cli.test_commands:marked",
                               "--source-weights", weights, "--data", "tests.support.tiny:data", "--methods",
                               "dm", "--out", result)
    assert code == 0
    assert "[bold]w -> [bold]w" in out
    assert f"result: {result}\n" in out
    assert f"report: {result / 'report.html'}\n" in out
    code, out, _ = tiny.suture(monkeypatch, capsys, "report", result, "--out", tmp_path / "[i]" / "r.html")
    assert (code, f"report: {tmp_path / '[i]' / 'r.html'}\n" in out) == (0, True)
    code, _, err = tiny.suture(monkeypatch, capsys, "compare", "tests.support.tiny:network", "--data",
                               "tests.support.tiny:data", "--sites", "(red)[/red]:car:", "--out",
                               tmp_path / "[b]")
    assert (code, "(red)[/red]:car:" in err) == (2, True)


def test_markup_in_the_weights_that_train_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: Capsys) -> None:
    out = tmp_path / "[bold]" / "[red]w.safetensors"
    code, text, _ = tiny.suture(monkeypatch, capsys, "train", "zoo:resnet_digits", "--data",
                                "tests.cli.test_commands:small_digits", "--epochs", 1, "--out", out)
    assert code == 0
    assert f"weights: {out}\n" in text
    assert out.exists()


# -- the user's network --------------------------------------------------------------------------------------


def _state(made: nn.Module) -> Any:
    return ({k: v.clone() for k, v in made.state_dict().items()}, [m.training for m in made.modules()],
            [(p.requires_grad, p.grad is None, p.device, p.stride(), p._version) for p in made.parameters()],
            [(sorted(m.__dict__), list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks))
             for m in made.modules()])


def _interrupt(stage: str, done: int, total: int | None) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("interrupted", [False, True])
def test_compare_leaves_the_networks_as_they_were(interrupted: bool) -> None:
    pair = network(), other()
    for made in pair:
        made.block1.eval()
        made.head.weight.requires_grad_(False)
        made.block2.register_forward_hook(lambda m, i, o: None)
    before = [_state(made) for made in pair]
    random = torch.get_rng_state()
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            suture.compare(*pair, *data(), tlm=tiny.RECIPE, device="cpu", progress=_interrupt)
    else:
        suture.compare(*pair, *data(), tlm=tiny.RECIPE, device="cpu")
    assert torch.equal(torch.get_rng_state(), random)
    for made, (weights, *rest) in zip(pair, before, strict=True):
        now, *others = _state(made)
        assert others == rest
        assert list(now) == list(weights)
        assert all(torch.equal(now[k], weights[k]) for k in now)


# -- the demo ------------------------------------------------------------------------------------------------


@pytest.fixture
def short_demo(monkeypatch: pytest.MonkeyPatch) -> TaskRecipe:
    train, test = small_digits()
    monkeypatch.setattr(zoo, "digits", lambda split: train if split == "train" else test)
    monkeypatch.setattr(zoo, "DIGITS_RECIPE", dataclasses.replace(zoo.DIGITS_RECIPE, epochs=1))
    return TaskRecipe(epochs=1, batch_size=30)


def test_the_demo_leaves_its_files_and_computes_nothing_twice(tmp_path: Path, short_demo: TaskRecipe,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "new" / "demo"
    stages: set[str] = set()
    first = suture_demo(out, short_demo, lambda stage, done, total: stages.add(stage))
    assert {s.partition(":")[0] for s in stages} == {"network A", "network B", *(f"{a} into {b}" for a in "AB"
                                                                              for b in "AB")}
    pairs = ["A-A", "A-B", "B-A", "B-B"]
    files = ["arrays.safetensors", "comparison.json", "figures", "report.html", "table.csv"]
    assert sorted(p.name for p in out.iterdir()) == [*pairs[:2], "A.safetensors", *pairs[2:], "B.safetensors",
                                                     "report.html"]
    for pair in pairs:
        assert sorted(p.name for p in (out / pair).iterdir()) == files
        assert suture.load(out / pair).equals(first.comparisons[pair])
        assert first.comparisons[pair].same_network == (pair[0] == pair[2])
    assert first.report == out / "report.html"
    assert set(first.accuracies) == {"A", "B"}
    prints = {p: c.meta["fingerprints"] for p, c in first.comparisons.items()}
    assert prints["A-B"] == prints["B-A"][::-1]
    assert prints["A-A"][0] != prints["B-B"][0]

    kept = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    monkeypatch.setattr(zoo, "train_network", lambda *args, **kwargs: pytest.fail("trains again"))
    again = suture_demo(out, short_demo, lambda stage, done, total: pytest.fail(f"computes {stage} again"))
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")} == kept
    assert again.accuracies == first.accuracies
    for pair in pairs:
        assert again.comparisons[pair].table.equals(first.comparisons[pair].table)
        np.testing.assert_array_equal(again.comparisons[pair].arrays["tlm.correct"],
                                      first.comparisons[pair].arrays["tlm.correct"])


def suture_demo(out: Path, recipe: TaskRecipe, progress: Any, seed: int = 0) -> demonstration.Demo:
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

    def demo(out: Path, **options: Any) -> demonstration.Demo:
        given.update(options, out=out)
        return demonstration.DemoResult({"A": 0.9876}, {"A-A": comparison}, out / "report.html")

    monkeypatch.setattr(demonstration, "run_demo", demo)
    code, text, err = tiny.suture(monkeypatch, capsys, "demo", "--out", tmp_path, "--seed", 5,
                                  "--device", "cpu")
    assert (code, err) == (0, "")
    assert (given["out"], given["seed"], given["device"]) == (tmp_path, 5, "cpu")
    assert "network A: 98.8% of 500 test images right" in text
    assert "A -> A" in text
    found = summarise_findings(comparison)
    assert found.passed
    for sentence in (*found.shown, found.summary):
        assert sentence in text
    assert not any(sentence in text for sentence in found.passed)
    assert f"report: {tmp_path / 'report.html'}" in text
