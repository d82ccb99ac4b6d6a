"""The house: every room has its tests, and some of them are fast."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from suture.cli.entry_point import COMMANDS
from tests.conftest import FAST, LONG

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


def test_files_that_begin_first_are_there() -> None:
    assert [name for name in LONG if not (ROOT / "tests" / name.removeprefix("tests/")).exists()] == []


def test_no_file_is_longer_than_300_lines() -> None:
    counts = {path: len(path.read_text(encoding="utf-8").splitlines())
              for path in (ROOT / "src" / "suture").rglob("*.py")}
    assert {path.stem: n for path, n in counts.items() if n > 300} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_at_most_fifteen_modules(room: str) -> None:
    names = {p.stem for p in (ROOT / "src" / "suture" / room).iterdir()} - {"__init__", "__pycache__"}
    assert len(names) <= 15


def _count_lines(function: ast.FunctionDef) -> int:
    doc = function.body[0] if ast.get_docstring(function) is not None else None
    lines = int(function.end_lineno or 0) - function.lineno + 1
    return lines - (int(doc.end_lineno or 0) - doc.lineno + 1 if doc else 0)


@pytest.mark.parametrize("room", ROOMS)
def test_no_function_is_longer_than_40_lines_without_its_docstring(room: str) -> None:
    found = {(path.name, node.name): _count_lines(node)
             for path in (ROOT / "src" / "suture" / room).rglob("*.py")
             for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.FunctionDef)}
    assert {name: n for name, n in found.items() if n > 40} == {}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_says_what_a_command_says_of_itself(name: str) -> None:
    module, line = COMMANDS[name]
    assert inspect.getdoc(getattr(importlib.import_module(f"suture.cli.{module}"), name)) == line
