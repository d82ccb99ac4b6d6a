"""Labels and columns of tables, and the readers of Parquet, arrays and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from suture import SutureError
from suture.data.sources import bad_examples as checking
from suture.data.sources import examples, open_pair, open_source, parquet
from suture.data.sources.columns import ColumnNames, choose_columns
from suture.data.sources.labels import number_labels
from suture.data.sources.stores import MemoryStore, StoredSplit
from tests.data.test_sources import NAMES, in_parquet, pictures

# -- labels and columns --------------------------------------------------------------------------------------

LABELS: dict[str, tuple[list[Any], tuple[str, ...] | None, list[int | None] | None, int,
                        tuple[str, ...] | None]] = {
    "numbers": ([2, 0, 1], None, [2, 0, 1], 4, None),
    "named": ([2, 0, 1], NAMES, [2, 0, 1], 3, NAMES),
    "whole floats": ([2.0, 0.0], None, [2, 0], 4, None),
    "truths": ([True, False], None, [1, 0], 4, None),
    "strings": (["bee", "ant"], None, [1, 0], 3, NAMES),
    "digits in strings": (["2", "0"], None, [2, 0], 4, None),
    "missing": ([1, None, float("nan"), -1], None, [1, None, None, None], 4, None),
    "all missing": ([-1, -1], NAMES, None, 0, None),
    "none": ([], None, None, 0, None),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_become_class_numbers(case: str) -> None:
    values, names, expected, classes, found_names = LABELS[case]
    part = StoredSplit(MemoryStore([""] * len(values), "x"), "text", values, names)
    other = ["cat"] if case == "strings" else ["3"] if case == "digits in strings" else [3]
    found = number_labels(part, lambda: [part, StoredSplit(MemoryStore([""], "x"), "text", other)], "x")
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found.numbers, found.classes, found.names) == (expected, classes, found_names)


@pytest.mark.parametrize(("values", "names", "message"), [
    ([0, 0.5], None, r"expected class numbers from 0 in column 'label' of x, got 0.5 at m, row 1"),
    ([0, -2], None, "got -2 at m, row 1"), ([0, [1, 0]], None, r"got \[1, 0\] at m, row 1"),
    ([float("inf")], None, "got inf"),
    ([0, 3], NAMES, "from 0 to 2 .*, which names 3 classes, got 3 at m, row 1"),
    (["a", 3], None, "one type .*, got strings and 3")])
def test_labels_that_are_none(values: list[Any], names: tuple[str, ...] | None, message: str) -> None:
    part = StoredSplit(MemoryStore([""] * len(values), "m"), "text", values, names)
    with pytest.raises(SutureError, match=message):
        number_labels(part, lambda: [part], "x")


@pytest.mark.parametrize(("types", "wanted", "found"), [
    ({"img": "image", "label": "classes"}, {}, ("images", "img", "label")),
    ({"id": "int", "photo": "image", "kind": "classes"}, {}, ("images", "photo", "kind")),
    ({"text": "string", "label": "int", "idx": "int"}, {}, ("text", "text", "label")),
    ({"sentence": "string", "idx": "int"}, {}, ("text", "sentence", None)),
    ({"body": "string", "label": "string"}, {}, ("text", "body", "label")),
    ({"title": "string", "text": "string"}, {}, ("text", "text", None)),
    ({"image": "image", "thumb": "image", "text": "string"}, {}, ("images", "image", None)),
    ({"image": "image", "text": "string"}, {"text": "text"}, ("text", "text", None)),
    ({"img": "image", "fine_label": "classes", "coarse_label": "classes"}, {},
     ("images", "img", "fine_label")),
    ({"img": "image", "a": "classes", "b": "classes"}, {}, ("images", "img", None)),
    ({"img": "image", "a": "classes", "b": "classes"}, {"label": "b"}, ("images", "img", "b")),
    ({"img": "image", "label": "classes"}, {"label": "none"}, ("images", "img", None)),
    ({"x": "bytes", "y": "int"}, {}, ("images", "x", "y")),
    ({"img": "image", "label": "other"}, {}, ("images", "img", None)),
])
def test_columns_are_found_by_name_and_type(types: Any, wanted: Any, found: Any) -> None:
    assert choose_columns(types, ColumnNames(**wanted), "x") == found


@pytest.mark.parametrize(("types", "wanted", "message"), [
    ({"a": "string", "b": "string"}, {},
     "expected one text column in x, got a, b; say which with text_column"),
    ({"a": "int", "b": "other"}, {}, r"a column of images or texts in x, got a \(int\), b \(other\)"),
    ({"label": "string"}, {}, "images or texts"),
    ({"text": "string"}, {"label": "lable"}, "unknown column of x 'lable'"),
    ({"text": "string", "label": "int"}, {"text": "texts"}, "unknown column of x 'texts'; nearest: text"),
])
def test_columns_that_are_not_there(types: Any, wanted: Any, message: str) -> None:
    with pytest.raises(SutureError, match=message):
        choose_columns(types, ColumnNames(**wanted), "x")


# -- Parquet -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("groups", [parquet.GROUP_BYTES, 0])
def test_each_row_group_is_opened_once(groups: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order of later passes: what has been read stays in memory, encoded."""
    monkeypatch.setattr(parquet, "GROUP_BYTES", groups)
    # Pieces that are row groups, so that no two threads need the same one.
    monkeypatch.setattr(examples, "DECODE_CHUNK", 4)
    opened: list[int] = []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group",
                        lambda self, g, **k: (opened.append(g), real(self, g, **k))[1])
    made = pictures(70, size=None)
    found = open_source(in_parquet(in_parquet(tmp_path, made), made[:1], "test"))
    for rows in (torch.arange(70), torch.randperm(70, generator=torch.Generator().manual_seed(0))):
        list(found.read(rows, 16))
    assert sorted(opened) == list(range(18))


