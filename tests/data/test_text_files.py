"""Lines and tables of texts, and rows of them that are bad."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from suture import SutureError
from suture.data.sources import open_pair, open_source
from suture.data.sources.decoding import BadExample
from suture.data.sources.stores import decode_rows


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
