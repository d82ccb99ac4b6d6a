"""The maps of a comparison on its page: which ones, in which order, and what is said of their cells."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.image import imsave

from suture.numbers import METHOD_NAMES, Bools, Floats, Measure, get_measure
from suture.results.findings import LEADING
from suture.results.heatmaps import format_value, is_detail, pick_colours
from suture.results.inference.nulls import LEVEL, find_chance, tabulate_nulls
from suture.results.measured import Measured, take_cells
from suture.results.page.data import CellGrid, CellMap, Texts, embed
from suture.results.standing import find_standing
from suture.results.verdicts import ARTEFACT, CellVerdicts, describe_marks

_GROUPS = {**{tag: name.capitalize() for tag, name in METHOD_NAMES.items()}, "": "Structural indices"}
"""Titles of the groups of measures, by the prefix of their names."""
_MOST_STATIC, _WIDEST_STATIC = 600, 14
"""Largest number of cells and of columns of a table that stands in the page for readers without scripts."""


def build_grid(measured: Measured, verdicts: Mapping[str, CellVerdicts]) -> CellGrid:
    """Build the maps of all measures of a comparison, in the order of `Measured.measures`."""
    own = [[measured.corresponds and s == t for t in measured.targets] for s in measured.sources]
    maps = [_build_map(measured, get_measure(name), verdicts.get(name.partition(".")[0]))
            for name in measured.measures]
    return CellGrid(f"{measured.source} → {measured.target}", measured.sources, measured.targets,
                    np.array(own, bool).reshape(len(measured.sources), len(measured.targets)), maps)


def _build_map(measured: Measured, entry: Measure, verdicts: CellVerdicts | None) -> CellMap:
    of = {what: take_cells(measured, entry.name, what)
          for what in ("value", "low", "high", "n", "reason", "mark")}
    known = ~np.isnan(of["value"])
    signs = {"star": (of["mark"] != "") & known, "chance": find_chance(measured, entry.name) & known,
             "top": _find_most_similar(of["value"], entry)}
    words, why = None, np.full(known.shape, "", object)
    if verdicts is not None:
        words, why = (found.to_numpy(dtype=object) for found in (verdicts.words, verdicts.reasons))
        signs["hatch"] = np.asarray(words == ARTEFACT) & known
        why = _join("verdict: ", words, ": ", why)
    # A verdict's reason names the mark already.
    marks = np.array([mark if ok and mark not in reason else "" for mark, ok, reason in
                      zip(of["mark"].flat, known.flat, why.flat, strict=True)], object).reshape(known.shape)
    lines = [_join("no value: ", of["reason"]), _describe_nulls(measured, entry.name), why,
             _join("* ", marks)]
    low, high, n = (np.where(known, of[what], np.nan) for what in ("low", "high", "n"))
    return CellMap(entry, of["value"], low, high, n, signs, words, lines)


def _join(*parts: Any) -> Texts:
    """Join words and texts of cells; where a text is empty, so is the result."""
    *_, shape = (part.shape for part in parts if not isinstance(part, str))
    size = math.prod(shape)
    columns = [[part] * size if isinstance(part, str) else part.ravel().tolist() for part in parts]
    made = np.empty(size, object)
    made[:] = ["".join(map(str, cell)) if all(cell) else "" for cell in zip(*columns, strict=True)]
    return made.reshape(shape)


def _describe_nulls(measured: Measured, name: str) -> Texts:
    """Say of each cell what the measure says by chance, or why that is not known."""
    shape = len(measured.sources), len(measured.targets)
    found = np.full(shape, "", object)
    if measured.meta.get("nulls", {}).get(name) is None:
        return found
    table = tabulate_nulls(measured, name)
    p = table["p_max"].fillna(table["p_holm"])
    found.ravel()[:] = [
        f"no null: {reason}" if reason else "" if mean != mean else
        f"by chance {mean:.3g} ± {std:.2g}; {'not ' if above > LEVEL else ''}above chance (p = {above:.2g}, "
        "adjusted for all cells)"
        for mean, std, above, reason in
        zip(table["null_mean"], table["null_std"], p, table["reason"], strict=True)]
    return found


def _find_most_similar(values: Floats, entry: Measure) -> Bools:
    """Find the most similar cells of each column (all in a tie), if it has at least two values."""
    known = ~np.isnan(values)
    common = np.where(known, values if entry.larger_is_more_similar else -values, -np.inf)
    found: Bools = known & (common == common.max(axis=0, initial=-np.inf)) & (known.sum(axis=0) > 1)
    return found


def choose_lead(measured: Measured) -> list[str]:
    """Choose three measures, two for the first screen: those by which stitched networks work, and indices."""
    criteria = find_standing(measured).criteria
    names = [f"{method}.{criteria[method].quantity}" for method in ("tlm", "dm") if method in criteria]
    there = [name for name in LEADING if name in measured.measures]
    others = [*there, *(name for name in measured.measures if not is_detail(name))]
    indices = [name for name in others if "." not in name]
    return list(dict.fromkeys([*names, *indices[:max(1, 2 - len(names))], *others]))[:3]


def group_maps(measured: Measured, verdicts: Mapping[str, CellVerdicts]) -> list[dict[str, Any]]:
    """Group the places of a comparison's maps by stitching method, details apart (`is_detail`)."""
    groups = []
    for tag, title in _GROUPS.items():
        found = verdicts.get(tag)
        places = [k for k, name in enumerate(measured.measures) if name.rpartition(".")[0] == tag]
        if places:
            details = [k for k in places if is_detail(measured.measures[k])]
            groups.append({"title": title, "counts": found.counts if found else "",
                           "maps": [k for k in places if k not in details], "more": details})
    return groups


