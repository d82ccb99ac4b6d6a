"""Data by what is written on a command line: kinds, splits, sizes, and what is refused, in one line."""

from __future__ import annotations

import os
import re
import socket
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from suture import SutureError, specs
from suture.data.sources import open_source
from tests.support.pictures import (
    NAMES,
    as_dataset,
    as_folder,
    as_parquet,
    encoded,
    in_folder,
    in_npz,
    in_parquet,
    in_saved,
    pictures,
)

# -- kinds of spec -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make", [in_folder, in_npz, in_saved])
def test_a_path_gives_both_parts(make: Callable[..., Path], tmp_path: Path) -> None:
    path = make(tmp_path / "set", pictures(30))
    train, test = specs.load_data(str(path))
    assert (len(train), len(test), train.name, test.name) == (30, 1, "set-train", "set-test")
    assert (train.classes, test.classes) == (3, 3)
    small, one = specs.load_data(str(path), train_size=7, test_size=1, seed=2)
    assert (small.name, one.name) == ("set-train/7@2", "set-test/1@2")
    assert small.labels.bincount().sort().values.tolist() == [2, 2, 3]
    assert small.fingerprint == open_source(path, n=7, seed=2).fingerprint
    assert small.fingerprint != open_source(path, n=7, seed=3).fingerprint


def test_relative_paths_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_folder(tmp_path / "set", pictures())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ([specs.load_data(s)[0].name for s in ("set", "./set", "~/set", "hf:set", "set#train/test")]
            == ["set-train"] * 5)
    monkeypatch.chdir(tmp_path / "set")
    assert specs.load_data(".")[0].name == "set-train"


def test_what_is_stored_class_by_class_is_mixed(tmp_path: Path) -> None:
    train, test = specs.load_data(str(in_folder(tmp_path, pictures(30))))
    counts = [train.labels[:n].bincount(minlength=3) for n in range(1, 31)]
    assert all(int(c.max() - c.min()) <= 1 for c in counts)
    assert train.note == "stored class by class, mixed by seed 0"
    plain = open_source(tmp_path)
    assert plain.labels.tolist() == sorted(plain.labels.tolist())
    assert train.content == plain.content
    assert train.fingerprint != plain.fingerprint
    assert test.note == ""
    mixed = [(p, k % 3) for k, (p, _) in enumerate(pictures(30))]
    root = in_parquet(in_parquet(tmp_path / "parquet", mixed), mixed[:3], "test")
    assert specs.load_data(str(root))[0].fingerprint == open_source(root).fingerprint


def test_the_digits_take_sizes() -> None:
    train, test = specs.load_data("digits", train_size=50, test_size=20, seed=4)
    assert (train.name, test.name) == ("digits-train/50@4", "digits-test/20@4")
    with pytest.raises(SutureError, match="'digits' has no columns"):
        specs.load_data("digits", label_column="label")


def test_functions_take_sizes_where_their_data_do(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("h2_their_data")
    pair = (torch.ones(4, 6), torch.zeros(4).long())
    module.splits = lambda: (pair, pair)  # type: ignore[attr-defined]
    module.sets = lambda: specs.load_data("digits")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "h2_their_data", module)
    assert specs.load_data("h2_their_data:splits")[0] is pair
    assert len(specs.load_data("h2_their_data:sets", train_size=5)[0]) == 5
    with pytest.raises(SutureError, match=r"cannot draw 2 examples of h2_their_data:splits: .* no subset"):
        specs.load_data("h2_their_data:splits", test_size=2)


# -- splits --------------------------------------------------------------------------------------------------

def test_a_folder_without_splits_is_cut(tmp_path: Path) -> None:
    root = as_folder(tmp_path / "set", pictures(60))
    for seed in (0, 1):
        train, test = specs.load_data(str(root), seed=seed)
        assert (len(train), len(test)) == (48, 12)
        assert test.labels.bincount().tolist() == [4, 4, 4]
        assert train.content != test.content
        assert sorted(train.rows.tolist() + test.rows.tolist()) == list(range(60))
        assert test.note.startswith("set has no test split: 12 of its 60 examples, drawn by seed "
                                    f"{seed}, are one")
        assert test.content == open_source(root, split="test", seed=seed).content
    assert open_source(root, split="test").fingerprint != open_source(root, split="test", seed=1).fingerprint


