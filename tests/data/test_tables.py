"""Parquet by row groups, opened once and let go; lines and tables of texts, with bad rows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from suture import SutureError
from suture.data.sources import open_pair, open_source, tables
from suture.data.sources.stores import BadExample, decode_rows
from tests.support.pictures import in_parquet, pictures


@pytest.mark.parametrize("groups", [tables.GROUP_BYTES, 0])
def test_each_row_group_is_opened_once(groups: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order of later passes: what has been read stays in memory, encoded."""
    monkeypatch.setattr(tables, "GROUP_BYTES", groups)
    opened: list[int] = []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group",
                        lambda self, g, **k: (opened.append(g), real(self, g, **k))[1])
    made = pictures(70, size=None)
    found = open_source(in_parquet(in_parquet(tmp_path, made), made[:1], "test"))
    for rows in (torch.arange(70), torch.randperm(70, generator=torch.Generator().manual_seed(0))):
        list(map(found.take, rows.split(16)))
    assert sorted(opened) == list(range(18))


def test_large_row_groups_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "GROUP_BYTES", 0)
    monkeypatch.setattr(tables, "HELD_BYTES", 0)
    made = pictures(40, size=None)
    found = open_source(in_parquet(in_parquet(tmp_path, made), made[:1], "test"))
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    for raw, _ in map(found.take, rows.split(40)):
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
    loaded = decode_rows(plain.store, "text", list(range(7)))
    assert [x.reason.partition(" (")[0] if isinstance(x, BadExample) else "" for x in loaded] == [
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


@pytest.mark.parametrize(("values", "classes"), [
    (pa.array([0, 2, 1], pa.uint64()), 3), (pa.array([True, False, True]), 2),
    (pa.array(["a", "b", "c"]).dictionary_encode(), 3), (pa.array(["a", "b", "c"], pa.string_view()), 3),
    (pa.array([10**12, 10**12 + 1, 10**12]), 10**12 + 2), (pa.nulls(3), None),
])
def test_labels_of_any_type(values: pa.Array, classes: int | None, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b", "c"], "label": values}), tmp_path / "a.parquet")
    for found in open_pair(tmp_path / "a.parquet"):
        assert found.classes == classes
        assert found.labels is None or found.labels.dtype == torch.int64


@pytest.mark.parametrize(("values", "words"), [
    (pa.array([2**63, 0, 1], pa.uint64()), r"class numbers from 0 below 2\*\*63 .* got 9223372036854775808"),
    (pa.array([0, -2, 1]), "got -2 at a.parquet, row 1"), (pa.array([0, 0.5, 1]), "got 0.5"),
    (pa.array([[0], [1], [2]]), r"got \[0\]"), (pa.array([0.0, float("nan"), 1.0]), "row 1 has no label"),
])
def test_labels_that_are_no_classes(values: pa.Array, words: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b", "c"], "label": values}), tmp_path / "a.parquet")
    with pytest.raises(SutureError, match=words):
        open_pair(tmp_path / "a.parquet", label_column="label")


def test_digits_that_int64_does_not_hold_are_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"t,{10**30 + k}\n" for k in range(4)))
    assert open_source(tmp_path / "a.csv").class_names == tuple(str(10**30 + k) for k in range(4))


def test_a_row_group_that_does_not_fit_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = in_parquet(tmp_path / "a.parquet", pictures())
    monkeypatch.setattr("suture._base.runtime.get_free_bytes", lambda device: 10)
    with pytest.raises(SutureError, match=r"row group 0 of .* to fit into .*smaller row groups"):
        open_source(file, split="train").take([0])
