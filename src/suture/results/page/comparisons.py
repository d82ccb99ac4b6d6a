"""A self-contained HTML page for one or several comparisons, without scripts."""

from __future__ import annotations

import base64
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from suture._base import clean_file_name, escape_controls, expect, replace_file
from suture.numbers import METHOD_NAMES, get_measure, sort_measures
from suture.ood import BUILT_IN, describe_range
from suture.results.drawing import files, histograms
from suture.results.findings import summarise_findings
from suture.results.measured import Measured, format_people_csv
from suture.results.page.maps import describe_scale, group_heatmaps, list_marked
from suture.results.sanity import is_lost
from suture.results.standing import find_standing

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment

_HEADERS = {
    "measure": "measure", "layers": "target layers", "violated": "another is more similar",
    "beyond_noise": "beyond noise", "corresponding": "corresponding is nearest",
    "source_layers": "source layers", "corresponding_by_source": "corresponding is nearest",
    "marked": "on marked cells", "worst_margin": "largest margin", "worst_source": "by source",
    "worst_target": "into target", "undefined": "cells without value",
}
# Shown elsewhere on the page, so not in the list of settings.
_SHOWN_ELSEWHERE = ("versions", "seed", "command", "settings", "n_fit", "n_test", "created", "device",
                    "notes", "stages", "ood", "chance", "warning")


def write_page(comparisons: Sequence[Measured], path: str | os.PathLike[str]) -> Path:
    """Write the page of comparisons; see `write_text`."""
    return write_text(render_page(comparisons), path)


