"""Every option of every command with odd values: it works, or one line says what is wrong."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from suture import SutureError
from suture.cli import commands, demo, entry_point, stitching_commands
from suture.cli.inputs import load_comparison_inputs
from suture.compare import CompareOptions, StitchOptions
from suture.zoo import kept_training
from tests.cli.conftest import Command
from tests.support import tiny

VALUES = ["", "nan", "-1", "1e400", "0", "9" * 30, "a b/,", "folder", "ü\u202e\x1b[31m\0"]
DATA = ["--data", "tests.support.tiny:data"]
COMMANDS = {
    "compare": ["tests.support.tiny:network", "tests.support.tiny:other", *DATA, "--dry-run"],
    "stitch": ["tests.support.tiny:network", "block1", "tests.support.tiny:other", "block2", *DATA],
    "train": ["zoo:resnet_digits", "--data", "tests.support.tiny:small_digits"], "demo": [],
    "layers": ["tests.support.tiny:network", *DATA], "report": ["folder"], "indices": ["a.npy", "b.npy"]}


def stop(*_: Any, **__: Any) -> None:
    raise SutureError("stopped")


@pytest.fixture
def _stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands stop before any work, after checks of their options; they are parsed as always."""
    monkeypatch.setattr(stitching_commands, "make_ready",
                        lambda *given, **named: stop(CompareOptions(*given, **named)))
    monkeypatch.setattr(stitching_commands, "stitch_networks",
                        lambda *given, **named: stop(StitchOptions(*given, **named)))
    for module, name in ((kept_training, "train_network"), (demo, "_run"), (commands, "prepare")):
        monkeypatch.setattr(module, name, stop)
    for module_name, _ in entry_point.COMMANDS.values():
        importlib.import_module(f"suture.cli.{module_name}")
    whole = typer.main.get_command(entry_point.app)  # which is slow to make
    monkeypatch.setattr(entry_point, "_find_app", lambda arguments: whole)
    monkeypatch.setattr(stitching_commands, "load_comparison_inputs", cache(load_comparison_inputs))
    digits = tiny.small_digits()
    monkeypatch.setattr(tiny, "small_digits", lambda: digits)
    (tmp_path / "folder").mkdir()
    for seed, name in enumerate("ab"):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(seed).random((12, 2)))


def list_calls(name: str) -> list[list[str]]:
    """Return the arguments of a command with each odd value for each option and argument.

    Most options of `stitch` are those of `compare`, of the same record.
    """
    usual: list[str] = COMMANDS[name]
    found, places = [], 0
    every: Any = typer.main.get_command(entry_point.app)
    known = {p.name for p in every.commands["compare"].params} if name == "stitch" else set()
    for p in every.commands[name].params:
        for value in VALUES:
            if p.param_type_name == "argument":
                found.append([*usual[:places], value, *usual[places + 1:]])
            elif p.name not in {"help", *known}:
                found.append([*usual, f"{p.opts[-1]}={value}"])
        places += p.param_type_name == "argument" and places < len(usual) - 1
    return found


@pytest.mark.usefixtures("_stopped")
@pytest.mark.parametrize("name", COMMANDS)
def test_odd_values_of_options(name: str, command: Command) -> None:
    wrong = []
    for arguments in list_calls(name):
        code, out, err = command(name, *arguments)
        words = [line for line in err.splitlines() if not line.startswith("note: ")]
        fair = (code, len(words)) in ((0, 0), (2, 1))
        if not fair or "SUTURE_TRACEBACK" in err or "Traceback" in out + err:
            wrong.append((arguments, code, err))
        assert "\x1b" not in err
    assert not wrong
    assert sorted(p.name for p in Path().iterdir()) == ["a.npy", "b.npy", "folder"]
