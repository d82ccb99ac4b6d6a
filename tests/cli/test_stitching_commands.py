"""`suture compare` and `suture stitch`: what they compute, what they refuse, and interruptions."""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import suture
from suture import SutureError, TaskRecipe, cli, specs, zoo
from suture.cli import stitching_commands
from suture.results import has_comparison
from tests.support import bad_input, tiny
from tests.support.bad_input import CASES, check_message, three_channels
from tests.support.interruptions import assert_same_numbers, interrupting
from tests.support.kept_runs import begin
from tests.support.tiny import data, images, network, other, stitched

Capsys = pytest.CaptureFixture[str]
PATIENCE = 900
"""Seconds until a process is taken for stuck: many, for a busy machine."""


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
        assert note in out


def test_no_methods_gives_indices_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capsys: Capsys) -> None:
    monkeypatch.setattr(import_module("suture.compare.run"), "set_up", None)  # the dry run's is handed on
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
    assert stitching_commands._choose_names(*given) == names


ARGS = ("stitch", "tests.support.tiny:network", "block1", "tests.support.tiny:other", "block2", "--data",
        "tests.support.tiny:data")


def test_the_command_saves_the_layer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                     tmp_path: Path) -> None:
    code, out, err = tiny.suture(monkeypatch, capsys, *ARGS, "--family", "rank:2", "--out",
                                 str(tmp_path / "s.safetensors"))
    assert (code, err) == (0, "")
    assert "s.safetensors" in out.replace("\n", "")
    found = suture.load_stitched(tmp_path / "s.safetensors", network(), other())
    wanted = stitched(family="rank:2")
    torch.testing.assert_close(found(images()), wanted(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("args", "words"), [
    ((*ARGS[:2], "blok1", *ARGS[3:]), "nearest: block1"), ((*ARGS, "--family", "rank:9"), "rank"),
    ((*ARGS, "--family", "ful"), "nearest: full"), ((*ARGS, "--preset", "papre"), "unknown preset 'papre'"),
    ((*ARGS, "--preset", "paper", "--examples", "9"), "expected --preset alone"),
    ((*ARGS, "--method", "tlm", "--family", "permutation"), "got permutation"),
    ((*ARGS, "--out", "s.pt"), "safetensors"), ((*ARGS, "--resize", "bicubic"), "unknown resize"),
    (("compare", "tests.support.tiny:network", "--data", "tests.support.tiny:data", "--family", "rank:9"),
     "rank"), (("compare", "tests.support.tiny:network", "--data", "tests.support.tiny:data", "--preset",
                "paper", "--lr", "0.1"), "expected --preset alone"),
])
def test_commands_that_cannot_be_done(args: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = tiny.suture(monkeypatch, capsys, *args)
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1


def test_compare_takes_families_and_rules(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                          tmp_path: Path) -> None:
    code, _, err = tiny.suture(monkeypatch, capsys, "compare", "tests.support.tiny:network", "--data",
                               "tests.support.tiny:data", "--family", "diagonal", "--methods", "dm",
                               "--resize", "nearest", "--examples", "10", "--out", str(tmp_path / "r"))
    assert (code, err) == (0, "")
    result = suture.load(tmp_path / "r")
    settings = result.meta["settings"]
    assert (settings["family"], settings["alignment"]["resize"], settings["examples"]) == ("diagonal",
                                                                                           "nearest", 10)
    reasons = result.table.query("measure == 'dm.accuracy'").set_index(["source", "target"])["reason"]
    assert "diagonal" in reasons["block1", "block2"]
    assert reasons["block1", "block1"] == ""


# -- what is refused -----------------------------------------------------------------------------------------

def _compare(*args: object, out: Path) -> list[object]:
    return ["compare", "tests.support.tiny:network", "--data", "tests.support.tiny:data", "--epochs", 2,
            "--batch-size", 8, "--ood", "none", "--device", "cpu", "--out", out, *args]


WITHOUT_OPTIONS = ("loaders of unequal length", "zero batches", "label above", "NaN in a representation",
                   "an iterator", "wrong channels in the target", "a forward that asserts",
                   "a scripted network", "no data")
"""One case of each kind of bad data or network, all of which `compare` refuses in its own tests."""


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if case.options or name in WITHOUT_OPTIONS else pytest.mark.slow)
    for name, case in CASES.items() if case.cli])