def test_large_row_groups_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 0)
    monkeypatch.setattr(parquet, "HELD_BYTES", 0)
    made = pictures(40, size=None)
    found = open_source(in_parquet(in_parquet(tmp_path, made), made[:1], "test"))
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    for raw, _ in found.read(rows, 40):
        assert all(torch.equal(x, torch.from_numpy(made[r][0]).permute(2, 0, 1))
                   for x, r in zip(raw, rows.tolist(), strict=True))
    assert (len(found.store._open), len(found.store._held)) == (1, 0)


def test_texts_in_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"idx": [5, 6], "sentence": ["one", "two"], "label": ["pos", "neg"]}),
                   tmp_path / "train.parquet")
    pq.write_table(pa.table({"idx": [7], "sentence": ["three"], "label": ["pos"]}),
                   tmp_path / "validation.parquet")
    train, test = open_source(tmp_path), open_source(tmp_path, split="test")
    assert train.take([1, 0])[0] == ["two", "one"]
    assert (train.class_names, train.labels.tolist()) == (("neg", "pos"), [1, 0])
    assert (test.labels.tolist(), test.classes, test.note) == ([1], 2,
                                                               "the test part is the split 'validation'")
    assert (test.kind, test.channels) == ("text", None)
    none = open_source(tmp_path, label_column="none")
    assert (none.labels, none.classes) == (None, None)
    assert none.fingerprint != train.fingerprint


# -- arrays --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("shape", "kind", "raw"), [
    ((2, 5, 4), "images", (1, 5, 4)), ((2, 5, 4, 3), "images", (3, 5, 4)),
    ((2, 5, 4, 1), "images", (1, 5, 4)), ((2, 3, 5, 4), "images", (3, 5, 4)),
    ((2, 1, 5, 6), "images", (1, 5, 6)), ((2, 5, 6, 4), "images", (3, 5, 6)),
    ((2, 4, 5, 6), "images", (3, 5, 6)), ((2, 2, 5, 6), "arrays", (2, 5, 6)), ((2, 7), "arrays", (7,))])
def test_arrays_of_bytes(shape: tuple[int, ...], kind: str, raw: tuple[int, ...], tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=np.concatenate([x, x]), labels=np.array([[0], [1], [0], [1]]))
    train, test = open_pair(tmp_path / "a.npz")
    assert (train.kind, tuple(train[0][0].shape), train.labels.tolist()) == (kind, raw, [0, 1][:len(train)])
    assert "has no test split: 2 of its 4 examples" in test.note
    first = np.moveaxis(x.reshape(*shape, 1) if x.ndim == 3 else x, -1, 1)[:, :3] if (
        kind == "images" and raw[1:] == shape[1:3]) else x[:, :3] if kind == "images" else x
    assert np.array_equal(train[0][0].numpy(), first[int(train.rows[0]) % 2])


