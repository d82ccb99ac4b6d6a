"""The house: every room has its tests, and some of them are fast."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import FAST

ROOT = Path(__file__).parents[1]
ROOMS = sorted(p.name for p in (ROOT / "src" / "suture").iterdir() if (p / "__init__.py").exists())


def test_the_package_holds_rooms_and_nothing_else() -> None:
    beside = {p.name for p in (ROOT / "src" / "suture").iterdir() if not (p / "__init__.py").exists()}
    assert beside - {"__pycache__"} == {"__init__.py", "py.typed"}


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_fast_tests(room: str) -> None:
    assert FAST[room]
    for name in FAST[room]:
        assert (ROOT / "tests" / room / f"test_{name}.py").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "src" / "suture").rglob("*.py")), ids=lambda p: p.stem)
def test_no_file_is_longer_than_300_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_at_most_fifteen_modules(room: str) -> None:
    names = {p.stem for p in (ROOT / "src" / "suture" / room).iterdir()} - {"__init__", "__pycache__"}
    assert len(names) <= 15