def write_text(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a page in one step, so that a reader sees the old or the new one whole; return its path."""
    page = Path(path)
    expect(not page.is_dir(), "a file name for the report", f"the folder {str(page)!r}",
           f"write {str(page / 'report.html')!r}")
    # A network's name may come from a file name with a lone surrogate, which UTF-8 cannot encode.
    replace_file(page, text.encode("utf-8", errors="replace"))
    return page


def render_page(comparisons: Sequence[Measured]) -> str:
    """Render the page of at least one comparison as text, in the given order."""
    expect(len(comparisons) > 0, "at least one comparison to report", "none")
    present = sort_measures(name for c in comparisons for name in c.measures)
    pairs = [f"{c.source} → {c.target}" for c in comparisons]
    return fill_template("comparisons.html", present, {
        "title": f"How similar? {pairs[0]}" + (f" and {len(pairs) - 1} more" if pairs[1:] else ""),
        "comparisons": [_describe_comparison(c, i) for i, c in enumerate(comparisons)]})


def fill_template(template: str | Traversable, measures: Iterable[str], values: Mapping[str, Any]) -> str:
    """Fill a template that extends ``base.html``, the frame of all pages: style, legend, citation.

    Args:
        template: a file of the folder ``templates``, or one of another room.
        measures: what the legend explains.
        values: names in the template, and ``title``.
    """
    environment = _make_environment()
    found = (environment.get_template(template) if isinstance(template, str)
             else environment.from_string(template.read_text(encoding="utf-8")))
    return found.render(legend=[describe_scale(get_measure(name)) for name in measures], **values)


@cache  # because it keeps the templates that it has compiled
def _make_environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Names of sites and networks come from users, so everything is escaped.
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                       finalize=_escape_lines, loader=PackageLoader("suture.results.page"))


def _escape_lines(value: Any) -> Any:
    """Escape signs in a text that could reverse or hide others; line breaks within a tooltip stay."""
    if type(value) is not str or value.isprintable():  # markup of the page itself is of another class
        return value
    return "\n".join(map(escape_controls, value.split("\n")))


def _describe_comparison(measured: Measured, number: int) -> dict[str, Any]:
    """Describe a comparison for the template."""
    data = format_people_csv(measured.table)
    found, about = summarise_findings(measured), measured.meta.get("ood") or {}
    return {
        "id": f"c{number}", "pair": f"{measured.source} → {measured.target}",
        "facts": _list_facts(measured), "verdict": _build_verdict_table(found.verdict.table), "found": found,
        "ood": {name: str(about[name]) for name in ("positive", "auxiliary", "unseen") if name in about},
        "rule": next((by.rule for by in find_standing(measured).criteria.values()), ""),
        "range": tabulate_range(measured), "quality": tabulate_quality(measured),
        "scores": _draw_scores(measured), "notes": [str(note) for note in measured.meta.get("notes", [])],
        "groups": group_heatmaps(measured, found.methods), "missing": _list_missing(measured),
        "marked": list_marked(measured), "curve": build_loss_curve(measured),
        "provenance": list_provenance(measured.meta),
        "csv": embed("text/csv;charset=utf-8", data),
        "csv_name": f"{clean_file_name(measured.source)}-to-{clean_file_name(measured.target)}.csv",
        "corresponds": measured.corresponds, "same_network": measured.same_network,
    }


def _draw_scores(measured: Measured) -> dict[str, str] | None:
    """Draw histograms of the first detector's scores, as an image within the page."""
    detector = next(iter(histograms.list_scored_detectors(measured)), None)
    if detector is None:
        return None
    image = files.render_png(histograms.draw_histograms(measured, detector), 120)
    return {"detector": detector, "image": embed("image/png", image)}


def embed(kind: str, data: bytes) -> str:
    """Return data as an address within the page."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _list_facts(measured: Measured) -> list[tuple[str, str]]:
    kind = ("one network with itself" if measured.same_network else
            "two networks of one architecture" if measured.same_architecture else "two architectures")
    methods = [f"{name} ({tag.upper()})" for tag, name in METHOD_NAMES.items()
               if any(measure.startswith(f"{tag}.") for measure in measured.measures)]
    facts = [
        ("source (rows)", f"{measured.source}: {', '.join(measured.sources)}"),
        ("target (columns)", f"{measured.target}: {', '.join(measured.targets)}"),
        ("kind", kind),
        ("stitched by", ", ".join(methods)),
        ("indices", ", ".join(get_measure(m).label for m in measured.measures if "." not in m)),
        ("examples", ", ".join(f"{measured.meta[key]} {words}" for key, words in
                               (("n_fit", "to fit"), ("n_test", "to test"))
                               if measured.meta.get(key) is not None)),
    ]
    return [(name, value) for name, value in facts if value]


def list_provenance(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List how a comparison was made: settings, seed, device, versions and command."""
    rows = dict(meta.get("settings") or {})
    rows |= {key: value for key, value in meta.items() if key not in _SHOWN_ELSEWHERE}
    rows |= {key: meta[key] for key in ("seed", "device", "created", "stages") if meta.get(key) is not None}
    if meta.get("versions"):
        rows["versions"] = [f"{name} {version}" for name, version in meta["versions"].items()]
    if meta.get("command"):
        rows["command"] = meta["command"]
    return [(key, _format_setting(value)) for key, value in rows.items()]


def _format_setting(value: object) -> str:
    if isinstance(value, list) and all(isinstance(v, str | int | float) for v in value):
        return ", ".join(str(v) for v in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _build_verdict_table(table: pd.DataFrame) -> dict[str, Any] | None:
    """Build the table of the sanity battery; a cell is (text, True if a number)."""
    if table.empty:
        return None
    rows = [{"lost": is_lost(record), "cells": [_format_entry(str(k), v) for k, v in record.items()]}
            for record in table.to_dict("records")]
    return {"headers": [(_HEADERS[name], not isinstance(table[name].iloc[0], str)) for name in table.columns],
            "rows": rows}


def _format_entry(column: str, value: Any) -> tuple[str, bool]:
    if isinstance(value, str):
        return (get_measure(value).label if column == "measure" else value or "–"), False
    if math.isnan(value):
        return "–", True
    return (f"{value:.3g}" if column == "worst_margin" else f"{value:.0f}"), True


def tabulate_quality(measured: Measured) -> list[dict[str, Any]]:
    """Tabulate how well detectors tell native from other representations.

    A row has a site and the AUROCs on auxiliary and unseen data, two-sided and one-sided.
    """
    def describe(value: float | None) -> str:
        return "–" if value is None or math.isnan(value) else f"{value:.3f}"

    return [{"name": name, "rows": [
        (site, [describe(found.get(f"{kind}{side}")) for kind in ("auxiliary", "unseen")
                for side in ("", "_one_sided")])
        for site, found in zip(measured.targets, sites, strict=False)]}
        for name, sites in (measured.meta.get("ood") or {}).get("quality", {}).items()]


def tabulate_range(measured: Measured) -> list[list[str]]:
    """Tabulate the natural range: each site with both radii and the shifts that set them."""
    found = describe_range(measured.meta, measured.targets)
    return [[row["site"], *(f"{row[r]:.3g} ({row[f'{r}_low']:.3g} to {row[f'{r}_high']:.3g}), "
                            f"{row[f'{r}_shift']}" if row[f"{r}_shift"] else f"– ({row[f'{r}_reason']})"
                            for r in ("inner", "outer"))]
            for row in found if row["range"] == BUILT_IN]


def _list_missing(measured: Measured) -> list[str]:
    table = measured.table[measured.table["reason"] != ""]
    counts = Counter(zip(table["measure"], table["reason"], strict=True))
    return [f"{get_measure(name).label}: no value ({reason}), cells: {count}."
            for (name, reason), count in counts.items()]


def build_loss_curve(measured: Measured) -> dict[str, Any] | None:
    """Build the mean, best and worst training loss over the cells as SVG points."""
    import pandas as pd

    losses = measured.arrays.get("tlm.loss")
    if losses is None or losses.ndim != 3 or losses.shape[-1] < 2:
        return None
    flat = losses.reshape(-1, losses.shape[-1]).astype(np.float64)
    if "tlm.held_out" in measured.arrays:  # cells that stopped early keep their last loss
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
