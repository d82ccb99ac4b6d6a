"""Pages of comparisons that were never computed, each rendered once, and what stands on a page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from typing import Any

from suture.results import page
from suture.results.page.data import SIGNS
from tests.support.synthetic import comparison

VOID = {"meta", "br", "link", "img", "input", "hr"}


@cache
def render(**kind: Any) -> str:
    """The page of `synthetic.comparison(**kind)`."""
    return page.render_page([comparison(**kind)])


@dataclass(frozen=True)
class Cell:
    """A cell of a map as the script of a page reads it; None for a number that is not there."""

    grid: str
    key: str
    label: str
    row: str
    column: str
    value: float | None
    low: float | None
    high: float | None
    n: float | None
    signs: frozenset[str]
    own: bool
    word: str
    lines: tuple[str, ...]


class Page(HTMLParser):
    """Tags, attributes, texts and scripts of a page, and the cells of its maps; fails on open tags."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data
        elif self.open[-1:] != ["style"]:
            self.text.append(data)

    @property
    def words(self) -> str:
        """All that a reader sees as text, without the maps."""
        return " ".join(" ".join(self.text).split())

    @property
    def cells(self) -> list[Cell]:
        """Cells of all maps."""
        data = json.loads(self.scripts[0])
        return [cell for grid in data["grids"] for of in grid["maps"] for cell in _read_map(data, grid, of)]


def _read_map(data: dict[str, Any], grid: dict[str, Any], of: dict[str, Any]) -> list[Cell]:
    def take(name: str, k: int) -> float | None:
        found = of.get(name)
        found = found[k] if isinstance(found, list) else found
        return None if found is None else float(found)

    texts, width = data["texts"], len(grid["columns"])
    return [Cell(texts[grid["name"]], of["key"], texts[of["label"]], texts[grid["rows"][k // width]],
                 texts[grid["columns"][k % width]], *(take(name, k) for name in "vlhn"),
                 frozenset(name for bit, name in enumerate(SIGNS) if int(of["s"][k], 16) >> bit & 1),
                 k in grid["own"], texts[data["lists"][of["w"]][k]] if of.get("w", -1) >= 0 else "",
                 tuple(texts[data["lists"][line][k]] for line in of["lines"] if data["lists"][line][k]))
            for k in range(len(of["s"]))]
