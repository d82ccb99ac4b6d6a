"""All commands: their help, and what is wrong on a command line, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import tiny

Capsys = pytest.CaptureFixture[str]


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


@pytest.mark.parametrize(("args", "words"), [
    (["compare"], "Missing argument"), (["compare", "x", "--bogus"], "--bogus"), (["nosuch"], "nosuch"),
    (["compare", "zoo:resnet_digits", "--epochs", "many"], "--epochs"),
    (["compare", "zoo:resnet_digits", "--seed", "-1"], "seed: expected at least 0, got -1"),
    (["compare", "zoo:resnet_digits", "--epochs", "0"], "epochs: expected at least 1, got 0"),
    (["compare", "zoo:resnet_digits", "--temperature", "0"],
     "temperature: expected above 0, got 0.0"),
    (["compare", "zoo:resnet_digits", "--objective", "softer"], "unknown objective 'softer'; nearest: soft"),
    (["compare", "zoo:resnet_digits", "--init", "zeros"], "random, dm, identity"),
    (["compare", "zoo:resnet_digit"], "nearest: resnet_digits"), (["compare", "zoo"], "zoo:resnet_digits"),
    (["compare", "zoo:resnet_digits", "--source-weights", "none.pt"], "none.pt"),
    (["compare", "zoo:resnet_digits", "--data", "digit"], "digits"),
    (["compare", "tests.support.tiny:netwrk"], "nearest: network"),
    (["layers", "tests.support.tiny:netwrk"], "nearest: network"),
    (["train", "tests.support.tiny:network"], "expected zoo:NAME"),
    (["train", "zoo:resnet_digits", "--data", "tests.support.tiny:data"], "ImageSet"),
    (["train", "zoo:resnet_digits", "--out", "w.pt"], "write w.safetensors"),
    (["train", "zoo:resnet_digits", "--epochs", "0"], "epochs"),
    (["report", "nowhere"], "got 'nowhere'"),
])
def test_commands_that_make_no_sense(args: list[str], words: str, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = tiny.suture(monkeypatch, capsys, *args)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("suture: ")
    assert words in err
    assert list(tmp_path.iterdir()) == []
