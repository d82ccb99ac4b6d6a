"""Lists on a command line."""

from __future__ import annotations

import inspect

import pytest

from suture.cli.console import show_progress, split_names


@pytest.mark.parametrize(("names", "wanted"), [
    (None, None), ("a, b", ["a", "b"]), ("a@tokens:1,14x14,b", ["a@tokens:1,14x14", "b"]), ("a@tokens:1, 2x3",
                                                                                      ["a@tokens:1, 2x3"])])
def test_lists_of_sites(names: str | None, wanted: list[str] | None) -> None:
    assert split_names(names) == wanted


def test_of_many_bars_the_full_ones_go_first() -> None:
    with show_progress(3) as progress:
        progress("pairs", 0, 6)
        for stage in "abcdef":
            for done in (0, 1, 2):
                progress(stage, done, 2)
        bars = inspect.getclosurevars(progress).nonlocals["shown"]
        assert [bar.description for bar in bars.tasks] == ["pairs", "e", "f"]
