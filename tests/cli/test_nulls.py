"""Nulls on the command line: `suture indices`, `suture arrays` and `suture compare` with labels in files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import suture
from suture.indices import of_matrices

Command = Callable[..., tuple[int, str, str]]
N = 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4))
Y = X @ RNG.normal(size=(4, 5)) + RNG.normal(size=(N, 5))
LABELS: dict[str, Any] = {"classes": np.array(list("abc"))[np.arange(N) % 3], "groups": np.arange(N) // 3,
                          "short": np.arange(N - 1), "shares": np.linspace(0, 1, N),
                          "table": np.zeros((N, 2), int), "one": np.zeros(N, int)}


@pytest.fixture
def folder(tmp_path: Path, command: Command) -> Path:
    for name, values in {"x": X, "y": Y, **LABELS}.items():
        np.save(tmp_path / f"{name}.npy", values)
    save_file({"layer": X, "number": np.arange(N) % 3, "film": np.arange(N) // 2}, tmp_path / "x.safetensors")
    np.savez(tmp_path / "y.npz", layer=Y)
    return tmp_path


@pytest.mark.parametrize("options", [{}, {"groups": "groups"}])
def test_indices_print_p_values_and_calibrated_ones(folder: Path, command: Command, options: Any) -> None:
    names = ["cka", "r2", "r2_folds@within", "magnitude"]
    flags = [part for name, label in options.items() for part in (f"--{name}", f"{label}.npy")]
    code, out, _ = command("indices", "x.npy", "y.npy", "--indices", ",".join(names), "--nulls", "30",
                           "--within", "classes.npy", *flags)
    assert code == 0
    expected = of_matrices(X, Y, names, nulls=30, within=LABELS["classes"],
                           **{name: LABELS[label] for name, label in options.items()})
    rows = {row[0]: row[1:] for line in out.splitlines() if line.startswith("│")
            for row in [[c.strip() for c in line.strip("│").split("│")]]}
    for name in names[:3]:
        null = expected[name].null
        assert null is not None
        assert rows[name][2:] == [f"{null.p:.3g}", f"{null.calibrated:.4f}"]
    assert rows["magnitude"][2:] == ["", ""]
    assert "note: magnitude has no null: it does not see" in out


@pytest.mark.parametrize("option", ["--groups", "--within"])
@pytest.mark.parametrize("label", ["short.npy", "shares.npy", "table.npy", "nothing.npy"])
def test_bad_labels_are_one_line(folder: Path, command: Command, option: str, label: str) -> None:
    for words in (("indices", "x.npy", "y.npy"), ("arrays", "x.npy", "y.npy")):
        code, _, err = command(*words, "--indices", "cka@within", option, label)
        assert (code, err.count("\n")) == (2, 1)
        assert label[:-4] in err or option[2:] in err


def test_what_cannot_be_permuted_is_a_note(folder: Path, command: Command) -> None:
    _, out, _ = command("indices", "x.npy", "y.npy", "--indices", "cka,cka@within", "--nulls", "9",
                        "--within", "one.npy", "--groups", "one.npy")
    assert "note: cka@within is missing: there is one class only" in out
    assert "note: cka has no null: 0 groups can change places, because no two have one size" in out
    assert command("indices", "x.npy", "y.npy", "--save", "m.safetensors", "--indices", "cka")[0] == 0
    code, _, err = command("indices", "m.safetensors", "--moments", "--nulls", "9")
    assert (code, err.count("\n")) == (2, 1)


def test_arrays_take_labels_from_the_source_or_from_files(folder: Path, command: Command) -> None:
    how = ("--indices", "cka,r2@within", "--labels", "number", "--nulls", "30")
    assert command("arrays", "x.safetensors", "y.npz", *how, "--groups", "film")[0] == 0
    found = suture.load("suture-arrays")
    assert found.sources == ("layer",)
    assert found.null("cka")["method"][0] == "30 permutations of groups"


@pytest.mark.parametrize(("n", "code"), [(24, 0), (23, 2)])
def test_compare_takes_labels_from_files(command: Command, n: int, code: int) -> None:
    np.save("pairs.npy", np.arange(n) // 2)
    found, _, err = command("compare", "tests.support.tiny:network", "--data", "tests.support.tiny:data",
                            "--methods", "none", "--indices", "cka@pool", "--dry-run", "--groups",
                            "pairs.npy")
    assert found == code, err
    assert ("groups" in err) == (code > 0)
