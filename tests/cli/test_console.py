"""Lists on a command line."""

from __future__ import annotations

import pytest

from suture.cli.console import split_names


@pytest.mark.parametrize(("names", "wanted"), [
    (None, None), ("a, b", ["a", "b"]), ("a@tokens:1,14x14,b", ["a@tokens:1,14x14", "b"]), ("a@tokens:1, 2x3",
                                                                                      ["a@tokens:1, 2x3"])])
def test_lists_of_sites(names: str | None, wanted: list[str] | None) -> None:
    assert split_names(names) == wanted
