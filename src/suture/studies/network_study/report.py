"""The report of a study: its table as CSV, and a page that begins with what was found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from suture._base import FilePath, SutureError, checked, escape_controls, expect, replace_file
from suture.numbers import get_measure, sort_measures
from suture.results import format_people_csv
from suture.studies.network_study.layers import Reduce
from suture.studies.network_study.result import Study

_SHOWN = 3
"""Number of pairs at either end."""
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Study</title><style>
body {font: 16px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em}
table {border-collapse: collapse; margin: 1em 0; display: block; overflow-x: auto}
th, td {padding: .2em .7em; border-bottom: 1px solid #ccc; text-align: left}
</style></head><body>
"""


@checked
def write_study_report(study: Study, folder: FilePath, measure: str | None = None,
                       reduce: Reduce = "diagonal") -> tuple[Path, Path]:
    """Write ``table.csv`` and ``report.html`` into a folder, and return them.

    Args:
        study: any study.
        folder: made if it is missing.
        measure: that the page is about. Default: CKA, else the first.
        reduce: as for `Study.matrix`.
    """
    table, page = (Path(folder) / name for name in ("table.csv", "report.html"))
    sections = _list_sections(study, choose_measure(study, measure), reduce)
    text = _HEAD + "\n".join(sections) + "\n</body></html>\n"
    replace_file(table, _format_table(study))
    replace_file(page, text.encode(errors="replace"))
    return table, page


def choose_measure(study: Study, measure: str | None = None) -> str:
    """Return the measure that is asked for, else CKA, else the first of the study."""
    if measure is not None:
        return measure
    names = sort_measures(study.table["measure"].dropna().unique())
    expect(bool(names), "a study with measures", "none")
    return "cka" if "cka" in names else names[0]


def describe_study(study: Study, measure: str, reduce: Reduce = "diagonal") -> list[str]:
    """Return what a study found, in sentences: most and least similar pairs, and failures."""
    return [*_list_findings(study, measure, reduce),
            *(f"{a} into {b} failed: {reason}" for (a, b), reason in study.failures.items())]


def _list_findings(study: Study, measure: str, reduce: Reduce) -> list[str]:
    ranked = _rank_pairs(study, measure, reduce)
    label = get_measure(measure).label
    found = [f"{len(study.pairs)} pairs of {len(study.networks)} networks were compared."]
    if ranked:
        shown = max(1, min(_SHOWN, len(ranked) // 2))  # so that no pair is at both ends
        found.append(f"Most similar by {label}: {_list_pairs(ranked[:shown])}.")
        if len(ranked) > 1:
            found.append(f"Least similar: {_list_pairs(ranked[:-shown - 1:-1])}.")
    else:
        found.append(f"No pair of different networks has a value of {label}.")
    return found


def _rank_pairs(study: Study, measure: str, reduce: Reduce) -> list[tuple[str, str, float]]:
    """Return pairs of different networks that were compared, with their values, most similar first."""
    matrix, common = study.matrix(measure, reduce), get_measure(measure).common
    values, place = matrix.to_numpy(), {name: k for k, name in enumerate(study.networks)}
    found = [(a, b, float(values[place[a], place[b]])) for a, b in study.pairs if a != b]
    return sorted((each for each in found if not np.isnan(each[2])), key=lambda each: -common(each[2]))


def _list_pairs(ranked: Iterable[tuple[str, str, float]]) -> str:
    return ", ".join(f"{a} and {b} ({value:.3f})" for a, b, value in ranked)


def _format_table(study: Study) -> bytes:
    table = study.table
    numbers = ("value", "low", "high", "n")
    texts = {name: ["" if cell is None or cell != cell else str(cell) for cell in table[name]]
             for name in table.columns if name not in numbers}
    return format_people_csv(table.assign(**texts))


def _list_sections(study: Study, measure: str, reduce: Reduce) -> Iterator[str]:
    count, first, *more = _list_findings(study, measure, reduce)
    yield f"<h1>{_clean(first)}</h1>"
    yield from (f"<p>{_clean(text)}</p>" for text in (*more, count))
    if study.failures:
        yield "<h2>Failed pairs</h2>"
        yield _make_table(["source", "target", "reason"],
                          [[a, b, reason] for (a, b), reason in study.failures.items()])
    yield f"<h2>{_clean(get_measure(measure).label)}</h2>"
    yield (f"<p>More similar: {_clean(get_measure(measure).direction)}. Rows are sources, columns "
           "targets.</p>")
    matrix = study.matrix(measure, reduce)
    yield _make_table(["", *study.networks], [[name, *("" if np.isnan(v) else f"{v:.3f}" for v in row)]
                                              for name, row in zip(study.networks, matrix.to_numpy(),
                                                                   strict=True)])
    yield from _list_intervals(study, measure, reduce)
    if len(study.about.columns):
        yield "<h2>Networks</h2>"
        yield _make_table(["network", *study.about.columns],
                          [[name, *study.about.loc[name]] for name in study.about.index])
    yield from (f"<p>Note: {_clean(note)}</p>" for note in study.meta.get("notes", ()))


def _list_intervals(study: Study, measure: str, reduce: Reduce) -> Iterator[str]:
    try:
        row = study.summary(measure, reduce).iloc[0]
    except SutureError:  # no pair of different networks has a value
        return
    interval = row["reason"] or f"95 % interval over networks {row['low']:.3f} to {row['high']:.3f}"
    yield f"<p>Mean over different networks: {row['value']:.3f} ({_clean(interval)}).</p>"


def _make_table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    lines = ["".join(f"<td>{_clean(cell)}</td>" for cell in row) for row in rows]
    first = "".join(f"<th>{_clean(cell)}</th>" for cell in head)
    return "<table>\n" + "\n".join(f"<tr>{line}</tr>" for line in (first, *lines)) + "\n</table>"


def _clean(text: Any) -> str:
    """Return any text for a page: names come from users."""
    return "" if text is None or text != text else escape(escape_controls(str(text)))
