"""The figure and the page of a validation."""

from __future__ import annotations

import math
from importlib import resources
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from suture.numbers import get_measure
from suture.results import (
    STYLE,
    embed,
    embed_table,
    fill_template,
    format_people_csv,
    list_provenance,
    render_png,
)
from suture.studies.measure_tests.record import TestOutcome

if TYPE_CHECKING:
    from suture.studies.measure_tests.validation import Validation

_COLOURS = {True: "#a8d5ba", None: "#e8e8e8", False: "#f2b5a7"}
_WORDS = {True: "passed", None: "not decided", False: "failed"}
_SIGNS = {True: "", None: "", False: "✕"}
_CELL, _MARGIN = (0.78, 0.42), (2.4, 1.9)


def draw_validation(found: Validation) -> Figure:
    """Draw measures x tests: the effect in each cell, coloured by what was decided."""
    measures, tests = found.measures, found.tests
    size = _MARGIN[0] + _CELL[0] * len(tests), _MARGIN[1] + _CELL[1] * len(measures)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
    cells = {(o.measure, o.test): o for o in found.outcomes}
    for i, measure in enumerate(measures):
        for j, test in enumerate(tests):
            outcome = cells.get((measure, test))
            if outcome is None:
                continue
            axes.add_patch(Rectangle((j, i), 1, 1, facecolor=_COLOURS[outcome.passed], edgecolor="white"))
            axes.text(j + 0.5, i + 0.5, _format(outcome), ha="center", va="center", fontsize=8)
    axes.set_xlim(0, len(tests))
    axes.set_ylim(len(measures), 0)
    units = {o.test: o.unit for o in found.outcomes}
    axes.set_xticks([j + 0.5 for j in range(len(tests))],
                    [f"{test}\n({units[test]})" if units[test] else test for test in tests], rotation=45,
                    ha="left", rotation_mode="anchor", fontsize=8, parse_math=False)
    axes.xaxis.tick_top()
    axes.set_yticks([i + 0.5 for i in range(len(measures))], [get_measure(m).label for m in measures],
                    fontsize=9, parse_math=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.legend(handles=[Patch(facecolor=_COLOURS[k], label=_WORDS[k]) for k in (True, None, False)],
                  loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _format(outcome: TestOutcome) -> str:
    if math.isnan(outcome.effect):
        return "–"
    return f"{outcome.effect:.2f}".replace("-0.00", "0.00") + _SIGNS[outcome.passed]


def render_validation(found: Validation) -> str:
    """Render the page as text."""
    cells = {(o.measure, o.test): o for o in found.outcomes}
    rows = [{"label": get_measure(m).label, "fooled": ", ".join(found.list_fooling(m)),
             "cells": [_describe(cells.get((m, t))) for t in found.tests]} for m in found.measures]
    units = {o.test: o.unit for o in found.outcomes}
    return fill_template(resources.files("suture.studies.measure_tests").joinpath("validation.html"),
                         found.measures, {
        "title": "Is the measure any good?", "findings": found.findings, "warnings": found.warnings,
        "facts": [("networks", ", ".join(found.networks)), ("layers", ", ".join(found.layers))],
        "tests": [(test, units[test]) for test in found.tests], "rows": rows,
        "image": embed("image/png", render_png(draw_validation(found), 130)),
        "sentences": [(o.test, get_measure(o.measure).label, o.sentence, _WORDS[o.passed], o.reason)
                      for o in found.outcomes],
        "notes": list(found.meta.get("notes", ())),
        "provenance": list_provenance({k: v for k, v in found.meta.items() if v is not None}),
        "csv": embed_table(format_people_csv(found.table.assign(
            passed=[_WORDS[o.passed] for o in found.outcomes])))})


def _describe(outcome: TestOutcome | None) -> dict[str, Any]:
    if outcome is None:
        return {"text": "", "colour": "#ffffff", "title": "not asked"}
    interval = "" if math.isnan(outcome.low) else f" [{outcome.low:.2f}, {outcome.high:.2f}]"
    return {"text": _format(outcome), "colour": _COLOURS[outcome.passed],
            "title": f"{_WORDS[outcome.passed]}{interval}. {outcome.sentence}"}
