"""Heat maps of a page: measures by stitching method, as rows of coloured cells with their words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from suture.numbers import Measure, get_measure
from suture.results import cell_verdict as judging
from suture.results.convergence_marks import describe_marks
from suture.results.report.compared import ComparisonLike
from suture.results.report.figures import format_value, pick_colours
from suture.results.summary import describe_cells, is_detail, list_judged_methods

_GROUPS = {"dm": "Direct matching", "tlm": "Task loss matching", "": "Structural indices"}
_WordsAndReasons = tuple[Any, Any]


def group_heatmaps(comparison: ComparisonLike) -> list[dict[str, Any]]:
    """Group the heat maps of a comparison by stitching method; parts and further views come apart."""
    groups = []
    sentences = describe_cells(comparison)
    words = {m: (comparison.cells(m).to_numpy(), comparison.cells(m, "reason").to_numpy())
             for m in list_judged_methods(comparison)}
    for tag, title in _GROUPS.items():
        maps = {name: _build_heatmap(comparison, get_measure(name), words.get(tag))
                for name in comparison.measures if name.rpartition(".")[0] == tag}
        if maps:
            groups.append({"title": title, "cells": sentences.get(tag, ""),
                           "maps": [shown for name, shown in maps.items() if not is_detail(name)],
                           "more": [shown for name, shown in maps.items() if is_detail(name)]})
    return groups


def _build_heatmap(comparison: ComparisonLike, entry: Measure,
                   verdict: _WordsAndReasons | None) -> dict[str, Any]:
    """Build a heat map as rows of cells; `verdict` has the words and reasons of the cells' verdicts."""
    shown = {what: comparison.matrix(entry.name, what).to_numpy()
             for what in ("value", "low", "high", "n", "reason", "mark")}
    nearest = _find_most_similar(shown["value"].astype(np.float64), entry)
    corresponds = comparison.same_network or comparison.same_architecture
    rows = []
    for i, source in enumerate(comparison.sources):
        cells = []
        for j, target in enumerate(comparison.targets):
            word, why = (str(of[i, j]) for of in verdict) if verdict else ("", "")
            kinds = {"own": corresponds and source == target, "top": bool(nearest[i, j]),
                     "artefact": word == judging.ARTEFACT}
            cell = _build_cell(entry, {what: of[i, j] for what, of in shown.items()}, kinds)
            cell["title"] = f"{source} → {target}\n{cell['title']}" + (f"\n{word}: {why}" if word else "")
            cells.append(cell)
        rows.append({"site": source, "cells": cells})
    return {"scale": describe_scale(entry), "rows": rows, "columns": comparison.targets,
            "long": max((len(t) for t in comparison.targets), default=0) > 4}


def _build_cell(entry: Measure, shown: dict[str, Any], kinds: dict[str, bool]) -> dict[str, Any]:
    value = float(shown["value"])
    if math.isnan(value):
        return {"text": "", "style": "", "kind": "none own" if kinds["own"] else "none", "lined": False,
                "title": f"{entry.label} has no value: {shown['reason']}"}
    ground, ink = pick_colours(value, entry)
    interval, mark = _format_interval(shown["low"], shown["high"]), str(shown["mark"])
    return {"text": format_value(value) + ("*" if mark else ""), "style": f"background:{ground};color:{ink}",
            "kind": " ".join(kind for kind, on in kinds.items() if on), "lined": kinds["artefact"],
            "title": f"{entry.label} = {value:.6g}{interval}, n = {float(shown['n']):.0f}"
                     + (f"\n* {mark}" if mark else "")}


def _find_most_similar(values: Any, entry: Measure) -> Any:
    """Find the cells that are the most similar of their column (all in a tie), among at least two."""
    common = values if entry.larger_is_more_similar else -values
    filled = np.where(np.isnan(common), -np.inf, common)
    several = (~np.isnan(common)).sum(axis=0) > 1
    return ~np.isnan(common) & several & (filled == filled.max(axis=0, initial=-np.inf))


def _format_interval(low: float, high: float) -> str:
    return "" if math.isnan(low) or math.isnan(high) else f" [{low:.6g}, {high:.6g}]"


def list_marked(comparison: ComparisonLike) -> list[str]:
    """Describe for each stitching method how many cells are marked and why."""
    sentences = []
    for tag, title in _GROUPS.items():
        names = [name for name in comparison.measures if name.rpartition(".")[0] == tag]
        marks = [comparison.marks(name).to_numpy().ravel() for name in names]
        # Each cell is counted once, with the mark of its first marked measure.
        cells = [next((m for m in cell if m), "") for cell in zip(*marks, strict=True)]
        if any(cells):
            sentences.append(f"{title}: {describe_marks(cells, len(cells))}.")
    return sentences


def describe_scale(entry: Measure) -> dict[str, str]:
    """Describe a measure's name and meaning, and its colour bar from less to more similar."""
    less, more = (entry.low, entry.high) if entry.larger_is_more_similar else (entry.high, entry.low)
    stops = [pick_colours(float(value), entry)[0] for value in np.linspace(less, more, 13)]
    return {"label": entry.label, "name": entry.name, "about": entry.about, "less": f"{less:g}",
            "more": f"{more:g}", "direction": entry.direction, "gradient": ", ".join(stops)}
