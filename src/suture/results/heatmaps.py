"""Heat maps as cells of a page, and the colours and numbers that they share with drawn ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, to_hex
from numpy.typing import NDArray

from suture.numbers import METHOD_NAMES, Floats, Measure, get_measure
from suture.results.inference.nulls import find_chance
from suture.results.measured import Measured, take_cells
from suture.results.verdicts import ARTEFACT, CellVerdicts, describe_marks

HATCH_LEGEND = "hatched: works, beyond what natural inputs reach"
CHANCE_SIGN = "°"
CHANCE_LEGEND = f"{CHANCE_SIGN}: not above chance"
_GROUPS = {**{tag: name.capitalize() for tag, name in METHOD_NAMES.items()}, "": "Structural indices"}
"""Titles of the groups of measures, by the prefix of their names."""
# Average precision, FPR at 95 % recall, and the parts of the Fréchet distance (shift, shrinkage, rotation).
_DETAILS = ("ap", "fpr95", "frechet")


def make_printable(name: str) -> str:
    """Replace characters of a name that a font cannot draw, such as line breaks, by blanks."""
    return "".join(c if c.isprintable() else " " for c in name)


def format_networks(measured: Measured) -> str:
    """Format the names of the compared networks as a title."""
    return make_printable(f"{measured.source} → {measured.target}")


def is_detail(name: str) -> bool:
    """Return True if a measure adds detail to another one, such as a part of it; overviews leave it out."""
    kind, of, _ = name.rpartition(".")[2].partition("_")
    return bool(of) and kind in _DETAILS


@cache  # because matplotlib copies a colour map at every access
def choose_colormap(entry: Measure) -> Colormap:
    """Return viridis, reversed if smaller is more similar: bright always means similar."""
    return mpl.colormaps["viridis" if entry.larger_is_more_similar else "viridis_r"]


def pick_colours(value: float, entry: Measure) -> tuple[str, str]:
    """Return the hex colours of a cell with this value: background and legible text."""
    colours = choose_colormap(entry)
    share = min(1.0, max(0.0, (value - entry.low) / (entry.high - entry.low)))
    return _pick_step(colours.name, min(int(share * colours.N), colours.N - 1))


@cache  # a page has thousands of cells, in the 256 colours of a map
def _pick_step(colormap: str, step: int) -> tuple[str, str]:
    ground = mpl.colormaps[colormap](step)
    return to_hex(ground), choose_ink(ground)


def choose_ink(ground: Sequence[float]) -> str:
    """Return white or black, which is more legible on a colour of red, green and blue from 0 to 1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in ground[:3]]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    # Contrast ratios of WCAG 2 with white and with black.
    white = 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05
    return "#ffffff" if white else "#000000"


def format_value(value: float, digits: int = 3) -> str:
    """Format a value for a cell, with fewer digits from 10 on (residuals have no upper limit)."""
    size = abs(value)
    if size < 0.5 * 10**-digits:
        value = 0.0  # avoids "-0.000"
    if size < 10:
        return f"{value:.{digits}f}"
    return f"{value:.1f}" if size < 100 else f"{value:.0f}" if size < 10_000 else f"{value:.1e}"


def describe_scale(entry: Measure) -> dict[str, str]:
    """Describe a measure's name, meaning, and colour bar from less to more similar."""
    less, more = (entry.low, entry.high) if entry.larger_is_more_similar else (entry.high, entry.low)
    stops = [pick_colours(float(value), entry)[0] for value in np.linspace(less, more, 13)]
    return {"label": entry.label, "name": entry.name, "about": entry.about, "less": f"{less:g}",
            "more": f"{more:g}", "direction": entry.direction, "gradient": ", ".join(stops)}


