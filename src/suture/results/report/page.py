"""A self-contained HTML page for one or several comparisons: no network, no script."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from suture._base import clean_file_name, expect, replace_file
from suture.numbers import get_measure, sort_measures
from suture.results.cell_verdict import get_detector, get_thresholds
from suture.results.measured import Measured
from suture.results.report import histograms
from suture.results.report.figure_format import render_png
from suture.results.report.page_heatmaps import describe_scale, group_heatmaps, list_marked
from suture.results.report.page_sections import (
    build_loss_curve,
    build_verdict_table,
    list_facts,
    list_missing,
    list_provenance,
    tabulate_quality,
)
from suture.results.summary import summarise_findings
from suture.results.table import format_csv

_CITATION = """@inproceedings{balogh2025stitch,
  author    = {Balogh, András and Jelasity, Márk},
  title     = {How not to Stitch Representations to Measure Similarity:
               Task Loss Matching versus Direct Matching},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year      = {2025},
  note      = {arXiv:2412.11299}
}"""


def render_page(comparisons: Sequence[Measured]) -> str:
    """Render the page as text.

    Args:
        comparisons: at least one; shown in this order.

    Raises:
        SutureError: no comparison was given.
    """
    from jinja2 import Environment, StrictUndefined

    expect(len(comparisons) > 0, "at least one comparison to report", "none")
    # Everything is escaped, because names of sites and networks come from users.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)
    text = resources.files("suture.results.report").joinpath("template.html").read_text(encoding="utf-8")
    present = sort_measures(name for c in comparisons for name in c.measures)
    pairs = [f"{c.source} → {c.target}" for c in comparisons]
    return environment.from_string(text).render(
        title=f"How similar? {pairs[0]}" + (f" and {len(pairs) - 1} more" if pairs[1:] else ""),
        comparisons=[_describe_comparison(c, i) for i, c in enumerate(comparisons)],
        legend=[describe_scale(get_measure(name)) for name in present], citation=_CITATION)


def write_page(comparisons: Sequence[Measured], path: str | os.PathLike[str]) -> Path:
    """Write the page in one step: a reader of `path` sees the old page or the new one, whole.

    Returns:
        The page.

    Raises:
        SutureError: no comparison was given, `path` is a folder, or it cannot be written.
    """
    page = Path(path)
    expect(not page.is_dir(), "a file name for the report", f"the folder {str(page)!r}",
           f"write {str(page / 'report.html')!r}")
    # A file name, and so a network's name, can hold a lone surrogate, which UTF-8 cannot encode.
    replace_file(page, render_page(comparisons).encode("utf-8", errors="replace"))
    return page


def _describe_comparison(measured: Measured, number: int) -> dict[str, Any]:
    """Describe a comparison for the template."""
    data = format_csv(measured.table).encode("utf-8", errors="replace")
    found, about = summarise_findings(measured), measured.meta.get("ood") or {}
    return {
        "id": f"c{number}", "pair": f"{measured.source} → {measured.target}",
        "facts": list_facts(measured), "verdict": build_verdict_table(found.verdict.table), "found": found,
        "ood": {name: str(about[name]) for name in ("positive", "auxiliary", "unseen") if name in about},
        "thresholds": get_thresholds(about), "quality": tabulate_quality(measured),
        "scores": _draw_scores(measured), "notes": [str(note) for note in measured.meta.get("notes", [])],
        "groups": group_heatmaps(measured, found.methods), "missing": list_missing(measured),
        "marked": list_marked(measured), "curve": build_loss_curve(measured),
        "provenance": list_provenance(measured.meta),
        "csv": _embed("text/csv;charset=utf-8", data),
        "csv_name": f"{clean_file_name(measured.source)}-to-{clean_file_name(measured.target)}.csv",
        "corresponds": measured.corresponds, "same_network": measured.same_network,
    }


def _draw_scores(measured: Measured) -> dict[str, str] | None:
    """Draw histograms of the scores that verdicts rest on, as an image within the page."""
    detector = get_detector(measured.meta)
    if detector not in histograms.list_scored_detectors(measured):
        return None
    image = render_png(histograms.draw_histograms(measured, detector), 120)
    return {"detector": detector, "image": _embed("image/png", image)}


def _embed(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
