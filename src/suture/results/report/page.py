"""A self-contained HTML page for one or several comparisons: no network, no script."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from suture._base import SutureError, clean_file_name, replace_file
from suture.numbers import get_measure, sort_measures
from suture.results import cell_verdict as judging
from suture.results.report import histograms
from suture.results.report.compared import ComparisonLike
from suture.results.report.figure_format import render_png
from suture.results.report.page_heatmaps import describe_scale, group_heatmaps, list_marked
from suture.results.summary import is_lost, summarise_findings, tabulate_quality
from suture.results.table import format_csv

if TYPE_CHECKING:
    import pandas as pd

_CITATION = """@inproceedings{balogh2025stitch,
  author    = {Balogh, András and Jelasity, Márk},
  title     = {How not to Stitch Representations to Measure Similarity:
               Task Loss Matching versus Direct Matching},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year      = {2025},
  note      = {arXiv:2412.11299}
}"""
_METHODS = {"dm": "direct matching (DM)", "tlm": "task loss matching (TLM)"}
_HEADERS = {
    "measure": "measure", "layers": "target layers", "violated": "another is more similar",
    "beyond_noise": "beyond noise", "corresponding": "corresponding is nearest",
    "source_layers": "source layers",
    "corresponding_by_source": "corresponding is nearest", "worst_margin": "largest margin",
    "worst_source": "by source", "worst_target": "into target", "undefined": "cells without value",
}
# The page shows these entries of meta elsewhere, so they are left out of the list of settings.
_SHOWN_ELSEWHERE = ("versions", "seed", "command", "settings", "n_fit", "n_test", "created", "device",
                    "notes", "stages", "ood")


def render_page(comparisons: Sequence[ComparisonLike]) -> str:
    """Render the page as text.

    Args:
        comparisons: at least one; shown in this order.

    Raises:
        SutureError: no comparison was given.
    """
    from jinja2 import Environment, StrictUndefined

    if not comparisons:
        raise SutureError("expected at least one comparison to report, got none")
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


def write_page(comparisons: Sequence[ComparisonLike], path: str | os.PathLike[str]) -> Path:
    """Write the page in one step: a reader of `path` sees the old page or the new one, whole.

    Returns:
        The page.

    Raises:
        SutureError: no comparison was given, `path` is a folder, or it cannot be written.
    """
    page = Path(path)
    if page.is_dir():
        raise SutureError(f"expected a file name for the report, got the folder {str(page)!r}; write "
                          f"{str(page / 'report.html')!r} instead")
    # A file name, and so a network's name, can hold a lone surrogate, which UTF-8 cannot encode.
    replace_file(page, render_page(comparisons).encode("utf-8", errors="replace"))
    return page


def _describe_comparison(comparison: ComparisonLike, number: int) -> dict[str, Any]:
    name = f"{clean_file_name(comparison.source)}-to-{clean_file_name(comparison.target)}"
    data = base64.b64encode(format_csv(comparison.table).encode("utf-8", errors="replace")).decode()
    found = summarise_findings(comparison)
    about = comparison.meta.get("ood") or {}
    return {
        "id": f"c{number}", "pair": f"{comparison.source} → {comparison.target}",
        "facts": _list_facts(comparison), "verdict": _build_verdict_table(comparison.verdict().table),
        "found": found, "ood": {name: str(about[name])
                                for name in ("verdict", "positive", "auxiliary", "unseen") if name in about},
        "thresholds": judging.get_thresholds(about), "quality": tabulate_quality(comparison),
        "scores": _draw_scores(comparison), "notes": [str(note) for note in comparison.meta.get("notes", [])],
        "groups": group_heatmaps(comparison), "missing": _list_missing(comparison),
        "marked": list_marked(comparison), "curve": _build_loss_curve(comparison),
        "provenance": _list_provenance(comparison.meta),
        "csv": f"data:text/csv;charset=utf-8;base64,{data}", "csv_name": f"{name}.csv",
        "corresponds": comparison.same_network or comparison.same_architecture,
        "own": "layer itself" if comparison.same_network else "corresponding layer",
    }


def _draw_scores(comparison: ComparisonLike) -> dict[str, str] | None:
    """Draw histograms of the scores that verdicts rest on, as an image within the page."""
    detector = judging.get_detector(comparison.meta)
    if detector not in histograms.list_scored_detectors(comparison):
        return None
    image = base64.b64encode(render_png(histograms.draw_histograms(comparison, detector), 120)).decode()
    return {"detector": detector, "image": f"data:image/png;base64,{image}"}


def _list_facts(comparison: ComparisonLike) -> list[tuple[str, str]]:
    meta = comparison.meta
    kind = ("one network with itself" if comparison.same_network else
            "two networks of one architecture" if comparison.same_architecture else "two architectures")
    methods = [words for tag, words in _METHODS.items()
               if any(name.startswith(f"{tag}.") for name in comparison.measures)]
    indices = [get_measure(m).label for m in comparison.measures if "." not in m]
    facts = [
        ("source (rows)", f"{comparison.source}: {', '.join(comparison.sources)}"),
        ("target (columns)", f"{comparison.target}: {', '.join(comparison.targets)}"),
        ("kind", kind),
        ("stitched by", ", ".join(methods)),
        ("indices", ", ".join(indices)),
        ("examples", ", ".join(f"{meta[key]} {words}" for key, words in
                               (("n_fit", "to fit"), ("n_test", "to test")) if meta.get(key) is not None)),
    ]
    return [(name, value) for name, value in facts if value]


def _list_provenance(meta: dict[str, Any]) -> list[tuple[str, str]]:
    settings = meta.get("settings") or {}
    pairs = settings.items() if isinstance(settings, dict) else [("settings", settings)]
    versions = meta.get("versions") or {}
    rows = [(str(key), _format_setting(value)) for key, value in pairs]
    rows += [(str(key), _format_setting(value)) for key, value in meta.items() if key not in _SHOWN_ELSEWHERE]
    rows += [(key, _format_setting(meta[key])) for key in ("seed", "device", "created", "stages")
             if meta.get(key) is not None]
    if isinstance(versions, dict) and versions:
        rows.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    if meta.get("command"):
        rows.append(("command", _format_setting(meta["command"])))
    return rows


def _format_setting(value: object) -> str:
    if isinstance(value, list) and all(isinstance(v, str | int | float) for v in value):
        return ", ".join(str(v) for v in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _build_verdict_table(table: pd.DataFrame) -> dict[str, Any] | None:
    if table.empty:
        return None
    rows = []
    for record in table.to_dict("records"):
        cells = [_format_verdict_value(str(key), value) for key, value in record.items()]
        rows.append({"cells": cells, "lost": is_lost(record)})
    headers = [(_HEADERS[str(name)], name not in ("measure", "worst_source", "worst_target"))
               for name in table.columns]
    return {"headers": headers, "rows": rows}


def _format_verdict_value(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"text": get_measure(value).label if key == "measure" else value or "–", "numeric": False}
    if math.isnan(value):
        return {"text": "–", "numeric": True}
    return {"text": f"{value:.3g}" if key == "worst_margin" else f"{value:.0f}", "numeric": True}


def _list_missing(comparison: ComparisonLike) -> list[str]:
    rows = comparison.table[comparison.table["reason"] != ""]
    counts = rows.groupby(["measure", "reason"], sort=False).size()
    sentences = []
    for key, count in counts.items():
        name, reason = cast(tuple[str, str], key)
        cells = "1 cell has" if count == 1 else f"{count} cells have"
        sentences.append(f"{get_measure(name).label}: {cells} no value: {reason}")
    return sentences


def _build_loss_curve(comparison: ComparisonLike) -> dict[str, Any] | None:
    """Build the mean training loss over the cells, with the band from best to worst cell, as SVG points."""
    import pandas as pd

    losses = comparison.arrays.get("tlm.loss")
    if losses is None or losses.ndim != 3 or losses.shape[-1] < 2:
        return None
    flat = losses.reshape(-1, losses.shape[-1]).astype(np.float64)
    if "tlm.held_out" in comparison.arrays:  # cells that stopped early keep their last loss
        flat = pd.DataFrame(flat).ffill(axis=1).to_numpy()
    flat = flat[np.isfinite(flat).all(axis=1)]
    if not len(flat):
        return None
    mean, low, high = flat.mean(axis=0), flat.min(axis=0), flat.max(axis=0)
    top = float(high.max()) or 1.0
    width, height = 320.0, 120.0

    def points(line: Any) -> list[str]:
        return [f"{width * k / (len(line) - 1):.1f},{height * (1 - max(0.0, v) / top):.1f}"
                for k, v in enumerate(line)]

    return {"width": width, "height": height, "mean": " ".join(points(mean)),
            "band": " ".join(points(low) + points(high)[::-1]), "top": f"{top:.3g}", "epochs": len(mean),
            "cells": len(flat), "first": f"{mean[0]:.3g}", "last": f"{mean[-1]:.3g}",
            "worst": f"{high[-1]:.3g}"}