def test_splits_by_name(tmp_path: Path) -> None:
    for split, n in (("train", 12), ("val", 6), ("test", 3)):
        as_folder(tmp_path, pictures(n, seed=n), split)
    sizes = {s: [len(x) for x in specs.load_data(f"{tmp_path}{s}")]
             for s in ("", "#train/val", "#val/train", "#val")}
    assert sizes == {"": [12, 3], "#train/val": [12, 6], "#val/train": [6, 12], "#val": [3, 3]}
    assert len(open_source(tmp_path, split="val")) == 6
    assert specs.load_data(f"{tmp_path}#train/val")[1].note.startswith("the test part is the split 'val'")


def test_only_a_test_split(tmp_path: Path) -> None:
    in_parquet(tmp_path, pictures(6), "test")
    assert len(open_source(tmp_path, split="test")) == 6
    with pytest.raises(SutureError,
                       match=r"no split 'train', only test; .* #A/B .*, or #test to cut"):
        specs.load_data(str(tmp_path))
    assert [len(x) for x in specs.load_data(f"{tmp_path}#test")] == [3, 3]
    with pytest.raises(SutureError, match=r"no split 'val'; .* write 'train' or 'test'"):
        open_source(next(tmp_path.iterdir()), split="val")


def test_labels_left_out_and_columns_that_cannot_be(tmp_path: Path) -> None:
    root = in_folder(tmp_path / "set", pictures(30))
    train, test = specs.load_data(str(root), label_column="none")
    assert (train.labels, test.classes, train.note) == (None, None, "")
    with pytest.raises(SutureError,
                       match=r"the image folder .* has no columns, got 'img'; leave it out"):
        specs.load_data(str(root), image_column="img")
    (tmp_path / "a.txt").write_text("a\nb\n")
    with pytest.raises(SutureError, match="unknown column of a 'label'"):
        specs.load_data(str(tmp_path / "a.txt"), label_column="label")


def test_classes_are_those_of_all_splits(tmp_path: Path) -> None:
    as_folder(tmp_path, [(p, 2 * (y > 0)) for p, y in pictures(6)], "train")
    as_folder(tmp_path, [(p, 1) for p, _ in pictures(2)], "test")
    train, test = specs.load_data(str(tmp_path))
    assert (train.class_names, test.class_names) == (NAMES, NAMES)
    assert (set(train.labels.tolist()), test.labels.tolist()) == ({0, 2}, [1, 1])
    as_parquet(tmp_path / "numbers" / "train.parquet", [encoded(p) for p, _ in pictures(3)],
               [0, 1, 0], named=False)
    as_parquet(tmp_path / "numbers" / "test.parquet", [encoded(p) for p, _ in pictures(1)], [4], named=False)
    assert [x.classes for x in specs.load_data(str(tmp_path / "numbers"))] == [5, 5]


@pytest.mark.parametrize("layout", ["data", "split folders", "one config"])
def test_layouts_of_hubs(layout: str, tmp_path: Path) -> None:
    image = [encoded(p) for p, _ in pictures(3)]
    for split in ("train", "test"):
        file = {"data": f"data/{split}-00000-of-00001.parquet", "split folders": f"{split}/0000.parquet",
                "one config": f"plain_text/{split}-00000-of-00001.parquet"}[layout]
        as_parquet(tmp_path / file, image, [0, 1, 2])
    assert [len(x) for x in specs.load_data(str(tmp_path))] == [3, 3]


