"""The data of a page's maps: what its script draws, and says of each cell."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from suture._base import escape_controls
from suture.numbers import MEASURES, Bools, Floats, Measure
from suture.results.heatmaps import pick_colours

if TYPE_CHECKING:
    from markupsafe import Markup

Texts = NDArray[np.object_]
SIGNS = ("star", "hatch", "chance", "top")
"""Signs of a cell, each a bit: marked, artefact, not above chance, most similar of its column."""


@dataclass(frozen=True, eq=False)
class CellMap:
    """A measure of all cells of a grid, (rows, columns), for a page.

    Attributes:
        measure: name, colour limits and meaning.
        values: NaN where there is none.
        low, high, n: interval and number of examples; None where the measure has none.
        signs: which cells have a sign, by its name in `SIGNS`.
        words: the verdict of each cell; None without verdicts.
        lines: texts that are said of each cell, such as the reason of a missing value; "" says nothing.
    """

    measure: Measure
    values: Floats
    low: Floats | None = None
    high: Floats | None = None
    n: Floats | None = None
    signs: Mapping[str, Bools] = field(default_factory=dict)
    words: Texts | None = None
    lines: Sequence[Texts] = ()


@dataclass(frozen=True, eq=False)
class CellGrid:
    """Maps of the same cells.

    Attributes:
        name: what is compared, such as ``A → B``.
        rows, columns: names.
        own: cells of a row and a column that are the same or correspond, (rows, columns).
        maps: at least one, if there is anything to show.
        sides: what rows and columns are.
    """

    name: str
    rows: Sequence[str]
    columns: Sequence[str]
    own: Bools
    maps: Sequence[CellMap]
    sides: tuple[str, str] = ("source", "target")


class _Encoder:
    """Encode grids with each text and each list of texts once."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {"": 0}
        self.lists: dict[tuple[int, ...], int] = {}

    def encode_text(self, text: object) -> int:
        safe = "\n".join(map(escape_controls, str(text).split("\n")))
        return self.texts.setdefault(safe, len(self.texts))

    def encode_texts(self, texts: Texts) -> int:
        """Return the place of a list of texts; the list of empty ones has none, -1."""
        key = tuple(map(self.encode_text, texts.ravel().tolist()))
        return self.lists.setdefault(key, len(self.lists)) if any(key) else -1

    def encode_grid(self, grid: CellGrid) -> dict[str, Any]:
        return {"name": self.encode_text(grid.name), "sides": grid.sides,
                "rows": [self.encode_text(name) for name in grid.rows],
                "columns": [self.encode_text(name) for name in grid.columns],
                "own": np.flatnonzero(grid.own).tolist(), "maps": [self.encode_map(m) for m in grid.maps]}

    def encode_map(self, given: CellMap) -> dict[str, Any]:
        entry, size = given.measure, given.values.shape
        signs = sum((np.where(given.signs.get(name, np.zeros(size, bool)), 1 << k, 0)
                     for k, name in enumerate(SIGNS)), np.zeros(size, int))
        made = {"key": entry.name, "label": self.encode_text(entry.label), "low": entry.low,
                "high": entry.high, "larger": entry.larger_is_more_similar, "v": encode_numbers(given.values),
                "s": "".join(f"{flag:x}" for flag in signs.ravel().tolist()),
                "lines": [k for k in map(self.encode_texts, given.lines) if k >= 0]}
        numbers = {"l": given.low, "h": given.high, "n": given.n}
        made |= {name: encode_numbers(of) for name, of in numbers.items()
                 if of is not None and not np.isnan(of).all()}
        if given.words is not None:
            made["w"] = self.encode_texts(given.words)
        return made


def encode_numbers(numbers: Floats) -> list[float | str | None] | float | str | None:
    """Encode numbers with six digits, infinite ones as words, NaN as None; equal ones as one."""
    found = [_encode_number(float(x)) for x in numbers.ravel().tolist()]
    return found[0] if len(found) > 1 and len(set(found)) == 1 else found


def _encode_number(x: float) -> float | str | None:
    if math.isnan(x):
        return None
    if math.isinf(x):
        return "Infinity" if x > 0 else "-Infinity"
    short = float(f"{x:.6g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def encode_page(grids: Sequence[CellGrid]) -> Markup:
    """Encode the grids of a page as JSON that no name can end, for a script element of data."""
    encoder = _Encoder()
    made: dict[str, Any] = {"grids": [encoder.encode_grid(grid) for grid in grids]}
    made |= {"texts": list(encoder.texts), "lists": list(encoder.lists), **_encode_colours()}
    return encode_json(made)


def encode_json(value: Any) -> Markup:
    """Encode a value as JSON of ASCII without signs that HTML knows."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _encode_colours() -> dict[str, str]:
    """Encode the steps of the colour scale from least to most similar, and which have black text."""
    entry = next(m for m in MEASURES.values() if m.larger_is_more_similar and (m.low, m.high) == (0, 1))
    steps = [pick_colours((k + 0.5) / 256, entry) for k in range(256)]
    return {"colours": "".join(ground.removeprefix("#") for ground, _ in steps),
            "inks": "".join("1" if ink == "#000000" else "0" for _, ink in steps)}


def embed(kind: str, data: bytes) -> str:
    """Return data as an address within the page."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
