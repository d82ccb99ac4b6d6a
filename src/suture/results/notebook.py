"""What a notebook shows of a result: what it found, and small maps. No scripts, colours of the theme."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from suture._base import SutureError, escape_controls
from suture.numbers import Floats, Measure, get_measure
from suture.results.findings import LEADING, Findings, summarise_findings
from suture.results.inference.nulls import find_chance
from suture.results.measured import Measured, take_cells
from suture.results.sanity import Verdict
from suture.results.standing import find_standing
from suture.results.verdicts import ARTEFACT

if TYPE_CHECKING:
    import pandas as pd

MOST_NUMBERS = 12
"""Rows and columns up to which a map has numbers. Larger ones are an image: with text they would be large."""
_MOST_BYTES = 60_000
_MOST_WORDS = 4
"""Sentences of a verdict that are shown at once."""
_SIGNS = {"*": "* not to be trusted", "!": "! artefact", "°": "° not above chance"}
_NAME = 32
"""Letters of a name in a map."""
_CELL = "padding:1px 4px;text-align:center;border:0;font-size:11px"
_LABEL = "padding:1px 6px 1px 0;text-align:right;border:0;font-size:11px;font-weight:normal"


def show_in_notebook(render: Callable[[], str]) -> str | None:
    """Return what `render` makes; None, for which a notebook shows the plain text, where it cannot."""
    try:
        return render()
    except SutureError:
        return None


def render_card(title: str, sentences: Iterable[str], parts: Iterable[str] = ()) -> str:
    """Render a title, sentences of which the first is bold, and further parts, which are HTML."""
    first, *rest = [quote(s) for s in sentences] or [""]
    lines = f"<b>{first}</b>" + "".join(f"<br>{line}" for line in rest)
    head = f'<div style="opacity:.7">{quote(title)}</div>' if title else ""
    found = [f'<div style="max-width:70em">{head}<p style="margin:.2em 0 .6em">{lines}</p>']
    size = len(found[0])
    for part in parts:  # whose size depends on a user's names
        size += len(part)
        if size < _MOST_BYTES:
            found.append(part)
    return "".join([*found, "</div>"])


def render_maps(maps: Iterable[str], note: str = "") -> str:
    """Render maps beside each other, with a note below."""
    beside = "".join(f'<div style="margin:0 1.5em .5em 0">{one}</div>' for one in maps)
    below = f'<div style="font-size:11px;opacity:.7">{quote(note)}</div>' if note else ""
    return f'<div style="display:flex;flex-wrap:wrap">{beside}</div>{below}'


def render_map(entry: Measure, matrix: pd.DataFrame,
               signs: Mapping[tuple[int, int], str] | None = None) -> str:
    """Render a matrix in the colours of its measure, bright where similar.

    Args:
        matrix: values; rows are sources, columns targets; NaN where there is none.
        signs: signs behind values, by (row, column).
    """
    from suture.results.heatmaps import format_value, pick_colours

    values, rows, columns = matrix.to_numpy(dtype=float), list(map(str, matrix.index)), list(matrix.columns)
    if max(values.shape, default=0) > MOST_NUMBERS:
        body = _render_image(values, entry)
    else:
        head = "".join(f'<th style="{_CELL};font-weight:normal" title="{quote(name)}">{k}</th>'
                       for k, name in enumerate(columns, 1))
        lines = [f'<tr style="background:none"><th></th>{head}</tr>']
        for i, name in enumerate(rows):
            cells = [f'<th style="{_LABEL}">{quote(name[:_NAME])}</th>']
            for j, value in enumerate(values[i]):
                if math.isnan(value):
                    cells.append(f'<td style="{_CELL}">·</td>')
                    continue
                ground, ink = pick_colours(value, entry)
                text = quote(format_value(value, 2) + (signs or {}).get((i, j), ""))
                cells.append(f'<td style="{_CELL};background:{ground};color:{ink}">{text}</td>')
            lines.append(f'<tr style="background:none">{"".join(cells)}</tr>')
        body = f'<table style="border-collapse:collapse;margin:0;border:0">{"".join(lines)}</table>'
    return f'<div style="font-size:12px">{quote(entry.label)}</div>{body}'


def quote(text: object) -> str:
    """Return text of a user as HTML that shows it."""
    return escape(escape_controls(str(text)))


def _render_image(values: Floats, entry: Measure) -> str:
    """Render a large matrix as an image of one pixel for each cell, without a value transparent."""
    from matplotlib.image import imsave

    from suture.results.heatmaps import pick_colours

    pixels = np.zeros((*values.shape, 4), np.uint8)
    for place in zip(*np.nonzero(~np.isnan(values)), strict=True):
        colour = pick_colours(float(values[place]), entry)[0]
        pixels[place] = (*bytes.fromhex(colour[1:]), 255)
    height, width = values.shape
    side = max(1, min(10, 240 // max(values.shape)))
    file = io.BytesIO()
    imsave(file, pixels, format="png")
    data = base64.b64encode(file.getvalue()).decode()
    return (f'<img alt="{height} x {width} cells" width="{width * side}" height="{height * side}" '
            f'style="image-rendering:pixelated;max-width:none" src="data:image/png;base64,{data}">')


def render_comparison(measured: Measured) -> str:
    """Render what a comparison found, and a map for each stitching method and of one structural index."""
    found = summarise_findings(measured)
    shown = _choose_measures(measured, found)
    signs = [_find_signs(measured, name, found) for name in shown]
    maps = [render_map(get_measure(name), measured.matrix(name), of)
            for name, of in zip(shown, signs, strict=True)]
    note = "rows: source sites; columns: target sites"
    if max(len(measured.sources), len(measured.targets)) <= MOST_NUMBERS:
        targets = ", ".join(f"{k} {name[:_NAME]}" for k, name in enumerate(measured.targets, 1))
        used = {sign for of in signs for cell in of.values() for sign in cell}
        note = "; ".join([f"{note} ({targets})", *(words for sign, words in _SIGNS.items() if sign in used)])
    return render_card(f"{measured.source} → {measured.target}", found.all,
                       [render_maps(maps, note)] if maps else [])


def _choose_measures(measured: Measured, found: Findings) -> list[str]:
    """Choose the measures by which cells work, and the leading index."""
    by = find_standing(measured).criteria
    working = [f"{m}.{by[m].quantity}" for m in ("tlm", "dm") if m in found.methods and m in by]
    known = [name for name in measured.measures if "." not in name]
    leading = next((name for name in LEADING if name in known), known[0] if known else None)
    return [name for name in (*working, leading) if name in measured.measures]


def _find_signs(measured: Measured, name: str, found: Findings) -> dict[tuple[int, int], str]:
    verdicts = found.methods.get(name.partition(".")[0])
    marks, chance = take_cells(measured, name, "mark"), find_chance(measured, name)
    words = None if verdicts is None else verdicts.words.to_numpy()
    signs = {}
    for i, j in np.ndindex(*marks.shape):
        artefact = words is not None and words[i, j] == ARTEFACT
        signs[i, j] = "*" * bool(marks[i, j]) + "!" * artefact + "°" * bool(chance[i, j])
    return signs


def render_findings(found: Findings) -> str:
    """Render the sentences of a comparison's findings."""
    return render_card("", found.all)


