"""The example of docs/studies.md runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "studies.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    found: dict[str, Any] = {"__name__": "example"}
    for large, small in (("range(4)", "range(3)"), ("subset(200)", "subset(40)"),
                         ("subset(100)", "subset(20)")):
        assert large in code
        code = code.replace(large, small)
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), found)
    study = found["study"]
    assert len(study.pairs) == 6
    assert not study.failures
