"""Heat maps of a page, by stitching method, as rows of coloured cells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suture.numbers import METHOD_NAMES, Floats, Measure, get_measure
from suture.results.cell_verdict import ARTEFACT, CellVerdicts
from suture.results.convergence_marks import describe_marks
from suture.results.measured import Measured
from suture.results.report.figures import format_value, is_detail, pick_colours

_GROUPS = {**{tag: name.capitalize() for tag, name in METHOD_NAMES.items()}, "": "Structural indices"}
"""Titles of the groups of measures, by the prefix of their names."""


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
    shown = {what: measured.matrix(entry.name, what).to_numpy()
             for what in ("value", "low", "high", "n", "reason", "mark")}
    words, reasons = (verdicts.words.to_numpy(), verdicts.reasons.to_numpy()) if verdicts else (None, None)
    nearest = _find_most_similar(shown["value"], entry)
    rows = []
    for i, source in enumerate(measured.sources):
        cells = []
        for j, target in enumerate(measured.targets):
            own = measured.corresponds and source == target
            artefact = words is not None and words[i, j] == ARTEFACT
            cell = _build_cell(entry, {what: of[i, j] for what, of in shown.items()}, own,
                               bool(nearest[i, j]), artefact)
            titles = [f"{source} → {target}", cell["title"]]
            if words is not None and reasons is not None:
                titles.append(f"{words[i, j]}: {reasons[i, j]}")
            cells.append({**cell, "title": "\n".join(titles)})
        rows.append({"site": source, "cells": cells})
    return {"scale": describe_scale(entry), "rows": rows, "columns": measured.targets,
            "long": max((len(t) for t in measured.targets), default=0) > 4}


def _build_cell(entry: Measure, shown: Mapping[str, Any], own: bool, nearest: bool,
                artefact: bool) -> dict[str, Any]:
    """Build a cell: its text, style, kind (classes of the page) and title."""
    value = float(shown["value"])
    if math.isnan(value):
        return {"text": "", "style": "", "kind": "none own" if own else "none", "lined": False,
                "title": f"{entry.label} has no value: {shown['reason']}"}
    ground, ink = pick_colours(value, entry)
    kinds = {"own": own, "top": nearest, "artefact": artefact}
    low, high, mark = float(shown["low"]), float(shown["high"]), str(shown["mark"])
    interval = "" if math.isnan(low) or math.isnan(high) else f" [{low:.6g}, {high:.6g}]"
    title = f"{entry.label} = {value:.6g}{interval}, n = {float(shown['n']):.0f}"
    return {"text": format_value(value) + ("*" if mark else ""), "style": f"background:{ground};color:{ink}",
            "kind": " ".join(kind for kind, on in kinds.items() if on), "lined": artefact,
            "title": f"{title}\n* {mark}" if mark else title}


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
        marks = [measured.marks(name).to_numpy().ravel() for name in measured.measures
                 if name.rpartition(".")[0] == tag]
        # Each cell is counted once, with the mark of its first marked measure.
        cells = [next((m for m in cell if m), "") for cell in zip(*marks, strict=True)]
        if any(cells):
            sentences.append(f"{title}: {describe_marks(cells, len(cells))}.")
    return sentences


def describe_scale(entry: Measure) -> dict[str, str]:
    """Describe a measure's name, meaning, and colour bar from less to more similar."""
    less, more = (entry.low, entry.high) if entry.larger_is_more_similar else (entry.high, entry.low)
    stops = [pick_colours(float(value), entry)[0] for value in np.linspace(less, more, 13)]
    return {"label": entry.label, "name": entry.name, "about": entry.about, "less": f"{less:g}",
            "more": f"{more:g}", "direction": entry.direction, "gradient": ", ".join(stops)}