def test_the_command_refuses_in_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    given = [f"{bad_input.__name__}:{f.__name__}" for f in (case.network, case.target) if f]
    options = {"data": f"{bad_input.__name__}:{case.data.__name__}", "epochs": 1, "batch_size": 16,
               "out": tmp_path / "out", "device": "cpu", **case.options}
    for k, v in options.items():
        given += [f"--{k.replace('_', '-')}", ",".join(v) if isinstance(v, list) else str(v)]
    code, _, err = tiny.suture(monkeypatch, capsys, "compare", *given)
    assert code == 2
    assert err.startswith("suture: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    check_message(err.removeprefix("suture: ").rstrip("\n"), case.words)


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(stitching_commands.specs, "load_data",
                        lambda spec: pytest.fail("read the data first"))
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "below"
    commands = [["compare", "tests.support.tiny:network", "--out", out], ["demo", "--out", out],
                ["train", "zoo:resnet_digits", "--out", out / "w.safetensors"]]
    for command in commands:
        code, _, err = tiny.suture(monkeypatch, capsys, *command)
        assert (code, err.count("\n")) == (2, 1)
        assert "cannot write" in err
        assert str(tmp_path / "file") in err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_holds_other_things_is_refused_and_left_alone(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    code, _, err = tiny.suture(monkeypatch, capsys, *_compare("--methods", "none", out=tmp_path))
    assert (code, err.count("\n")) == (2, 1)
    assert "thesis.tex" in err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_weights_that_do_not_fit_name_the_first_keys(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "w.safetensors"
    made = three_channels()
    made.extra = nn.Linear(1, 1)
    del made.head
    zoo.save_weights(made, path)
    words = ("missing: head.weight, head.bias", "unexpected: extra.bias, extra.weight",
             "wrong shape: block1.conv.weight (file (3, 3, 3, 3), network (3, 2, 3, 3))")
    with pytest.raises(SutureError) as error:
        specs.build_network("tests.support.tiny:network", weights=path)
    check_message(str(error.value).replace("extra.weight, extra.bias", "extra.bias, extra.weight"), words)
    code, _, err = tiny.suture(monkeypatch, capsys, *_compare("--source-weights", path, out=tmp_path / "out"))
    assert (code, err.count("\n")) == (2, 1)
    check_message(err.rstrip("\n").replace("extra.weight, extra.bias", "extra.bias, extra.weight"), words)
    assert not (tmp_path / "out").exists()


# -- Ctrl-C --------------------------------------------------------------------------------------------------

def test_the_command_interrupted_goes_on_and_refuses_other_settings(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    @contextmanager
    def bars() -> Iterator[Any]:
        yield interrupting

    with monkeypatch.context() as patched:
        patched.setattr(stitching_commands, "show_progress", bars)
        code, _, err = tiny.suture(monkeypatch, capsys, *_compare(out=tmp_path / "a"))
    assert (code, err.count("\n")) == (130, 1)
    assert err.startswith("suture: interrupted")
    kept = suture.load(tmp_path / "a")
    assert kept.meta["stages"] == ["moments", "dm"]

    code, _, err = tiny.suture(monkeypatch, capsys, *_compare("--lr", 0.5, out=tmp_path / "a"))
    assert (code, err.count("\n")) == (2, 1)
    assert "other networks, data or settings" in err
    assert suture.load(tmp_path / "a").equals(kept)

    for place in ("a", "b"):
        code, _, err = tiny.suture(monkeypatch, capsys, *_compare(out=tmp_path / place))
        assert (code, err) == (0, "")
    assert_same_numbers(suture.load(tmp_path / "a"), suture.load(tmp_path / "b"))


def test_a_real_interruption_of_a_real_process(tmp_path: Path) -> None:
    """It has the exit code, and one line instead of a traceback."""
    place, printed = tmp_path / "out", [tmp_path / "stdout", tmp_path / "stderr"]

    def run() -> None:
        # A shell that runs tests in the background hands on an ignored SIGINT, so the child asks for the
        # usual one.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for name, path in zip(("stdout", "stderr"), printed, strict=True):
            setattr(sys, name, path.open("w", buffering=1))
        sys.argv = ["suture", *map(str, _compare("--epochs", 10**6, out=place))]
        try:
            cli.main()
        except SystemExit as stop:
            os._exit(int(stop.code or 0))

    child, deadline = begin(run), time.monotonic() + PATIENCE
    try:
        while not (has_comparison(place) and "dm" in suture.load(place).meta["stages"]):
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
            assert time.monotonic() < deadline
            time.sleep(0.3)  # looking takes from the process what it needs to come so far
        os.kill(child, signal.SIGINT)
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    out, err = (path.read_text() for path in printed)
    assert (os.waitstatus_to_exitcode(ended[1]), err.count("\n")) == (130, 1)
    assert "detectors come on top\n" in out  # of the dry run
    assert err.startswith("suture: interrupted")
    assert suture.load(place).meta["stages"] == ["moments", "dm"]


def test_a_repeated_command_takes_over_what_is_the_same_and_refuses_what_changed(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = ("from tests.support.tiny import Tiny, seeded\n\nclass Own(Tiny):\n    def forward(self, x):\n"
            "        return super().forward(x) * {}\n\ndef build():\n    return seeded(Own)\n")
    x, y = images(40).numpy(), torch.arange(40) % 3

    def run(factor: float = 1.0, last: float = 0.0) -> tuple[int, str, str]:
        changed = x.copy()
        changed[-1, -1, -1, -1] += last
        np.savez("own.npz", x_train=changed, y_train=y, x_test=x[:8], y_test=y[:8])
        Path("own_models.py").write_text(text.format(factor))
        sys.modules.pop("own_models", None)
        importlib.invalidate_caches()
        shutil.rmtree("__pycache__", ignore_errors=True)  # which goes by seconds
        return tiny.suture(monkeypatch, capsys, "compare", "own_models:build", "--data", "own.npz",
                           "--methods", "dm", "--indices", "cka", "--ood", "none", "--device", "cpu")

    code, out, err = run()
    assert (code, "taken over" in out) == (0, False), err
    code, out, err = run()
    assert code == 0
    assert "note: taken over: moments, dm (computed 2" in out
    for changes, what in (({"last": 1.0}, "(data: inputs)"), ({"factor": 2.0}, "(code of the source)")):
        code, _, err = run(**changes)
        assert (code, what in err) == (2, True), err