def render_verdict(verdict: Verdict) -> str:
    """Render words on measures by which another layer is above the own one, and all of the battery to open.
    """
    table, words = verdict.table, verdict.words[bool(verdict.first):]
    telling = [text for text, violated, marked, layers in zip(
        words, *(table[name] for name in ("violated", "marked", "layers")), strict=True)
               if violated and marked < layers] if "violated" in table and len(table) else []
    first = filter(None, [verdict.first, *(telling or words)[:_MOST_WORDS], verdict.gap])
    if table.empty:
        return render_card("", first)
    every = "".join(f"{quote(text)}<br>" for text in words)
    numbers = render_table(list(table.columns), table.itertuples(index=False))
    return render_card("", first, [f"<details><summary>all {len(table)} measures</summary>{every}{numbers}"
                                   "</details>"])


def render_table(columns: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Render rows of texts and numbers; a missing number is empty."""
    def show(value: object) -> str:
        if isinstance(value, float):
            return "" if math.isnan(value) else f"{value:.4g}"
        return quote(value)

    head = "".join(f'<th style="{_CELL}">{quote(name)}</th>' for name in columns)
    body = "".join(f"<tr>{cells}</tr>" for cells in (
        "".join(f'<td style="{_CELL}">{show(value)}</td>' for value in row) for row in rows))
    return f'<table style="border-collapse:collapse;margin:0"><tr>{head}</tr>{body}</table>'