def describe_map(grid: CellGrid, places: tuple[int, int]) -> dict[str, Any]:
    """Describe a map for a template: names, scale, and a table for readers without scripts.

    Args:
        places: of the grid on its page, and of the map in the grid.
    """
    given = grid.maps[places[1]]
    size = f"{len(grid.rows)} by {len(grid.columns)}"
    return {"grid": places[0], "map": places[1], "scale": describe_scale(given.measure), "sides": grid.sides,
            "about": f"Heat map of {given.measure.label}, {size} cells of {grid.name}. Arrow keys move from "
                     "cell to cell.",
            "columns": grid.columns, "rows": lambda: _tabulate(grid, given), "picture": lambda: _paint(given)}


def _tabulate(grid: CellGrid, given: CellMap) -> list[tuple[str, list[dict[str, str]]]]:
    """Tabulate a map as texts with their colours; too large a one has no rows."""
    if given.values.size > _MOST_STATIC or len(grid.columns) > _WIDEST_STATIC:
        return []
    signs = {**given.signs, "own": grid.own}
    return [(row, [_style(given.measure, float(x), {name for name in signs if signs[name][i, j]})
                   for j, x in enumerate(given.values[i])]) for i, row in enumerate(grid.rows)]


def _style(entry: Measure, value: float, signs: set[str]) -> dict[str, str]:
    kind = " ".join(sorted(signs & {"hatch", "top", "own"}))
    if np.isnan(value):
        return {"text": "–", "style": "", "kind": kind}
    ground, ink = pick_colours(value, entry)
    text = format_value(value) + "*" * ("star" in signs) + "°" * ("chance" in signs)
    return {"text": text, "style": f"background-color:{ground};color:{ink}", "kind": kind}


def _paint(given: CellMap) -> str:
    """Paint a map with a pixel for each cell, grey where a value is missing; return it as an address."""
    pixels = [[to_rgb("#a4a7ab" if np.isnan(x) else pick_colours(x, given.measure)[0]) for x in row]
              for row in given.values.tolist()]
    data = io.BytesIO()
    imsave(data, np.array(pixels), format="png")
    return embed("image/png", data.getvalue())


@cache
def describe_scale(entry: Measure) -> dict[str, str]:
    """Describe a measure's name, meaning, and the ends of its colours from less to more similar."""
    less, more = (entry.low, entry.high) if entry.larger_is_more_similar else (entry.high, entry.low)
    return {"label": entry.label, "name": entry.name, "about": entry.about, "less": f"{less:g}",
            "more": f"{more:g}", "direction": entry.direction}


def describe_gradient() -> str:
    """Describe the colours from less to more similar, the same for every measure, as a gradient of CSS."""
    entry = get_measure("cka")
    stops: Sequence[str] = [pick_colours(share, entry)[0] for share in np.linspace(0, 1, 13).tolist()]
    return f"linear-gradient(to right, {', '.join(stops)})"


def list_marked(measured: Measured) -> list[str]:
    """Return for each stitching method a sentence on how many cells are marked and why."""
    sentences = []
    for tag, title in _GROUPS.items():
        marks = [take_cells(measured, name, "mark").ravel() for name in measured.measures
                 if name.rpartition(".")[0] == tag]
        # Each cell is counted once, with the mark of its first marked measure.
        cells = [next((m for m in cell if m), "") for cell in zip(*marks, strict=True)]
        if any(cells):
            sentences.append(f"{title}: {describe_marks(cells, len(cells))}."
                             + (" With longer training their test scores may rise or fall."
                                if tag == "tlm" else ""))
    return sentences
