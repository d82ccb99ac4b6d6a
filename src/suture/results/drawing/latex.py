"""Tables of LaTeX in the style of booktabs, with intervals and escaped names."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from suture._base import expect
from suture.numbers import get_measure
from suture.results.measured import Measured, take_cells

if TYPE_CHECKING:
    import pandas as pd

_ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
            "→": r"$\rightarrow$", "←": r"$\leftarrow$", "≥": r"$\geq$", "≤": r"$\leq$", "−": "$-$",
            "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"{\char34}",
            "[": "{[}", "]": "{]}", "*": "{*}", "`": "{`}", "°": r"$^{\circ}$", "²": r"\textsuperscript{2}",
            **{sign: f"\\{sign}" for sign in "&%$#_{}"}}
"""Signs that LaTeX would read as commands, and signs that not every font of it has.

A line that begins with a bracket or a star would change the end of the line before.
"""
_NONE = "--"
_MARKED, _EMPTY = "$^{*}$ not to be trusted", f"{_NONE} no value"


def escape(text: object) -> str:
    """Escape a text for LaTeX; characters that cannot be printed become blanks."""
    shown = "".join(_ESCAPES.get(c, c) if c.isprintable() else " " for c in str(text))
    return re.sub("([-'])(?=\\1)", r"\1{}", shown)  # two of them would become a dash, or a quotation mark


def format_number(value: float, digits: int) -> str:
    """Format a number for LaTeX; a dash is a missing one."""
    if math.isnan(value):
        return _NONE
    if math.isinf(value):
        return r"$\infty$" if value > 0 else r"$-\infty$"
    text = f"{value:.{digits}f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return f"$-${text[1:]}" if text.startswith("-") else text


def format_interval(low: float, high: float, digits: int) -> str:
    """Format an interval, in small letters; empty if an end is missing."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return rf"{{\scriptsize [{format_number(low, digits)}, {format_number(high, digits)}]}}"


def write_table(head: Sequence[str], rows: Sequence[Sequence[str]], columns: str, notes: Sequence[str] = (),
                caption: str = "", label: str = "") -> str:
    """Write a table of LaTeX.

    Args:
        head, rows: cells, already of LaTeX.
        columns: their alignment, as ``"lrr"``.
        notes: of LaTeX, in a line below the rows.
        caption, label: texts; with one of them the tabular stands in a ``table``.
    """
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", rf"{' & '.join(head)} \\", r"\midrule",
            *(rf"{' & '.join(row)} \\" for row in rows), r"\bottomrule"]
    if notes:
        body.append(rf"\multicolumn{{{len(head)}}}{{l}}{{\scriptsize {'; '.join(notes)}}} \\")
    body.append(r"\end{tabular}")
    if caption or label:
        above = [rf"\caption{{{escape(caption)}}}"] * bool(caption) + [rf"\label{{{label}}}"] * bool(label)
        body = [r"\begin{table}[t]", r"\centering", *above, *body, r"\end{table}"]
    return "\n".join(body) + "\n"


def write_measure(measured: Measured, measure: str, intervals: bool, digits: int, caption: str,
                  label: str) -> str:
    """Write one measure of a comparison; `Drawn.to_latex` describes the arguments."""
    cells = {what: take_cells(measured, measure, what) for what in ("value", "low", "high", "mark")}
    return write_matrix(measured.sources, measured.targets, cells, get_measure(measure).label,
                        intervals, digits, caption, label)


def write_matrix(rows: Sequence[str], columns: Sequence[str], cells: Any, name: str, intervals: bool,
                 digits: int, caption: str, label: str) -> str:
    """Write a matrix, with its intervals in a second line of each row.

    Args:
        cells: arrays (rows, columns) ``value``, and if known ``low``, ``high`` and ``mark``.
        name: of the measure, in the upper left corner.
    """
    check_words(digits, label)
    lines: list[list[str]] = []
    value, marks = cells["value"], cells.get("mark")
    for i, row in enumerate(rows):
        marked = [marks is not None and bool(marks[i, j]) for j in range(len(columns))]
        lines.append([escape(row), *(format_number(float(value[i, j]), digits) + "$^{*}$" * marked[j]
                                     for j in range(len(columns)))])
        if intervals and "low" in cells:
            ends = [format_interval(float(cells["low"][i, j]), float(cells["high"][i, j]), digits)
                    for j in range(len(columns))]
            if any(ends):
                lines.append(["", *ends])
    notes = [_MARKED] * any("$^{*}$" in c for line in lines for c in line)
    notes += [_EMPTY] * any(c == _NONE for line in lines for c in line)
    return write_table([escape(name), *map(escape, columns)], lines, "l" + "c" * len(columns), notes,
                       caption, label)


def write_frame(table: pd.DataFrame, digits: int, caption: str, label: str) -> str:
    """Write a table of pandas with its index; columns ``low`` and ``high`` become an interval."""
    check_words(digits, label)
    paired = {"low", "high"} <= set(table.columns)
    names = [c for c in table.columns if not (paired and c in ("low", "high"))]
    numeric = {c: table[c].dtype.kind in "fc" for c in names}
    rows = []
    for (key, record) in zip(table.index, table.to_dict("records"), strict=True):
        row = [escape(key)] + [format_number(float(record[c]), digits) if numeric[c] else escape(record[c])
                               for c in names]
        if paired:
            row.append(format_interval(float(record["low"]), float(record["high"]), digits))
        rows.append(row)
    head = [escape(table.index.name or ""), *map(escape, names), *["95\\,\\% interval"] * paired]
    shape = "l" + "".join("r" if table[c].dtype.kind in "fciu" else "l" for c in names) + "c" * paired
    return write_table(head, rows, shape, caption=caption, label=label)


def check_words(digits: int, label: str) -> None:
    """Refuse a number of digits or a label that LaTeX could not read."""
    expect(0 <= digits <= 12, "0 to 12 digits", digits)
    readable = label.isprintable() and not set(label) & set("{}\\%#&~^$ ")
    expect(readable, "a label of letters, digits and - : .", label)
