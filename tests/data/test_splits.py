"""Splits by name, and those that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from suture import SutureError
from suture.data.sources import open_source
from tests.support.pictures import as_folder, pictures


@pytest.mark.parametrize(("spec", "split", "message"), [
    ("#train/dev", "test", "no split 'dev'; splits: train, val"),
    ("#train/train", "train", "expected two splits of .*, got 'train/train'"),
    ("", "dev", "no split 'dev'; splits: train, val"),
    ("#all", "train", "no split 'all'; splits: train, val"),
])
def test_splits_that_are_not_there(spec: str, split: str, message: str, tmp_path: Path) -> None:
    for name in ("train", "val"):
        as_folder(tmp_path, pictures(6), name)
    with pytest.raises(SutureError, match=message):
        open_source(f"{tmp_path}{spec}", split=split)
