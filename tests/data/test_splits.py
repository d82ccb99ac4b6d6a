"""Splits by name, and those that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from suture import SutureError
from suture.data.sources import open_source
from tests.support.pictures import as_folder, pictures


@pytest.mark.parametrize(("spec", "split", "message"), [
    ("#train/dev", "test", "expected a split of .*, got 'dev'; there are train, val"),
    ("#train/train", "train", "expected two splits of .*; write #train alone"),
    ("", "dev", "got 'dev'; there are train, val"),
    ("#all", "train", "got 'all'; there are train, val"),
])
def test_splits_that_are_not_there(spec: str, split: str, message: str, tmp_path: Path) -> None:
    for name in ("train", "val"):
        as_folder(tmp_path, pictures(6), name)
    with pytest.raises(SutureError, match=message):
        open_source(f"{tmp_path}{spec}", split=split)