def group_heatmaps(measured: Measured, verdicts: Mapping[str, CellVerdicts]) -> list[dict[str, Any]]:
    """Group the heat maps of a comparison by stitching method, details apart (`is_detail`)."""
    groups = []
    for tag, title in _GROUPS.items():
        found = verdicts.get(tag)
        maps = {name: _build_heatmap(measured, get_measure(name), found)
                for name in measured.measures if name.rpartition(".")[0] == tag}
        if maps:
            groups.append({"title": title, "counts": found.counts if found else "",
                           "maps": [shown for name, shown in maps.items() if not is_detail(name)],
                           "more": [shown for name, shown in maps.items() if is_detail(name)]})
    return groups


def _build_heatmap(measured: Measured, entry: Measure, verdicts: CellVerdicts | None) -> dict[str, Any]:
    shown = {what: take_cells(measured, entry.name, what)
             for what in ("value", "low", "high", "n", "reason", "mark")}
    if verdicts:
        shown |= {"word": verdicts.words.to_numpy(), "why": verdicts.reasons.to_numpy()}
    shown |= {"nearest": _find_most_similar(shown["value"], entry),
              "chance": find_chance(measured, entry.name)}
    cells = [[_build_cell(entry, {what: of[i, j] for what, of in shown.items()}, f"{source} → {target}",
                          measured.corresponds and source == target)
              for j, target in enumerate(measured.targets)] for i, source in enumerate(measured.sources)]
    return build_map(entry, measured.sources, measured.targets, cells)


def build_map(entry: Measure, sources: Sequence[str], targets: Sequence[str],
              cells: Sequence[Sequence[dict[str, Any]]], dense: bool = False) -> dict[str, Any]:
    """Build a heat map of a page from its cells (`style_cell`); a dense one has small cells without text."""
    rows = [{"site": source, "cells": row} for source, row in zip(sources, cells, strict=True)]
    return {"scale": describe_scale(entry), "rows": rows, "columns": targets, "dense": dense,
            "long": dense or max((len(t) for t in targets), default=0) > 4}


def _build_cell(entry: Measure, shown: Mapping[str, Any], sites: str, own: bool) -> dict[str, Any]:
    """Build a cell of a comparison."""
    value, artefact = float(shown["value"]), shown.get("word") == ARTEFACT
    verdict = [f"{shown['word']}: {shown['why']}"] if "word" in shown else []
    if math.isnan(value):
        return style_cell(entry, value, [sites, f"{entry.label} has no value: {shown['reason']}", *verdict],
                          {"own": own})
    kinds = {"own": own, "top": bool(shown["nearest"]), "artefact": artefact}
    low, high, mark = float(shown["low"]), float(shown["high"]), str(shown["mark"])
    interval = "" if math.isnan(low) or math.isnan(high) else f" [{low:.6g}, {high:.6g}]"
    title = [sites, f"{entry.label} = {value:.6g}{interval}, n = {float(shown['n']):.0f}",
             *([f"* {mark}"] if mark else []), *([CHANCE_LEGEND] if shown["chance"] else []), *verdict]
    return style_cell(entry, value, title, kinds, "*" * bool(mark) + CHANCE_SIGN * bool(shown["chance"]))


def style_cell(entry: Measure, value: float, title: Sequence[str], kinds: Mapping[str, bool],
               signs: str = "") -> dict[str, Any]:
    """Build a cell of a page: its text, style, kind (classes of the page) and title."""
    if math.isnan(value):
        kinds, text, style = {"none": True, **kinds}, "", ""
    else:
        ground, ink = pick_colours(value, entry)
        text, style = format_value(value) + signs, f"background:{ground};color:{ink}"
    return {"text": text, "style": style, "kind": " ".join(kind for kind, on in kinds.items() if on),
            "lined": kinds.get("artefact", False), "title": "\n".join(title)}


def _find_most_similar(values: Floats, entry: Measure) -> NDArray[np.bool_]:
    """Find the most similar cells of each column (all in a tie), if it has at least two values."""
    known = ~np.isnan(values)
    common = np.where(known, values if entry.larger_is_more_similar else -values, -np.inf)
    found: NDArray[np.bool_] = (common == common.max(axis=0, initial=-np.inf)) & (known.sum(axis=0) > 1)
    return found


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
