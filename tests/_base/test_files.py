"""Files: names, and replacing in one step."""

from __future__ import annotations

import pytest

from suture._base.files import clean_file_name, replace_file
from tests.support.synthetic import HOSTILE


@pytest.mark.parametrize(("name", "expected"), [("a/../b", "a-..-b"), ("..", "unnamed"), ("", "unnamed"),
                                                (HOSTILE[0], "script-alert-1-script"),
                                                ("resnet18", "resnet18")])
def test_names_in_file_names(name, expected):
    assert clean_file_name(name) == expected


def test_replace_leaves_no_traces(tmp_path):
    replace_file(tmp_path / "a" / "x.bin", b"1")
    replace_file(tmp_path / "a" / "x.bin", b"2")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "a").iterdir()] == [("x.bin", b"2")]
