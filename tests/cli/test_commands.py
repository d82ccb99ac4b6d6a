"""`suture train`, `layers` and `report`: what they print and leave behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor, nn

import suture
from suture import zoo
from suture.results.drawing import files
from tests.support import tiny
from tests.support.architectures import ARCHITECTURES
from tests.support.tiny import Block, Tiny, seeded, small_digits

Capsys = pytest.CaptureFixture[str]
Command = Callable[..., tuple[int, str, str]]
MARKUP = "[red]x[/red]"


@pytest.mark.parametrize("name", ["vit", "resnet, bottlenecks", "swin", "albert", "t5 encoder", "gpt2",
                                  "mamba"])
def test_the_command_line_lists_the_sites(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    of = ARCHITECTURES[name]
    monkeypatch.setattr(tiny, "made", lambda: of.build(), raising=False)
    monkeypatch.setattr(tiny, "given", lambda: ([(of.inputs(), None)],) * 2, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    code, out, _ = tiny.suture(monkeypatch, capsys, "layers", "tests.support.tiny:made", "--data",
                               "tests.support.tiny:given")
    assert code == 0
    rows = [[c.strip() for c in line.strip("│").split("│")] for line in out.splitlines()
            if line.startswith("│")]
    assert [(r[0], r[1]) for r in rows] == list(zip(of.sites, of.shapes, strict=True))


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


def test_layers_tells_names_and_shapes_as_they_are(monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    code, out, err = tiny.suture(monkeypatch, capsys, "layers", "zoo:resnet_digits", "--data",
                                 "tests.support.tiny:small_digits")
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
    code, out, _ = tiny.suture(monkeypatch, capsys, "layers", "tests.cli.test_commands:talks",
                               "--data", "tests.support.tiny:data", "--all")
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


def test_from_training_to_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    monkeypatch.chdir(tmp_path)
    digits = ["--data", "tests.support.tiny:small_digits"]
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
                                 "--sites", "layer1.0,layer3.1", "--ood", "none", "--out", "result",
                                 "--device", "cpu")
    assert (code, err) == (0, "")
    assert "one -> two" in out
    made = suture.load("result")
    two = zoo.build("resnet_digits", 3)
    zoo.load_weights(two, "two.safetensors")
    wanted = suture.compare(trained, two, *small_digits(), sites=["layer1.0", "layer3.1"], methods=["dm"],
                            ood=None, device="cpu")
    assert made.table.equals(wanted.table)
    assert made.meta["fingerprints"] == wanted.meta["fingerprints"]
    assert (made.source, made.target, made.same_network, made.same_architecture) == ("one",
                                                                                     "two", False, True)
    assert not Path("result/report_figures").exists()

    drawn: list[Path] = []
    monkeypatch.setattr(files, "save_drawn", lambda _, folder: drawn.append(folder))  # takes seconds
    code, out, err = tiny.suture(monkeypatch, capsys, "report", "result", "result", "--out",
                                 "both/report.html", "--figures")
    assert (code, err) == (0, "")
    assert drawn == [Path(f"both/report_figures/{k}-one-to-two") for k in (1, 2)]
    assert "report: both/report.html" in out
    for page in ("result/report.html", "both/report.html"):
        text = Path(page).read_text()
        assert "layer3.1" in text
        assert "one" in text


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                             capsys: Capsys) -> None:
    code, out, _ = tiny.suture(monkeypatch, capsys, "layers", "tests.cli.test_commands:marked",
                               "--data", "tests.support.tiny:data")
    assert code == 0
    assert [r[0] for r in _rows(out)] == [r"\[red\]x\[/red\]", r"\:car\:"]  # as they can be written back

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
                                "tests.support.tiny:small_digits", "--epochs", 1, "--out", out)
    assert code == 0
    assert f"weights: {out}\n" in text
    assert out.exists()


def test_sites_of_a_network_without_data(command: Command) -> None:
    code, out, err = command("layers", "zoo:resnet20")
    assert (code, err) == (0, "")
    assert re.search(r"layer1\.0 .*map 16x32x32 .*1024 .*yes", out)
    code, _, err = command("layers", "tests.support.tiny:network")
    assert code == 2
    assert "inputs are unknown" in err
    code, out, _ = command("layers", "tests.support.tiny:rgb", "--input", "size=16")
    assert code == 0
    assert "map 3x16x16" in out


def test_how_a_site_is_taken_on_the_command_line(command: Command) -> None:
    code, _, err = command("layers", "zoo:resnet20", "--sites", "layer1.0@vector,layer2.0")
    assert code == 2
    assert "vector" in err
