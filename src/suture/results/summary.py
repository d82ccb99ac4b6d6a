"""What a page, a figure and a terminal say of a comparison's verdicts, in one place."""

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
    """The verdict of a comparison in words.

    Attributes:
        shown: sentences of the sanity battery that report something.
        held: those of measures by which all is as it should be.
        summary: how many those are, in one line; empty where there are none.
        gap: see `suture.results.sanity.Verdict`.
        cells: one sentence for each method whose cells have a verdict.
    """

    shown: tuple[str, ...]
    passed: tuple[str, ...]
    summary: str
    gap: str
    cells: tuple[str, ...]


def summarise_findings(comparison: ComparisonLike) -> Findings:
    """The verdict of a comparison in words, what is wrong apart from what is not."""
    verdict = comparison.verdict()
    records = verdict.table.to_dict("records")
    # Without a table the one sentence says why.
    show = [is_lost(r) or is_open(r) for r in records] if records else [True] * len(verdict.words)
    held = tuple(words for words, on in zip(verdict.words, show, strict=True) if not on)
    finding = ("no layer looks more similar to a layer than itself" if comparison.same_network else
               "every corresponding layer is the most similar one")
    return Findings(
        shown=tuple(words for words, on in zip(verdict.words, show, strict=True) if on), passed=held,
        summary=f"{len(held)} of {len(show)} {'measure' if len(show) == 1 else 'measures'}: {finding}" if held
        else "", gap=verdict.gap, cells=tuple(describe_cells(comparison).values()))


def is_lost(record: Mapping[Any, Any]) -> bool:
    """Whether another layer is more similar, by a row of the battery's table."""
    return (bool(record["worst_source"])
            or record.get("corresponding_by_source", 0) < record.get("source_layers", 0))


def is_open(record: Mapping[Any, Any]) -> bool:
    """Whether there was nothing to judge, by a row of the battery's table."""
    return not record["layers"] and not record.get("source_layers", 0)


def list_judged_methods(comparison: ComparisonLike) -> list[str]:
    """The methods whose cells have a verdict."""
    return [m for m in cells.METHOD_NAMES
            if set(cells.list_needed_measures(m, comparison.meta)) <= set(comparison.measures)]


def describe_cells(comparison: ComparisonLike) -> dict[str, str]:
    """How many cells are what, by method, in sentences to quote."""
    said = {m: cells.describe_verdicts(m, comparison.cells(m).to_numpy(), cells.get_detector(comparison.meta))
            for m in list_judged_methods(comparison)}
    return {m: words for m, words in said.items() if words}


def find_artefacts(comparison: ComparisonLike) -> dict[str, pd.DataFrame]:
    """Which cells work and are out of distribution, by method: frames of booleans (sources, targets)."""
    return {m: comparison.cells(m) == cells.ARTEFACT for m in list_judged_methods(comparison)}


# Average precision, FPR at 95 % recall, shift, shrinkage and rotation.
_DETAILS = ("ap", "fpr95", "frechet")


def is_detail(name: str) -> bool:
    """Whether a measure is a part, or a further view, of a number that an overview shows already."""
    kind, of, _ = name.rpartition(".")[2].partition("_")
    return bool(of) and kind in _DETAILS


_KINDS = ("auxiliary", "unseen")


def tabulate_quality(comparison: ComparisonLike) -> list[dict[str, Any]]:
    """How well each detector tells native representations from others, site by site; the verdict's detector
    first.

    Returns:
        By detector: ``name``, ``verdict`` (whether verdicts rest on it) and ``rows``: the site and, for
        auxiliary and unseen data, two-sided and one-sided AUROC as texts, with whether the threshold is
        missed.
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
    # Verdicts rest on the two-sided number; the one-sided one is small too where others look more typical.
    return {"text": cells.format_near(number, least, 3), "low": not side and number < least}


def write_report(comparisons: Sequence[ComparisonLike], path: str | os.PathLike[str]) -> Path:
    """Write one HTML page for several comparisons; see `suture.results.report.page.write_page`."""
    from suture.results.report.page import write_page  # imports matplotlib and the template engine

    return write_page(comparisons, path)
