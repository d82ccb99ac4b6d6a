"""What tests of studies share."""

from __future__ import annotations

from typing import Any

import pytest

from suture.studies.running import tasks


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Pairs that are compared in earnest, in order."""
    seen: list[tuple[str, str]] = []
    whole = tasks.compare

    def count(*given: Any, **named: Any) -> Any:
        seen.append(named["names"])
        return whole(*given, **named)

    monkeypatch.setattr(tasks, "compare", count)
    return seen
