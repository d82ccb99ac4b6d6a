"""Heat maps as cells of a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suture.numbers import METHOD_NAMES, Floats, Measure, get_measure
from suture.results.heatmaps import CHANCE_LEGEND, CHANCE_SIGN, format_value, is_detail, pick_colours
from suture.results.inference.nulls import find_chance
from suture.results.measured import Measured, take_cells
from suture.results.verdicts import ARTEFACT, CellVerdicts, describe_marks

_GROUPS = {**{tag: name.capitalize() for tag, name in METHOD_NAMES.items()}, "": "Structural indices"}
"""Titles of the groups of measures, by the prefix of their names."""


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
