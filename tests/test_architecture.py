"""The examples of docs/architecture.md run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from suture.stitching import FAMILIES

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
BLOCKS = re.findall(r"## ([^\n]+)\n(?:(?!\n## ).)*?```python\n(.*?)```", PAGE.read_text(encoding="utf-8"),
                    re.DOTALL)


@pytest.mark.parametrize("code", [code for _, code in BLOCKS], ids=[title for title, _ in BLOCKS])
def test_an_example_runs(code: str) -> None:
    try:
        exec(compile(code, str(PAGE), "exec", dont_inherit=True), {"__name__": "example"})
    finally:
        FAMILIES.pop("scaled", None)


def test_every_chapter_has_its_example() -> None:
    titles = [title for title, _ in BLOCKS]
    assert titles == ["An index", "A detector", "A family of maps", "A network", "A kind of representation",
                      "An option"]
