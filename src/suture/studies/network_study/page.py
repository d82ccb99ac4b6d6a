"""The page of a study: what was found first, then figures, tables, and how it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from suture.numbers import get_measure
from suture.results import (
    CellGrid,
    CellMap,
    embed,
    embed_table,
    fill_template,
    format_people_csv,
    format_value,
    list_provenance,
    render_png,
    shorten_name,
)
from suture.studies.network_study.figures import find_partial
from suture.studies.network_study.findings import (
    StudyFindings,
    describe_contrast,
    describe_trend,
    list_names,
)
from suture.studies.network_study.layers import Reduced

if TYPE_CHECKING:
    from suture.studies.network_study.result import Study

_WIDEST = 40
"""Letters of a name beside a map."""
_SHOWN, _FAILED = 10, 100
"""Rows of either end of the ranking, and of failures."""
_WORDS = {"diagonal": "mean over corresponding layers",
          "best": "mean over the layers of both networks of their most similar one",
          "transport": "mean over layers matched by optimal transport"}
_TITLES = {"tree": "Tree", "embedding": "Networks as points"}
_NOTES = {
    "tree": "Average linkage; networks that join further left are nearer.",
    "embedding": "Metric multidimensional scaling (SMACOF). Only distances between points have a meaning. "
                 "Stress 0 is perfect, above 0.2 the plane distorts them.",
    "trend": "A point is a pair of different networks; the line joins means."}


def render_study(study: Study, found: StudyFindings, drawn: Mapping[str, Callable[[], Figure]],
                 lost: Mapping[str, str]) -> str:
    """Render the page as text.

    Args:
        drawn: functions that draw the figures.
        lost: reasons why others cannot be drawn.
    """
    n = len(study.networks)
    measures = [found.measure] if study.pairs else []
    rows, table = _tabulate_pairs(study, found)
    return fill_template(resources.files("suture.studies.network_study").joinpath("study.html"), measures, {
        "title": f"How similar are {n} networks?" if n > 1 else f"How similar? {study.networks[0]}",
        "sentences": found.sentences, "facts": _list_facts(study, found),
        "images": [_draw(name, make) for name, make in drawn.items() if name != "map"],
        "lost": [f"{_TITLES[name]}: {reason}." for name, reason in lost.items()],
        "tests": _list_tests(found), "skipped": [f"{k}: {reason}" for k, reason in found.skipped.items()],
        "pairs": rows, "failures": [[a, b, why] for (a, b), why in study.failures.items()][:_FAILED],
        "failed": len(study.failures), "notes": list(study.meta.get("notes", ())),
        "about": _tabulate_networks(study), "provenance": _list_provenance(study),
        "csv": embed_table(table)}, [_build_grid(study, found)] if study.pairs else [])


def _list_facts(study: Study, found: StudyFindings) -> list[tuple[str, str]]:
    first = next(iter(study.comparisons.values()), None)
    facts = [("networks", list_names(study.networks)),
             ("pairs", f"{len(study.pairs)} compared, {len(study.failures)} failed")]
    if first is not None:
        entry = get_measure(found.measure)
        facts += [("measure", f"{entry.label}, {entry.direction} is more similar"),
                  ("one number for a pair", _WORDS[found.reduce]),
                  ("layers", f"{list_names(first.sources, 12)} of {shorten_name(first.source, _WIDEST)}"),
                  ("examples", ", ".join(f"{first.meta[key]} {words}" for key, words in
                                         (("n_fit", "to fit"), ("n_test", "to test"))
                                         if first.meta.get(key) is not None))]
    return [(name, value) for name, value in facts if value]


def _build_grid(study: Study, found: StudyFindings) -> CellGrid:
    """Build the network map: every pair of networks, with what its value rests on."""
    values = study.matrix(found.measure, found.reduce).to_numpy(dtype=np.float64)
    made = study.reduce(found.measure, found.reduce)
    lines = np.empty(values.shape, object)
    for i, a in enumerate(study.networks):
        for j, b in enumerate(study.networks):
            lines[i, j] = _explain(study, (a, b), float(values[i, j]), made.get((a, b)) or made.get((b, a)))
    signs = {"star": find_partial(study, found.measure, found.reduce)}
    names = [shorten_name(name, _WIDEST) for name in study.networks]
    return CellGrid(f"{len(names)} networks", names, names, np.eye(len(names), dtype=bool),
                    [CellMap(get_measure(found.measure), values, signs=signs, lines=[lines])])


def _explain(study: Study, pair: tuple[str, str], value: float, one: Reduced | None) -> str:
    """Say what the value of a pair rests on, or why it has none."""
    if one is not None and not np.isnan(value):
        left = f"; {one.left_out} left out: {one.why}" if one.left_out else ""
        return f"from {one.cells} cell{'s' * (one.cells != 1)}{left}"
    reason = study.failures.get(pair) or (
        f"no cell has a value to be trusted: {one.why}" if one is not None and pair in study.comparisons else
        "not compared")
    return f"no value: {reason}"


def _draw(name: str, make: Callable[[], Figure]) -> dict[str, str]:
    kind, _, column = name.partition("_")
    title = _TITLES.get(kind, f"Along {column}")
    return {"title": title, "note": _NOTES[kind], "image": embed("image/png", render_png(make(), 130))}


def _list_tests(found: StudyFindings) -> list[str]:
    n = len(found.adjusted)
    return [*(describe_trend(t, found.adjusted[t.column], n) for t in found.trends),
            *(describe_contrast(c, found.adjusted[c.by], n) for c in found.contrasts)]


def _tabulate_pairs(study: Study, found: StudyFindings) -> tuple[list[list[str]], bytes]:
    """Return the rows of both ends of the ranking, and all pairs as CSV."""
    import pandas as pd

    ranked, made = found.ranked, study.reduce(found.measure, found.reduce) if study.pairs else {}
    ends = ranked if len(ranked) <= 2 * _SHOWN else (*ranked[:_SHOWN], *ranked[-_SHOWN:])
    place = {(a, b): k for k, (a, b, _) in enumerate(ranked, 1)}
    rows = [[str(place[a, b]), a, b, format_value(value), str(made[a, b].cells), str(made[a, b].left_out)]
            for a, b, value in ends]
    whole = [{"source": a, "target": b, "measure": found.measure, "value": one.value, "cells": one.cells,
              "left_out": one.left_out, "reason": one.why} for (a, b), one in made.items()]
    whole += [{"source": a, "target": b, "measure": found.measure, "value": np.nan, "cells": 0, "left_out": 0,
               "reason": reason} for (a, b), reason in study.failures.items()]
    return rows, format_people_csv(pd.DataFrame(whole))


def _tabulate_networks(study: Study) -> dict[str, Any] | None:
    if not len(study.about.columns):
        return None
    failed = Counter(name for pair in study.failures for name in set(pair))
    more = ["failed pairs"] if failed else []
    return {"columns": [*map(str, study.about.columns), *more],
            "rows": [[name, *("" if v is None or v != v else str(v) for v in study.about.loc[name]),
                      *(str(failed[name]) for _ in more)] for name in study.networks]}


def _list_provenance(study: Study) -> list[tuple[str, str]]:
    """List settings, versions and data as one comparison has them, and what the study adds."""
    first = next(iter(study.comparisons.values()), None)
    meta = dict(study.meta) if first is None else {**first.meta, "created": study.meta.get("created")}
    kept = ("settings", "versions", "seed", "device", "created", "n_fit", "n_test", "command")
    rows = list_provenance({key: meta[key] for key in kept if meta.get(key) is not None})
    folder = study.meta.get("folder")
    return [*rows, *([("folder", str(folder))] if folder else [])]