def test_images_in_no_class_folder(tmp_path: Path) -> None:
    for k, (pixels, _) in enumerate(pictures(5)):
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    (tmp_path / "readme.txt").write_text("text")
    train, test = specs.load_data(str(tmp_path))
    assert (train.labels, train.classes, len(train), len(test), train.channels) == (None, None, 4, 1, 3)
    as_folder(tmp_path, pictures(6))
    found = open_source(tmp_path)
    assert found.class_names == NAMES
    assert f"5 images of {tmp_path.name} lie in no class folder and are left out" in found.note


def test_batches_without_labels(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\nb\nc\nd\ne\n")
    train, _ = specs.load_data(str(tmp_path / "a.txt"))
    raw, labels = next(map(train.take, torch.arange(4).split(4)))
    assert (len(raw), labels) == (4, None)


# -- datasets and torchvision --------------------------------------------------------------------------------

def test_a_hub_without_a_network(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("touched the network"))
    message = refused(lambda: specs.load_data("hf:nobody/nothing"))
    assert message.startswith("no data set 'nobody/nothing' on the hub: Couldn't reach 'nobody/nothing'")
    assert "--local-dir FOLDER" in message
    assert capfd.readouterr().err == ""


def test_names_of_a_hub_reach_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(*args: Any, trust_remote_code: bool | None = None) -> Any:
        asked.append((*args, trust_remote_code))
        assert datasets.utils.are_progress_bars_disabled()
        return datasets.DatasetDict({"train": as_dataset(pictures()), "test": as_dataset(pictures(3))})

    monkeypatch.setattr(datasets, "load_dataset", load)
    datasets.enable_progress_bars()
    train, test = specs.load_data("hf:org/set@small#test/train")
    assert not datasets.utils.are_progress_bars_disabled()
    assert asked == [("org/set", "small", False)]
    assert (train.name, len(train), len(test)) == ("set-train", 3, 12)


class Drawn(torch.utils.data.Dataset[Any]):
    """As torchvision's classes are: images of Pillow and class numbers."""

    def __init__(self, root: str, train: bool = True) -> None:
        if not os.path.isdir(f"{root}/drawn"):
            raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
        self.made = pictures(12 if train else 6)
        self.targets = torch.tensor([y for _, y in self.made])
        self.classes = list(NAMES)

    def __len__(self) -> int:
        return len(self.made)

    def __getitem__(self, index: int) -> Any:
        return Image.fromarray(self.made[index][0]), int(self.targets[index])


class Split(Drawn):
    def __init__(self, root: str, split: str = "train") -> None:
        if split not in ("train", "val"):
            raise ValueError(f"Unknown value '{split}' for argument split. Valid values are "
                             "('train', 'val').")
        super().__init__(root, split == "train")
        del self.targets, self.classes

    def __getitem__(self, index: int) -> Any:
        return Image.fromarray(self.made[index][0]), self.made[index][1]


@pytest.fixture
def vision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torchvision with two classes, and a root that holds their data."""
    module: Any = types.ModuleType("torchvision.datasets")
    module.Drawn, module.Split, module.Fake = (Drawn, Split,
                                               type("Fake", (), {"__init__": lambda self, size=3: None}))
    module.__all__ = ("Drawn", "Split", "Fake")
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    (tmp_path / "root" / "drawn").mkdir(parents=True)
    return tmp_path / "root"


@pytest.mark.parametrize("name", ["Drawn", "Split"])
def test_torchvision(name: str, vision: Path) -> None:
    train, test = specs.load_data(f"torchvision:{name}@{vision}")
    assert (len(train), len(test), train.classes, test.classes) == (12, 6, 3, 3)
    assert train.content == open_source(as_dataset(pictures())).content
    assert train.class_names == (NAMES if name == "Drawn" else None)


@pytest.mark.parametrize(("spec", "message"), [
    ("torchvision:Drwan@{}", "unknown data set of torchvision 'Drwan'; nearest: Drawn"),
    ("torchvision:Fake@{}", "unknown data set of torchvision 'Fake'"),
    ("torchvision:Drawn", "expected the folder of Drawn, got ''; write torchvision:Drawn@FOLDER"),
    ("torchvision:Drawn@{}/no", "expected the folder of Drawn, got .*/no'; .* download=True"),
    ("torchvision:Drawn@{}/drawn",
     "cannot read Drawn in .*: Dataset not found or corrupted.*torchvision.datasets.Drawn"),
    ("torchvision:Split@{}#train/test", "no split 'test'; splits: train, val"),
])
def test_torchvision_that_is_not_there(spec: str, message: str, vision: Path) -> None:
    with pytest.raises(SutureError, match=message):
        specs.load_data(spec.format(vision))


# -- what is refused -----------------------------------------------------------------------------------------

def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(SutureError) as message:
        call()
    assert "\n" not in str(message.value)
    return str(message.value)


def empty(root: Path) -> None:
    (root / "empty" / "train").mkdir(parents=True)


def missing_shard(root: Path) -> None:
    for k in (0, 2):
        as_parquet(root / f"train-{k:05}-of-00003.parquet", [encoded(pictures(1)[0][0])], [0])


def two_configs(root: Path) -> None:
    for name in ("small", "large"):
        as_parquet(root / name / "train.parquet", [encoded(pictures(1)[0][0])], [0])


def no_column(root: Path) -> None:
    pq.write_table(pa.table({"a": [1.0], "b": [2]}), root / "a.parquet")


def other_columns(root: Path) -> None:
    as_parquet(root / "train-0.parquet", [encoded(pictures(1)[0][0])], [0])
    pq.write_table(pa.table({"text": ["x"]}), root / "train-1.parquet")


def no_label(root: Path) -> None:
    as_parquet(root / "a.parquet", [encoded(p) for p, _ in pictures(6)], [0, None, 1, 2, None, 0])


def beyond(root: Path) -> None:
    as_parquet(root / "a.parquet", [encoded(p) for p, _ in pictures(4)], [0, 1, 2, 3])


def pickled(root: Path) -> None:
    np.savez(root / "a.npz", x=np.array([{"a": 1}], dtype=object))


def unnamed(root: Path) -> None:
    np.savez(root / "a.npz", weights=np.zeros(3))


def uneven(root: Path) -> None:
    np.savez(root / "a.npz", x=np.zeros((3, 2)), y=np.zeros((3, 10)))


def strings(root: Path) -> None:
    np.savez(root / "a.npz", x=np.array(["a", "b"]))


REFUSED: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no such path": (lambda r: as_folder(r / "sett", pictures(3)), "{}/set",
                     "unknown path of data .*nearest: .*/sett"),
    "a word": (lambda r: None, "digts",
               "unknown data set 'digts'; nearest: digits; write digits, a path, hf:NAME"),
    "an empty folder": (empty, "{}/empty",
                        "expected images in class folders .*, or files that end in .parquet"),
    "an odd file": (lambda r: (r / "a.mp4").write_bytes(b""), "{}/a.mp4",
                    "expected a file that ends in .*a.mp4"),
    "a pickle": (lambda r: (r / "a.pkl").write_bytes(b""), "{}/a.pkl",
                 "pickled files are not read, .* numpy.savez"),
    "a missing shard": (missing_shard, "{}",
                        "train-00001-of-00003.parquet is missing"),
    "two configurations": (two_configs, "{}", "several data sets in .*large, .*small"),
    "no Parquet": (lambda r: (r / "a.parquet").write_bytes(b"PAR1"), "{}/a.parquet",
                   "a.parquet' is no Parquet file"),
    "no column": (no_column, "{}/a.parquet", r"a column of images or texts in a, got a \(other\), b \(int\)"),
    "other columns": (other_columns, "{}", "train-1.parquet has no column 'img'"),
    "missing labels": (no_label, "{}/a.parquet",
                       "a label for every example .*2 of 6 .*first: a.parquet, row 1 has no"),
    "labels beyond": (beyond, "{}/a.parquet", "from 0 to 2 .*, got 3 at a.parquet, row 3"),
    "pickled arrays": (pickled, "{}/a.npz",
                       "array 'x' of .* holds pickled objects, which are never loaded"),
    "unnamed arrays": (unnamed, "{}/a.npz",
                       "no array 'x', only weights; name one with image_column"),
    "labels of two axes": (uneven, "{}/a.npz",
                           r"expected one class number for each of 3 examples in 'y' .*\(3, 10\)"),
    "arrays of strings": (strings, "{}/a.npz",
                          "expected numbers with the examples along the first axis in 'x'"),
    "no npz": (lambda r: (r / "a.npz").write_bytes(b"x"), "{}/a.npz",
               "cannot read .*a.npz'"),
    "a single array": (lambda r: np.save((r / "a.npz").open("wb"), np.ones(3)), "{}/a.npz",
                       "got a single array"),
    "an empty table": (lambda r: (r / "a.csv").write_text("text,label\n"), "{}/a.csv",
                       "at least one text in a, got"),
    "an open quote": (lambda r: (r / "a.csv").write_text('text\n"a'), "{}/a.csv",
                      "'a.csv' cannot be read at line"),
    "not UTF-8": (lambda r: (r / "a.txt").write_bytes(b"\xff"), "{}/a.txt",
                  "is not UTF-8: byte 0xff"),
    "one example": (lambda r: (r / "a.txt").write_text("one"), "{}/a.txt",
                    "at least two examples in a, .* got 1"),
    "no saved folder": (lambda r: (r / "state.json").write_text("{}") and (r / "dataset_info.json")
                        .write_text("{}"), "{}", "datasets cannot read .*save_to_disk"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_told_in_one_line(case: str, tmp_path: Path) -> None:
    make, spec, expected = REFUSED[case]
    make(tmp_path)
    message = refused(lambda: specs.load_data(spec.format(tmp_path)))
    assert re.search(expected, message), message


@pytest.mark.parametrize("sizes", [{"train_size": 13}, {"test_size": 2}, {"train_size": 0}])
def test_more_than_there_is(sizes: dict[str, int], tmp_path: Path) -> None:
    root = in_folder(tmp_path, pictures(12))
    message = refused(lambda: specs.load_data(str(root), **sizes))
    assert f"got {next(iter(sizes.values()))}" in message
    assert re.search("expected (a number of examples from 1 to|at least 1)", message)


class Absent:
    """Finds that a package is not installed."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, *_: Any) -> None:
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(("module", "extra", "make", "spec"), [
    ("pyarrow", "data", lambda r: (r / "a.parquet").write_bytes(b""), "{}/a.parquet"),
    ("datasets", "data", lambda r: (r / "dataset_dict.json").write_text("{}"), "{}"),
    ("datasets", "data", lambda r: (r / "a.parquet").write_bytes(b""), "{}/a.parquet"),
    ("datasets", "data", lambda r: None, "hf:org/name"),
    ("torchvision", "vision", lambda r: None, "torchvision:CIFAR10@{}"),
])
def test_a_missing_extra(module: str, extra: str, make: Any, spec: str, tmp_path: Path,
                         monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    for name in [n for n in sys.modules if n.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(module), *sys.meta_path])
    message = refused(lambda: specs.load_data(spec.format(tmp_path)))
    assert f"pip install 'suture[{extra}]'" in message


def test_no_code_of_the_data_is_run(tmp_path: Path) -> None:
    """A pickle in an array, and a script of `datasets` beside Parquet files."""
    flag = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(flag),)

    (tmp_path / "a").mkdir()
    np.savez(tmp_path / "a" / "a.npz", x=np.array([Evil()], dtype=object), y=[0])
    refused(lambda: specs.load_data(str(tmp_path / "a")))
    root = in_parquet(tmp_path / "set", pictures())
    (root / "set.py").write_text(f"import os; os.mkdir({str(flag)!r})")
    (root / "dataset.py").write_text(f"import os; os.mkdir({str(flag)!r})")
    specs.load_data(str(root))
    assert not flag.exists()
