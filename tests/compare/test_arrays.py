"""Comparisons of named arrays: equal to those of networks and to those of each pair of matrices."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

import suture
from suture import Comparison, SutureError, indices, zoo
from suture._base.keeping import checkpoints
from suture.cli import main
from suture.compare.arrays import sides
from suture.compare.settings import CompareOptions
from suture.compare.setup import set_up
from suture.representations import select_mask
from tests.support import kinds, sequences

N = 60
Arrays = dict[str, Any]
NAMES = ["cka", "cka_debiased", "pwcca", "r2", "r2_folds", "jaccard:5", "rsa_cosine@pool", "cka@pool",
         "r2_folds@pool", "jaccard:5@pool"]
"""At least one index of each need and alignment, but for `FLAT`."""
FLAT = ["cka@flatten", "cka_minibatch@flatten", "cka@paper", "pwcca@paper"]


def make_arrays(seed: int = 0) -> tuple[Arrays, Arrays]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(N, 5))
    return ({name: np.tanh(z @ rng.normal(size=(5, p))) + 0.1 * rng.normal(size=(N, p)) + 3
             for name, p in (("a", 6), ("b", 4))},
            {name: z @ rng.normal(size=(5, p)) + 0.3 * rng.normal(size=(N, p))
             for name, p in (("c", 5), ("d", 3))})


A, B = make_arrays()
X = A["a"]


def assert_same(found: Comparison, expected: Comparison) -> None:
    one, two = found.table, expected.table
    for column in ("source", "target", "measure", "n", "reason", "mark"):
        assert one[column].tolist() == two[column].tolist(), column
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(one[column], two[column], rtol=1e-9, atol=1e-9)
    spectra = [name for name in expected.arrays if "spectrum" in name]
    assert [name for name in found.arrays if "spectrum" in name] == spectra
    for name in spectra:
        np.testing.assert_allclose(found.arrays[name], expected.arrays[name], rtol=1e-9, atol=1e-9)


@torch.no_grad()
def run_fronts(**options: Any) -> list[Arrays]:
    """Return what the sites of both networks give in a comparison, texts as lists without padding."""
    setup = set_up(CompareOptions(**options))
    found: list[dict[str, list[Any]]] = [{str(s): [] for s in net.sites}
                                         for net in (setup.source, setup.target)]
    for batch in setup.data.fit:
        for piece in [p for p, _ in setup.pieces.map(batch, None, lambda p: None)]:
            for net, given, rows in zip((setup.source, setup.target), (piece.source, piece.target), found,
                                        strict=True):
                mask = select_mask(net.find_masks(given), 0)
                for site, shape, x in zip(rows.values(), net.shapes, net.front(given), strict=True):
                    site += x if not shape.varies or mask is None else [
                        one[kept] for one, kept in zip(x, mask, strict=True)]
    return [{name: [x.clone() for x in rows] for name, rows in of.items()} for of in found]


def test_the_sites_of_a_network_of_the_zoo_give_what_the_network_gives() -> None:
    images = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    given: dict[str, Any] = {"indices": [*NAMES, *FLAT], "sample": 20, "seed": 3}
    how = {"source": zoo.build("resnet_digits"), "data": (images, torch.zeros(24).long()), "methods": (),
           "sites": ["layer1.0", "layer3.1"], "precision": "float64", **given}
    arrays = {name: torch.stack(x) for name, x in run_fronts(**how)[0].items()}
    expected = suture.compare(**how)
    found = suture.compare_arrays(arrays, **given)
    assert_same(found, expected)
    assert (found.same_network, found.sources) == (True, expected.sources)
    assert found.verdict().table.drop(columns="worst_margin").equals(
        expected.verdict().table.drop(columns="worst_margin"))


KIND_PAIRS = {
    ("map 4x4", "last 3x5"): (None, "map:last"), ("class token, 4x4", "vector"): ("tokens:1,4x4", None),
    ("signal 12", "sequence 7"): ("map", None), ("volume 2x4x4", "patches 2x2x2"): (None, "tokens:1,2x2x2"),
}


@pytest.mark.parametrize("pair", KIND_PAIRS, ids=" and ".join)
def test_arrays_of_every_kind_give_what_networks_give(pair: tuple[str, str]) -> None:
    shapes = [kinds.SHAPES[name] for name in pair]
    networks = [kinds.network(name, seed) for seed, name in enumerate(pair)]
    data = suture.Paired(*([(kinds.inputs_for(shape, 40), torch.zeros(40).long())] for shape in shapes))
    written = [f"site@{kind}" if kind else "site" for kind in KIND_PAIRS[pair]]
    given: dict[str, Any] = {"indices": [*NAMES, "cka@flatten"], "precision": "float64", "sample": 30}
    how = {"source": networks[0], "target": networks[1], "data": data, "sites": written[:1],
           "target_sites": written[1:], "methods": (), **given}
    expected, arrays = suture.compare(**how), run_fronts(**how)
    found = suture.compare_arrays(*arrays, kinds=[
        None if kind is None else dict.fromkeys(of, kind) for of, kind in zip(
            arrays, KIND_PAIRS[pair], strict=True)], **given)
    assert found.meta["shapes"] == expected.meta["shapes"]
    assert_same(found, expected)


def test_lists_of_texts_give_what_a_network_with_masks_gives() -> None:
    source, target = sequences.two()
    how: dict[str, Any] = {"source": source, "target": target, "sites": ["blocks.1", "pool"], "sample": 20,
                           "data": sequences.collated(sequences.TEXTS, 7), "methods": (), "indices": NAMES,
                           "precision": "float64"}
    found = suture.compare_arrays(*run_fronts(**how), NAMES, sample=20)
    assert found.meta["shapes"]["source"][0].startswith("tokens ~")
    assert_same(found, suture.compare(**how))


def test_every_cell_has_the_indices_of_its_two_matrices() -> None:
    names = ["cka", "cka_debiased", "cca", "svcca:0.9", "opd", "r2_folds", "rsa_cosine", "jaccard:5"]
    some = {"d": B["d"]}
    found = suture.compare_arrays(A, some, names, jackknife=5, sample=50, seed=1)
    for a, x in A.items():
        for b, y in some.items():
            expected = indices.of_matrices(x, y, names, jackknife=5, sample=50, seed=1)
            for name, value in expected.items():
                cells = {what: found.matrix(name, what).loc[a, b] for what in ("value", "low", "high")}
                np.testing.assert_allclose([*cells.values()], [value.value, value.low, value.high], rtol=1e-9,
                                           atol=1e-9, err_msg=name)
                assert (found.matrix(name, "reason").loc[a, b], found.matrix(name, "mark").loc[a, b]) == (
                    value.reason, value.mark)


class Rows:
    """An array of another library, of which only rows can be read."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._values, self.shape, self.dtype, self.most = values, values.shape, values.dtype, 0

    def __getitem__(self, rows: slice) -> Any:
        self.most = max(self.most, rows.stop - rows.start)
        return self._values[rows]

    def __array__(self, *given: Any) -> Any:
        raise MemoryError("read whole")


