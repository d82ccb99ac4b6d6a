"""Indices without any network: files and folders of arrays, moments that are saved, merged, and refused."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import numpy as safetensors

import suture
from suture import SutureError, indices
from suture._base import SutureWarning
from suture.cli import main
from suture.indices.saved_moments import load_moments
from tests.support import references

NAMES = ["cka", "cka_debiased", "svcca:0.9", "r2_folds", "rsa_correlation", "jaccard", "cka@flatten"]
Values = dict[str, indices.Value]


def matrices(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    g = np.random.default_rng(seed)
    x = g.normal(size=(n, 6)) + 3
    return x, x @ g.normal(size=(6, 4)) + g.normal(size=(n, 4))


def folder(place: Path, x: np.ndarray, sizes: list[int]) -> Path:
    """Batches of rows under numbered names, each kind of file once."""
    place.mkdir()
    writers: list[tuple[str, Callable[[Path, np.ndarray], Any]]] = [
        (".npy", np.save), (".npz", lambda p, m: np.savez(p, rows=m)),
        (".safetensors", lambda p, m: safetensors.save_file({"rows": np.ascontiguousarray(m)}, p))]
    for k, part in enumerate(np.split(x, np.cumsum(sizes)[:-1])):
        suffix, write = writers[k % 3]
        write(place / f"{k:02}{suffix}", part)
    return place


def agree(a: Values, b: Values, within: float = 1e-10) -> None:
    assert list(a) == list(b)
    for name in a:
        assert not a[name].reason
        for field in ("value", "low", "high"):
            one, other = getattr(a[name], field), getattr(b[name], field)
            assert (math.isclose(one, other, abs_tol=within)
                    or (math.isnan(one) and math.isnan(other))), (name, field)


@pytest.mark.parametrize("sizes", [[300], [100, 1, 199], [60] * 5])
def test_folders_in_any_pieces_equal_the_matrices(tmp_path: Path, sizes: list[int]) -> None:
    x, y = matrices()
    whole = indices.of_matrices(x, y, NAMES, jackknife=10)
    found = suture.compare_arrays(folder(tmp_path / "x", x, sizes), str(folder(tmp_path / "y", y, sizes)),
                                  NAMES, jackknife=10)
    agree(found, whole, 1e-6)
    assert found["cka"].value == pytest.approx(references.cka(x, y), abs=1e-12)


def test_long_files_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suture.indices.matrices.CHUNK_ROWS", 7)
    x, y = matrices()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    agree(suture.compare_arrays(tmp_path / "x.npy", tmp_path / "y.npy", NAMES),
          indices.of_matrices(x, y, NAMES), 1e-6)


def test_moments_of_several_machines_are_those_of_all_rows(tmp_path: Path) -> None:
    x, y = matrices()
    names, paths = ["moments"], []
    for k, rows in enumerate((slice(0, 120), slice(120, 300))):
        paths.append(tmp_path / f"{k}.safetensors")
        suture.compare_arrays(x[rows], torch.from_numpy(y[rows]), names, jackknife=5, save=paths[-1])
    merged = suture.merged_moments(paths, names)
    whole = indices.of_matrices(x, y, names)
    # Folds are other rows there.
    agree(*({n: v for n, v in found.items() if n != "r2_folds"} for found in (merged, whole)), 1e-7)
    assert len([b for p in paths for b in load_moments(p).blocks]) == 10
    spread = suture.merged_moments(paths, ["cka"], intervals=True)["cka"]
    assert spread.low < whole["cka"].value < spread.high


def shards(place: Path, x: np.ndarray, y: np.ndarray, **rows: Any) -> dict[str, Path]:
    for name, kept in rows.items():
        suture.compare_arrays(x[kept], y[kept], ["cka"], save=place / f"{name}.safetensors")
    return {name: place / f"{name}.safetensors" for name in rows}


def test_the_same_rows_are_refused_and_disjoint_ones_are_not(tmp_path: Path) -> None:
    x, y = matrices(600)
    first = np.arange(300)
    files = shards(tmp_path, x, y, a=first, b=first + 300, overlap=np.arange(280, 400),
                   part=np.arange(100, 130), mixed=np.random.default_rng(1).permutation(first))
    files["again"] = tmp_path / "again.safetensors"
    suture.compare_arrays(x[:300].astype(np.float64), y[:300], ["cka"], jackknife=5, save=files["again"])
    files["copy"] = tmp_path / "copy.safetensors"
    files["copy"].write_bytes(files["a"].read_bytes())
    merged = suture.merged_moments([files["a"], files["b"]], ["cka"])
    agree(merged, indices.of_matrices(x, y, ["cka"]), 1e-7)
    for names in (["a", "a"], ["a", "b", "a"], ["a", "copy"], ["a", "again"], ["a", "mixed"],
                  ["a", "overlap"], ["overlap", "b"], ["part", "a"], ["mixed", "part"]):
        with pytest.raises(SutureError, match="got the same rows in"):
            suture.merged_moments([files[n] for n in names])
    other_way = os.path.relpath(files["a"])
    with pytest.raises(SutureError, match="disjoint"):
        suture.merged_moments([files["a"], other_way])
    suture.merged_moments([files["part"], files["b"]])


def test_the_same_moments_of_early_files_are_refused_too(tmp_path: Path) -> None:
    x, y = matrices(80)
    files = shards(tmp_path, x, y, a=np.arange(40), b=np.arange(40, 80))
    for path in files.values():
        tensors = {k: v for k, v in safetensors.load_file(path).items() if not k.startswith("rows/")}
        safetensors.save_file(tensors, path, {"format": "suture.moments/1", "precision": "torch.float64",
                                              "n": "[40]", "blocks": "1"})
    with pytest.warns(SutureWarning, match="without a digest"):
        suture.merged_moments(list(files.values()))
    with pytest.warns(SutureWarning), pytest.raises(SutureError, match="the same rows"):
        suture.merged_moments([files["a"], files["a"]])


def test_rows_that_repeat_by_nature_may_be_in_several_files(tmp_path: Path) -> None:
    """Tokens of a small vocabulary, a template before each text, dead units: no sign of an overlap."""
    g = np.random.default_rng(0)
    words = g.normal(size=(50, 6))
    x = words[g.integers(50, size=4000)]
    template = g.normal(size=(20, 6))
    texts = np.concatenate([np.concatenate([template, g.normal(size=(30, 6))]) for _ in range(80)])
    dead = g.normal(size=(4000, 6)) * (g.random(4000) > 0.5)[:, None]
    for name, m in (("words", x), ("texts", texts), ("dead", dead)):
        y = m @ g.normal(size=(6, 4))
        files = shards(tmp_path, m, y, **{f"{name}{k}": np.arange(2000 * k, 2000 * k + 2000) for k in (0, 1)})
        agree(suture.merged_moments(list(files.values()), ["cka"]), indices.of_matrices(m, y, ["cka"]), 1e-7)


def test_long_files_that_overlap_little_are_told_by_their_sketch(tmp_path: Path) -> None:
    x, y = matrices(20_000)
    files = shards(tmp_path, x, y, a=np.arange(11_000), b=np.arange(10_000, 20_000),
                   c=np.arange(11_000, 20_000))
    suture.merged_moments([files["a"], files["c"]])
    with pytest.raises(SutureError, match="the same rows"):
        suture.merged_moments([files["a"], files["b"]])


def test_moments_are_saved_beside_indices_that_need_none(tmp_path: Path) -> None:
    saved = tmp_path / "moments.safetensors"
    suture.compare_arrays(*matrices(), ["jaccard"], jackknife=5, save=saved)
    assert len(load_moments(saved).blocks) == 5
    agree(suture.merged_moments([saved], ["cka"]), indices.of_matrices(*matrices(), ["cka"]), 1e-7)


def test_files_of_the_first_format_which_have_no_digest_still_load(tmp_path: Path) -> None:
    new, old = tmp_path / "new.safetensors", tmp_path / "old.safetensors"
    suture.compare_arrays(*matrices(), ["moments"], jackknife=5, save=new)
    about = {"format": "suture.moments/1", "blocks": "5", "precision": "torch.float64",
             "n": "[60, 60, 60, 60, 60]"}
    safetensors.save_file(safetensors.load_file(new), old, about)
    assert suture.merged_moments([old], "moments") == suture.merged_moments([new], "moments")
    safetensors.save_file(safetensors.load_file(new), old, about | {"format": "suture.moments/2"})
    with pytest.raises(SutureError, match="is damaged"):
        suture.merged_moments([old])


def damage(place: Path) -> None:
    raw = (place / "m.safetensors").read_bytes()
    (place / "m.safetensors").write_bytes(raw[:len(raw) // 2])


def objects(place: Path) -> None:
    np.save(place / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


BAD: dict[str, tuple[Callable[[Path], Any], list[str], str]] = {
    "other rows": (lambda p: np.save(p / "x.npy", matrices(7)[0]), ["x.npy", "y.npy"], "got 7 in"),
    "no such file": (lambda p: None, ["x.npy", "z.npy"], "expected a file of arrays"),
    "one path": (lambda p: None, ["x.npy"], "expected a source and a target, got 1"),
    "a folder and a file": (lambda p: (p / "f").mkdir(), ["f", "y.npy"], "two folders or two arrays"),
    "folders of other names": (lambda p: [folder(p / d, matrices(9)[0], s)
                                          for d, s in (("a", [9]), ("b", [4, 5]))],
                               ["a", "b"], "in one of them only"),
    "empty folders": (lambda p: [(p / d).mkdir() for d in "ab"], ["a", "b"], "got none"),
    "maps": (lambda p: np.save(p / "x.npy", np.zeros((4, 3, 2, 2))), ["x.npy", "y.npy"], "pool or flatten"),
    "two arrays in one": (lambda p: np.savez(p / "x.npz", a=np.eye(3), b=np.eye(3)), ["x.npz", "y.npy"],
                          "one array"),
    "pickled objects": (objects, ["x.npy", "y.npy"], "expected an array"),
    "NaN": (lambda p: np.save(p / "x.npy", np.full((300, 2), np.nan)), ["x.npy", "y.npy"], "finite"),
    "no moments": (lambda p: safetensors.save_file({"a": np.eye(2)}, p / "n.safetensors"),
                   ["n.safetensors", "--moments"], "suture.moments/2, got None"),
    "damaged moments": (damage, ["m.safetensors", "--moments"], "is damaged"),
    "rows from moments": (lambda p: None, ["m.safetensors", "--moments", "--indices", "jaccard"],
                          "kept sample"),
    "intervals from one block": (lambda p: None, ["m.safetensors", "--moments", "--jackknife", "20"],
                                 "two blocks"),
    "other widths": (lambda p: suture.compare_arrays(matrices()[0], matrices()[0], save=p / "o.safetensors"),
                     ["m.safetensors", "o.safetensors", "--moments"], "same two matrices"),
    "blocks": (lambda p: None, ["x.npy", "y.npy", "--jackknife", "7"], "multiple of 5"),
    "save and merge": (lambda p: None, ["m.safetensors", "--moments", "--save", "n.safetensors"], "got both"),
    "pool": (lambda p: None, ["x.npy", "y.npy", "--indices", "cka@pool"], "two matrices as they are"),
    "place of moments": (lambda p: None, ["x.npy", "y.npy", "--save", "m.bin"], "m.safetensors"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    make, arguments, expected = BAD[name]
    monkeypatch.chdir(tmp_path)
    for side, m in zip("xy", matrices(), strict=True):
        np.save(f"{side}.npy", m)
    suture.compare_arrays("x.npy", "y.npy", save="m.safetensors")
    make(tmp_path)
    monkeypatch.setattr("sys.argv", ["suture", "indices", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert expected in text


def test_the_command_prints_values_intervals_and_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    x, y = matrices()
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", x)
    np.save("y.npy", np.zeros_like(y))
    np.save("z.npy", y.astype(np.float16))
    saving = ["--jackknife", "10", "--save", "m.safetensors"]
    for arguments, expected in ((["x.npy", "z.npy", *saving], ["cka", " to ", "moments:"]),
                            (["x.npy", "y.npy"], ["constant target"])):
        monkeypatch.setattr("sys.argv", ["suture", "indices", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in expected), shown
    half = indices.of_matrices(x, y.astype(np.float16))["cka"].value
    assert half == pytest.approx(references.cka(x, y.astype(np.float16).astype(np.float64)), abs=1e-12)
    assert load_moments("m.safetensors").blocks[0].moments.n == 30


def test_a_failed_save_leaves_the_earlier_file(tmp_path: Path) -> None:
    x, y = matrices()
    place = tmp_path / "m.safetensors"
    suture.compare_arrays(x, y, save=place)
    before = place.read_bytes()
    with pytest.raises(SutureError):
        suture.compare_arrays(x, y[:-1], save=place)
    assert place.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"]
