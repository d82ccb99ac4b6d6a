"""The page of one or several comparisons."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suture._base import clean_file_name, expect
from suture.numbers import sort_measures
from suture.results.findings import Findings, summarise_findings
from suture.results.measured import Measured, format_people_csv
from suture.results.page import tables
from suture.results.page.curves import build_histograms, build_loss_curve
from suture.results.page.frame import embed_table, fill_template, write_text
from suture.results.page.maps import build_grid, choose_lead, group_maps, list_marked
from suture.results.standing import find_standing
from suture.results.unjudged import shorten_name

_FIRST = 3
"""Largest number of sentences of the finding on the first screen."""


def write_page(comparisons: Sequence[Measured], path: str | os.PathLike[str]) -> Path:
    """Write the page of comparisons; see `write_text`."""
    return write_text(render_page(comparisons), path)


def render_page(comparisons: Sequence[Measured]) -> str:
    """Render the page of at least one comparison as text, in the given order."""
    expect(len(comparisons) > 0, "at least one comparison to report", "none")
    present = sort_measures(name for c in comparisons for name in c.measures)
    found = [summarise_findings(c) for c in comparisons]
    grids = [build_grid(c, f.methods) for c, f in zip(comparisons, found, strict=True)]
    described = [_describe_comparison(c, f, i) for c, f, i in
                 zip(comparisons, found, range(len(found)), strict=True)]
    return fill_template("comparisons.html", present,
                         {"title": _ask_question(comparisons), "comparisons": described}, grids)


def _ask_question(comparisons: Sequence[Measured]) -> str:
    whole = dict.fromkeys(name for c in comparisons for name in (c.source, c.target))
    names = [shorten_name(name) for name in whole]
    if len(names) == 1:
        return f"How similar are the layers of {names[0]} to one another?"
    more = f"{names[1]}" if len(names) == 2 else f"{len(names) - 1} other networks"
    return f"How similar are the layers of {names[0]} and {more}?"


def _describe_comparison(measured: Measured, found: Findings, number: int) -> dict[str, Any]:
    """Describe a comparison for the template."""
    about = measured.meta.get("ood") or {}
    name = "-to-".join(clean_file_name(one)[:80] for one in (measured.source, measured.target))
    lead = [measured.measures.index(name) for name in choose_lead(measured)]
    shown, rest = _divide_findings(found)
    return {
        "id": f"c{number}", "number": number,
        "pair": f"{shorten_name(measured.source)} → {shorten_name(measured.target)}",
        "brief": tables.summarise_size(measured), "facts": tables.list_facts(measured),
        "found": found, "shown": shown, "rest": rest, "lead": lead,
        "verdict": tables.tabulate_verdict(found.verdict.table), "chance": tables.tabulate_chance(measured),
        "ood": {name: str(about[name]) for name in ("positive", "auxiliary", "unseen") if name in about},
        "rule": next((by.rule for by in find_standing(measured).criteria.values()), ""),
        "terms": tables.list_terms(measured),
        "range": tables.tabulate_range(measured), "quality": tables.tabulate_quality(measured),
        "scores": build_histograms(measured), "notes": [str(note) for note in measured.meta.get("notes", [])],
        "groups": group_maps(measured, found.methods), "missing": tables.list_missing(measured),
        "marked": list_marked(measured), "curve": build_loss_curve(measured),
        "reproduce": tables.list_reproduction(measured), "provenance": tables.list_provenance(measured.meta),
        "csv": embed_table(format_people_csv(measured.table)), "csv_name": f"{name}.csv",
        "corresponds": measured.corresponds, "same_network": measured.same_network,
    }


def _divide_findings(found: Findings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide the sentences after `Findings.first` into those of the first screen and the others."""
    room = max(0, _FIRST - len(re.findall(r"\.(?: |$)", found.first)))
    return found.sentences[:room], found.sentences[room:]