def test_arrays_are_read_in_batches_and_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    some = ["cka", "r2_folds", "jaccard:5", "cka@pool", "cka@flatten"]
    whole = suture.compare_arrays(A, B, some)
    monkeypatch.setattr(sides, "_ROWS_AT_ONCE", 7)
    rows = {side: {name: Rows(x) for name, x in of.items()} for side, of in (("a", A), ("b", B))}
    assert_same(suture.compare_arrays(rows["a"], rows["b"], some), whole)
    assert {x.most for of in rows.values() for x in of.values()} == {7}


def save_npy(folder: Path) -> Path:
    np.save(folder / "x.npy", X)
    return folder / "x.npy"


FORMS: dict[str, Callable[[Path], Any]] = {
    "mapped": lambda p: np.load(save_npy(p), mmap_mode="r"), "path": save_npy,
    "text": lambda p: str(save_npy(p)), "tensor": lambda p: torch.tensor(X, requires_grad=True),
    "list": lambda p: list(X),
    "nested lists": lambda p: X.tolist(), "other byte order": lambda p: X.astype(">f8"),
    "columns first": lambda p: np.asfortranarray(X), "every second": lambda p: np.repeat(X, 2, 0)[::2],
    "backwards": lambda p: X[::-1].copy()[::-1], "sparse": lambda p: torch.tensor(X).to_sparse(),
    "objects": lambda p: np.array([*X, None], dtype=object)[:-1], "one row at a time": lambda p: Rows(X),
}
TYPES: dict[str, Callable[[], Any]] = {
    "float16": lambda: X.astype(np.float16), "int8": lambda: (9 * X).astype(np.int8), "bool": lambda: X > 3,
    "uint16": lambda: (900 * X).astype(np.uint16), "bfloat16": lambda: torch.tensor(X).bfloat16(),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_an_array_gives_the_same(name: str, tmp_path: Path) -> None:
    expected = suture.compare_arrays({"a": X}, B, ["cka", "jaccard:5"])
    assert_same(suture.compare_arrays({"a": FORMS[name](tmp_path)}, B, ["cka", "jaccard:5"]), expected)


@pytest.mark.parametrize("name", TYPES)
def test_every_type_of_numbers_is_computed_in_double_precision(name: str) -> None:
    x = TYPES[name]()
    plain = (x.double() if isinstance(x, torch.Tensor) else torch.as_tensor(x.astype(np.float64))).numpy()
    assert_same(suture.compare_arrays({"a": x}, B, ["cka"]), suture.compare_arrays({"a": plain}, B, ["cka"]))


def test_one_dictionary_or_the_same_arrays_twice_are_one_network() -> None:
    alone = suture.compare_arrays(A)
    for other in (suture.compare_arrays(A, A), suture.compare_arrays(A, dict(A))):
        assert_same(other, alone)
        assert other.same_network
    two = suture.compare_arrays(A, {name: x.copy() for name, x in A.items()})
    assert not two.same_network
    assert two.same_architecture
    np.testing.assert_allclose(two.table["value"], alone.table["value"], rtol=1e-9, atol=1e-9)
    assert not suture.compare_arrays(A, B).corresponds


def test_the_result_is_a_comparison(tmp_path: Path) -> None:
    labels = ["dog", "cat"] * (N // 2)
    found = suture.compare_arrays(A, B, "cka", jackknife=5, labels=labels, names=("left", "right"))
    assert found.matrix("cka").shape == (2, 2)
    assert (found.matrix("cka", "low") < found.matrix("cka")).all(axis=None)
    assert suture.load(found.save(tmp_path / "kept")).equals(found)
    assert list(found.statistics()["site"]) == ["a", "b", "c", "d"]
    assert found.arrays["labels"].tolist() == [1, 0] * (N // 2)
    assert (found.source, found.target, found.meta["n_fit"]) == ("left", "right", N)
    assert found.findings(correspond={"c": "a"}).all
    with pytest.raises(SutureError, match="no verdicts"):
        found.cells()


def test_a_folder_keeps_the_result_for_the_same_arrays_alone(tmp_path: Path) -> None:
    def run(target: Arrays = B, **how: Any) -> Comparison:
        return suture.compare_arrays(A, target, **{"indices": "opd", **how}, save_to=tmp_path / "out")

    first = run()
    again = run()
    assert again.meta["notes"][0].startswith("taken over: moments")
    assert again.table.equals(first.table)
    other = {name: x + (name == "d") * np.eye(N, x.shape[1]) for name, x in B.items()}
    for target, how, words in ((other, {}, "arrays: inputs"), (B, {"indices": "cka"}, "indices"),
                               ({"c": B["c"]}, {}, "target.arrays"),
                               (B, {"labels": np.arange(N)}, "labels")):
        with pytest.raises(SutureError, match=words):
            run(target, **how)
    assert not any("taken over" in note for note in run(other, restart=True).meta["notes"])


def test_what_is_taken_over_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoints, "_SHARE", 0)
    monkeypatch.setattr(sides, "_ROWS_AT_ONCE", 7)
    seen: list[str] = []

    def run(stop: bool = False) -> None:
        def progress(stage: str, done: int, total: int | None) -> None:
            seen.append(stage)
            if stop and done == 3:
                raise KeyboardInterrupt

        suture.compare_arrays(A, B, "cka", save_to=tmp_path, progress=progress)

    with pytest.raises(KeyboardInterrupt):
        run(stop=True)
    run()
    assert seen.count("went on from a checkpoint of moments") == 1
    run()
    assert [s.partition(" (")[0] for s in seen].count("taken over: moments") == 1


def test_whole_numbers_are_names_and_texts_of_other_lengths_are_other_texts() -> None:
    assert suture.compare_arrays({0: X, np.int64(1): B["c"]}).sources == ("0", "1")
    texts = [np.random.default_rng(k).normal(size=(2 + k % 3, 4)) for k in range(N)]
    found = suture.compare_arrays({"t": texts, "u": texts[::-1]}, {"t": texts, "v": X}, ["cka", "cka@pool"])
    assert "two input sequences" in found.matrix("cka", "reason").loc["u", "t"]
    assert found.matrix("cka").notna().sum(axis=None) == 3
    assert found.matrix("cka@pool").notna().all(axis=None)
    cut = suture.compare_arrays({"a": [X[:25], X[25:50], X[50:]]}, indices="cka")
    assert "numpy.concatenate" in cut.meta["notes"][0]


def spoil(**at: float) -> Any:
    x = X.copy()
    for k, value in enumerate(at.values()):
        x[7 + k, k] = value
    return x


NHWC = np.zeros((N, 4, 4, 3))
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "other rows": (lambda: (A, {"c": B["c"][:-1]}), "got 60 in source 'a' and 59 in target 'c'"),
    "NaN": (lambda: ({"q": spoil(a=np.nan, b=np.nan)},),
            "'q', got 2 NaN in 2 of 60 examples, the first in number 7"),
    "inf": (lambda: (A, {"q": spoil(a=np.nan, b=-np.inf)}), "target 'q', got 1 NaN and 1 inf"),
    "no arrays": (lambda: ({},), "at least one array as source"),
    "no target arrays": (lambda: (A, {}), "at least one array as target"),
    "no text": (lambda: ({("a", 1): X},), r"names of arrays that are text, got \('a', 1\)"),
    "one name twice": (lambda: ({1: X, "1": X},), "every name once in source, got '1'"),
    "numbers": (lambda: ({"a": X[:, 0]},), r"'a', got shape \(60,\); write x\[:, None\]"),
    "no rows": (lambda: ({"a": X[:0]},), "at least one example"),
    "complex": (lambda: ({"a": X + 1j},), "real numbers in source 'a'"),
    "words": (lambda: ({"a": X.astype(str)},), "real numbers in source 'a'"),
    "nothing": (lambda: ({"a": None},), "an array in source 'a', got NoneType"),
    "a dictionary within": (lambda: ({"a": A},), "an array in source 'a', got dict"),
    "channels last": (lambda: ({"a": NHWC},), "kinds='map:last'"),
    "sizes": (lambda: ({"a": [NHWC[0], NHWC[0, 1:]]},), "examples of one shape"),
    "no cell": (lambda: ({"a": NHWC[:, :, :2]}, {"b": NHWC[:, 0]}), "cka@pool"),
    "one side named": (lambda: (A, X), "on both sides"), "other side named": (lambda: (X, A), "both"),
    "no target": (lambda: (X,), "got none"), "missing file": (lambda: ({"a": "no.npy"},), "'no.npy'"),
    "several matrices": (lambda: ([X, B["c"]], [X, B["c"]]), "by name"),
    "nested": (lambda: ({"a": torch.nested.nested_tensor([torch.ones(2, 2), torch.ones(3, 2)])},), "nested"),
}
REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "stitching": (A, {"methods": ["dm"]}, "stitching needs networks"),
    "kind": (A, {"kinds": {"a": "mapp"}}, "kind of source 'a', got 'mapp'"),
    "kind of another": (A, {"kinds": {"z": "map"}}, "unknown array in kinds 'z'"),
    "kind of other axes": (A, {"kinds": "map"}, "source 'a': expected"),
    "labels": (A, {"labels": [0, 1]}, r"labels of shape \(60,\)"),
    "labels of fractions": (A, {"labels": np.arange(N) / 2}, "whole numbers or names"),
    "moments": (A, {"save": "m.safetensors"}, "save="), "no folder": (A, {"restart": True}, "save_to"),
    "jackknife": (A, {"jackknife": 7}, "multiple of 5"), "index": (A, {"indices": "ckka"}, "nearest: cka"),
    "kinds of matrices": (X, {"target": X, "kinds": "map"}, "kinds= is for arrays by name"),
    "labels of matrices": (X, {"target": X, "labels": np.arange(N)}, "labels= is for arrays by name"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_compared_is_one_line(name: str) -> None:
    make, words = BAD[name]
    with pytest.raises(SutureError, match=words):
        suture.compare_arrays(*make())


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_do_not_fit_are_one_line(name: str) -> None:
    source, given, words = REFUSED[name]
    with pytest.raises(SutureError, match=words):
        suture.compare_arrays(source, **given)


@pytest.mark.parametrize("n", [1, 3])
def test_few_rows_give_values_or_reasons(n: int) -> None:
    found = suture.compare_arrays({"a": X[:n], "one": np.ones((n, 2))}, indices="all")
    of = indices.of_matrices(X[:n], X[:n], "all")
    assert {*found.measures} == {*of}
    for name, value in of.items():
        assert found.matrix(name, "reason").iloc[0, 0] == value.reason
    assert found.meta["notes"]


def test_the_lines_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "arrays.md").read_text()
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", a=X)
    np.savez("b.npz", b=B["c"])
    exec(text.partition("```python\n")[2].partition("```")[0], {})
    assert Path("cka.pdf").stat().st_size > 1000
    assert Path("report.html").exists()


def test_the_command_compares_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("left.npz", **A, y=np.arange(N) % 3)
    save_file(B, "right.safetensors")
    (tmp_path / "folder").mkdir()
    for name, k in (("layer10", "b"), ("layer2", "a")):
        np.save(f"folder/{name}.npy", A[k])
    np.savez("maps.npz", m=NHWC + np.random.default_rng(0).normal(size=NHWC.shape))
    np.savez("objects.npz", a=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("no zip")

    def run(*given: str) -> tuple[Any, str]:
        monkeypatch.setattr(sys, "argv", ["suture", "arrays", *given, "--indices", "cka,r2_folds"])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return ended.value.code, shown.out + shown.err

    assert run("left.npz", "right.safetensors", "--labels", "y", "--out", "two")[0] == 0
    found = suture.load("two")
    assert (found.source, found.target, found.sources, found.targets) == (
        "left", "right", ("a", "b"), ("c", "d"))
    assert found.arrays["labels"].tolist() == [k % 3 for k in range(N)]
    assert_same(found, suture.compare_arrays(A, B, ["cka", "r2_folds"]))
    assert Path("two/report.html").exists()
    assert "taken over" in run("left.npz", "right.safetensors", "--labels", "y", "--out", "two")[1]
    assert run("folder", "--out", "one")[0] == 0
    assert suture.load("one").sources == ("layer2", "layer10")
    assert run("maps.npz", "--kind", "m=map:last", "--out", "maps")[0] == 0
    for given, words in ((["left.npz"], "source 'y'"), (["maps.npz"], "map:last"), (["no.npz"], "'no.npz'"),
                         (["objects.npz"], "Object arrays"), (["text.npz"], "cannot read 'text.npz'"),
                         (["left.npz", "--labels", "z"], "unknown array for --labels"),
                         (["folder", "folder", "folder"], "got 3 paths"),
                         (["folder", "--kind", "map"], "NAME=KIND")):
        code, text = run(*given, "--out", "bad")
        assert (code, text.count("\n")) == (2, 1)
        assert words in text
