"""What is data of this package and what is not, by a spec or as an object."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suture import SutureError
from suture.data import sources
from suture.data.sources import open_source


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(SutureError) as message:
        call()
    assert "\n" not in str(message.value)
    return str(message.value)


def test_objects_that_are_no_source() -> None:
    assert "got list; give tensors" in refused(lambda: open_source([1, 2]))


def test_data_of_this_package_are_known_by_their_spec(tmp_path: Path) -> None:
    assert [sources.is_spec(s) for s in ("hf:a", "torchvision:A@b", "a/b", "./a", "~/a", "a.csv",
                                         "a.parquet#x/y", "a.pkl", str(tmp_path))] == [True] * 9
    assert ([sources.is_spec(s)
             for s in ("digits", "tests.support.tiny:data", "mypackage.data:splits", "cifar")] == [False] * 4)