@pytest.mark.parametrize(("dtype", "found"), [
    ("float64", torch.float32), ("float16", torch.float16), (">f4", torch.float32), ("int32", torch.int32),
    ("uint16", torch.int64), ("uint32", torch.int64), ("bool", torch.bool)])
def test_types_of_arrays(dtype: str, found: torch.dtype, tmp_path: Path) -> None:
    x = np.array([[0, 1], [1, 0], [0, 0]]).astype(dtype)
    np.savez_compressed(tmp_path / "a.npz", x=x)
    made = open_source(tmp_path / "a.npz", split="train")
    raw, labels = made.take(range(len(made)))
    assert (raw.dtype, labels, made.kind) == (found, None, "arrays")
    assert np.array_equal(raw.numpy(), x[made.rows.numpy()])


def test_arrays_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train_images=np.zeros((3, 3, 3), np.uint8), train_labels=["b", "a", "b"],
             val_images=np.zeros((1, 3, 3), np.uint8), val_labels=["c"], train_depth=np.zeros((3, 2)),
             val_depth=np.ones((1, 2)))
    train, test = open_pair(tmp_path / "a.npz")
    assert (train.labels.tolist(), test.labels.tolist(), test.class_names) == ([1, 0, 1], [2],
                                                                               ("a", "b", "c"))
    assert [x.shape[1] for x in (train.take([0])[0], test.take([0])[0])] == [1, 1]
    other = open_source(tmp_path / "a.npz", split="test", image_column="depth", label_column="none")
    assert other.take([0])[0].tolist() == [[1, 1]]
    assert open_source(f"{tmp_path / 'a.npz'}", split="val").labels.tolist() == [2]


# -- texts ---------------------------------------------------------------------------------------------------

def test_lines_of_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\n\n  \n two é\nthree\nfour\nfive".encode())
    found = open_source(tmp_path / "a.txt")
    test = open_source(tmp_path / "a.txt", split="test")
    together = dict(zip(found.rows.tolist() + test.rows.tolist(),
                        found.take(range(4))[0] + test.take([0])[0], strict=True))
    assert [together[k] for k in range(5)] == ["one", " two é", "three", "four", "five"]
    assert found.store.describe_row(1) == "a.txt, line 4"


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_tables_of_texts(ending: str, tmp_path: Path) -> None:
    rows = [("first, with comma", "good"), ("second\nline\t", "bad"), ("x" * 200_000, "good"), ("four", "")]
    frame = pd.DataFrame(rows, columns=["review", "label"])
    for split, part in (("train", frame[:3]), ("test", frame[:1])):
        file = tmp_path / f"{split}.{ending}"
        if ending == "jsonl":
            part.to_json(file, orient="records", lines=True)
        else:
            part.to_csv(file, sep="," if ending == "csv" else "\t", index=False)
    train, test = open_pair(tmp_path)
    assert train.take(range(3))[0] == frame["review"][:3].tolist()
    assert (train.labels.tolist(), train.class_names, test.labels.tolist()) == ([1, 0, 1],
                                                                                ("bad", "good"), [1])


def test_bad_rows_of_texts(tmp_path: Path) -> None:
    rows = ['{"text": "a"}', '{"text": ', "[1]", "", '{"text": " "}', '{"text": 3}', '{"no": 1}',
            '{"text": "b"}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    plain = open_source(tmp_path / "a.jsonl")
    assert len(plain) == 6
    whys = checking.explain_bad_rows(plain.store, "text", list(range(7)))
    assert [w.partition(" (")[0] for w in whys] == [
        "", "is no JSON", "is list and no JSON object", "is blank", "is int and no text", "is missing", ""]
    assert plain.store.describe_row(3) == "a.jsonl, line 5"
    train = open_source(tmp_path / "a.jsonl", skip_bad=True)
    assert train.take(range(len(train)))[0] == ["a", "b"][:len(train)]
    assert "a.jsonl, line 2 is no JSON" in train.note


def test_bad_rows_of_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,0\nb\nc,1,2\nd,\ne,1\nf,0\n")
    with pytest.raises(SutureError,
                       match=r"3 of 6 cannot be used, the first: a.csv, line 3 has not the 2 columns"):
        open_source(tmp_path / "a.csv")
    found = open_source(tmp_path / "a.csv", skip_bad=True)
    assert set(found.take(range(2))[0]) <= {"a", "e", "f"}
    assert "3 of 6" in found.note
