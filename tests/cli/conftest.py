"""Commands in this process, in a folder of their own; figures that cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suture.results import figures
from tests.support import tiny

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    return lambda *args: tiny.suture(monkeypatch, capsys, *args)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds and have their own tests; here it matters where they are put."""
    def save(comparison: Any, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "all.png").write_bytes(b"")

    monkeypatch.setattr(figures, "save_figures", save)
