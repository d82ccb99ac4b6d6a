"""Summary of a comparison's verdicts, for the page, the figures and the terminal."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from suture.results import cell_verdict as cells
from suture.results.report.compared import ComparisonLike

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Findings:
    """Findings of the sanity battery and the cells' verdicts, as sentences.

    Attributes:
        shown: sentences about measures by which something is wrong or nothing can be judged.
        passed: sentences about measures by which all is as it should be.
        summary: how many measures passed, in one line; empty where none did.
        gap: see `suture.results.sanity.Verdict`.
        cells: one sentence for each method whose cells have a verdict.
    """

    shown: tuple[str, ...]
    passed: tuple[str, ...]
    summary: str
    gap: str
    cells: tuple[str, ...]


def summarise_findings(comparison: ComparisonLike) -> Findings:
    """Summarise a comparison's verdicts in sentences; those about faults come apart from the others."""
    verdict = comparison.verdict()
    records = verdict.table.to_dict("records")
    # Without a table the only sentence gives the reason, so it is shown.
    show = [is_lost(r) or is_open(r) for r in records] if records else [True] * len(verdict.words)
    held = tuple(words for words, on in zip(verdict.words, show, strict=True) if not on)
    finding = ("no layer looks more similar to a layer than itself" if comparison.same_network else
               "every corresponding layer is the most similar one")
    return Findings(
        shown=tuple(words for words, on in zip(verdict.words, show, strict=True) if on), passed=held,
        summary=f"{len(held)} of {len(show)} {'measure' if len(show) == 1 else 'measures'}: {finding}" if held
        else "", gap=verdict.gap, cells=tuple(describe_cells(comparison).values()))


def is_lost(record: Mapping[Any, Any]) -> bool:
    """Return True where another layer is more similar, from a row of the battery's table."""
    return (bool(record["worst_source"])
            or record.get("corresponding_by_source", 0) < record.get("source_layers", 0))


def is_open(record: Mapping[Any, Any]) -> bool:
    """Return True where there was nothing to judge, from a row of the battery's table."""
    return not record["layers"] and not record.get("source_layers", 0)


def list_judged_methods(comparison: ComparisonLike) -> list[str]:
    """List the methods whose cells have a verdict."""
    return [m for m in cells.METHOD_NAMES
            if set(cells.list_needed_measures(m, comparison.meta)) <= set(comparison.measures)]


def describe_cells(comparison: ComparisonLike) -> dict[str, str]:
    """Describe the counts of verdicts by method, in quotable sentences."""
    sentences = {
        m: cells.describe_verdicts(m, comparison.cells(m).to_numpy(), cells.get_detector(comparison.meta))
        for m in list_judged_methods(comparison)}
    return {m: words for m, words in sentences.items() if words}


def find_artefacts(comparison: ComparisonLike) -> dict[str, pd.DataFrame]:
    """Find the cells that work and are out of distribution.

    The result holds a frame of booleans (sources, targets) for each method.
    """
    return {m: comparison.cells(m) == cells.ARTEFACT for m in list_judged_methods(comparison)}


# Average precision, FPR at 95 % recall, and the parts of Frechet distance (shift, shrinkage, rotation).
_DETAILS = ("ap", "fpr95", "frechet")


def is_detail(name: str) -> bool:
    """Return True where a measure is a part, or a further view, of a number that an overview shows."""
    kind, of, _ = name.rpartition(".")[2].partition("_")
    return bool(of) and kind in _DETAILS


_KINDS = ("auxiliary", "unseen")


def tabulate_quality(comparison: ComparisonLike) -> list[dict[str, Any]]:
    """Tabulate how well each detector tells native representations from others, site by site.

    The verdict's detector comes first.

    Returns:
        By detector: ``name``, ``verdict`` (True where verdicts rest on it) and ``rows``. A row is the site
        and, for auxiliary and unseen data, two-sided and one-sided AUROC as texts. Each text has a flag that
        is True where the threshold is missed.
    """
    about = comparison.meta.get("ood") or {}
    least, first = cells.get_thresholds(about).quality, about.get("verdict")
    tables = []
    for name, sites in sorted(about.get("quality", {}).items(), key=lambda item: item[0] != first):
        rows = [{"site": site, "cells": [_format_quality(found.get(kind + side), least, side)
                                         for kind in _KINDS for side in ("", "_one_sided")]}
                for site, found in zip(comparison.targets, sites, strict=False)]
        tables.append({"name": name, "verdict": name == first, "rows": rows})
    return tables


def _format_quality(value: float | None, least: float, side: str) -> dict[str, Any]:
    number = np.nan if value is None else float(value)
    if math.isnan(number):
        return {"text": "–", "low": False}
    # Verdicts rest on the two-sided number, so only that one can miss the threshold.
    return {"text": cells.format_near(number, least, 3), "low": not side and number < least}


def write_report(comparisons: Sequence[ComparisonLike], path: str | os.PathLike[str]) -> Path:
    """Write one HTML page for several comparisons; see `suture.results.report.page.write_page`."""
    from suture.results.report.page import write_page  # imports matplotlib and the template engine

    return write_page(comparisons, path)
