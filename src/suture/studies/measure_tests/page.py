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
    CellFitting,
    CellText,
    NameTicks,
    embed,
    embed_table,
    fill_template,
    format_people_csv,
    list_provenance,
    make_figure,
    render_png,
    resolve_points,
    write_legend,
)
from suture.studies.measure_tests.record import TestOutcome

if TYPE_CHECKING:
    from suture.studies.measure_tests.validation import Validation

_COLOURS = {True: "#abd0e6", None: "#e8e8e8", False: "#f4b183"}
_WORDS = {True: "passed", None: "not decided", False: "failed"}
_SIGNS = {True: "✓", None: "", False: "✕"}
"""Signs beside the numbers, by which a printer in grey tells the colours apart."""
_CELL, _MARGIN = 0.78, 2.4


def draw_validation(found: Validation) -> Figure:
    """Draw measures x tests: the effect in each cell, coloured by what was decided."""
    measures, tests = found.measures, found.tests
    figure = make_figure(None)
    axes = figure.subplots()
    cells = {(o.measure, o.test): o for o in found.outcomes}
    texts = []
    for i, measure in enumerate(measures):
        for j, test in enumerate(tests):
            outcome = cells.get((measure, test))
            if outcome is None:
                continue
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=_COLOURS[outcome.passed],
                                     edgecolor="white"))
            text = axes.text(j, i, "", ha="center", va="center", in_layout=False)
            long = _format(outcome)
            texts.append(CellText(text, (long, long.replace("0.", ".", 1)), ""))
    axes.set_xlim(-0.5, len(tests) - 0.5)
    axes.set_ylim(len(measures) - 0.5, -0.5)
    units = {o.test: o.unit for o in found.outcomes}
    NameTicks([f"{test} ({units[test]})" if units[test] else test for test in tests]).put_on(axes.xaxis)
    NameTicks([get_measure(m).label for m in measures]).put_on(axes.yaxis)
    axes.spines[:].set_visible(False)
    handles = [Patch(facecolor=colour) for colour in _COLOURS.values()]
    write_legend(axes, handles, [f"{_WORDS[k]} {_SIGNS[k]}".rstrip() for k in _COLOURS])
    rows = 1.9 * resolve_points("font.size") / 72 * (len(measures) + 1)
    figure.set_figheight(rows + 0.36 * figure.get_figwidth())
    CellFitting(axes, (len(measures), len(tests)), texts, resolve_points("font.size"), True)
    return figure


@mpl.rc_context(STYLE)
def _draw_for_page(found: Validation) -> Figure:
    with mpl.rc_context({"figure.figsize": (_MARGIN + _CELL * len(found.tests), 4.0)}):
        return draw_validation(found)


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
        "image": embed("image/png", render_png(_draw_for_page(found), 130)),
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
