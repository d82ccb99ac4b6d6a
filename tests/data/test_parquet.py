"""Parquet: row groups opened once and let go, texts beside labels."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from suture.data.sources import open_source, parquet
from tests.support.pictures import in_parquet, pictures


@pytest.mark.parametrize("groups", [parquet.GROUP_BYTES, 0])
def test_each_row_group_is_opened_once(groups: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order of later passes: what has been read stays in memory, encoded."""
    monkeypatch.setattr(parquet, "GROUP_BYTES", groups)
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
    monkeypatch.setattr(parquet, "GROUP_BYTES", 0)
    monkeypatch.setattr(parquet, "HELD_BYTES", 0)
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
