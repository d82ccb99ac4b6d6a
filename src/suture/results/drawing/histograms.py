"""Histograms of a detector's scores of native and of stitched representations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from suture.numbers import METHOD_NAMES, Floats
from suture.results.drawing.style import STYLE
from suture.results.heatmaps import format_networks, make_printable
from suture.results.measured import Measured

BINS = 48
_MOST_COLUMNS = 4
# Paul Tol's bright colours, which the colour-blind can distinguish; dashes distinguish them in grey.
_LINES: Mapping[str, dict[str, Any]] = {
    "native": {"color": "0.75"}, "auxiliary": {"color": "#ccbb44", "linestyle": "--"},
    "unseen": {"color": "#aa3377", "linestyle": ":"}, "dm": {"color": "#4477aa"}, "tlm": {"color": "#ee6677"}}


def list_scored_detectors(measured: Measured) -> list[str]:
    """List the detectors with scores of native and of stitched representations."""
    arrays = measured.arrays
    names = [name.partition(".")[2] for name in arrays if name.startswith("native.")]
    return [name for name in names if any(f"{method}.score_{name}" in arrays for method in METHOD_NAMES)]


def collect_scores(measured: Measured, detector: str, site: int) -> dict[str, Floats]:
    """Collect the scores at a target site by kind: native, auxiliary, unseen, and stitched by method.

    Stitched scores are those of all source layers. Self-stitching leaves out the layer itself, because its
    direct matching is the identity and would repeat the native scores.
    """
    arrays = measured.arrays
    found = {kind: arrays[f"{kind}.{detector}"][site] for kind in ("native", "auxiliary", "unseen")
             if f"{kind}.{detector}" in arrays}
    own = measured.same_network
    others = [i for i, s in enumerate(measured.sources) if not (own and s == measured.targets[site])]
    found |= {method: arrays[f"{method}.score_{detector}"][others, site] for method in METHOD_NAMES
              if f"{method}.score_{detector}" in arrays}
    flat = {kind: np.asarray(scores, dtype=np.float64).ravel() for kind, scores in found.items()}
    known = {kind: scores[~np.isnan(scores)] for kind, scores in flat.items()}
    return {kind: scores for kind, scores in known.items() if len(scores)}


def choose_bins(found: Mapping[str, Floats]) -> Floats:
    """Choose the bins (`BINS` + 1,) that all samples of a site share.

    They cover the middle 98 % of every sample, but at most four native ranges beyond the native range,
    because far outliers would shrink native scores to a line.
    """
    ends = {kind: np.percentile(finite, [1, 99]) for kind, scores in found.items()
            if len(finite := scores[np.isfinite(scores)])}
    if not ends:
        return np.linspace(-0.5, 0.5, BINS + 1)
    low, high = min(e[0] for e in ends.values()), max(e[1] for e in ends.values())
    if "native" in ends and ends["native"][1] > ends["native"][0]:
        a, b = ends["native"]
        low, high = max(low, a - 4 * (b - a)), min(high, b + 4 * (b - a))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def compute_densities(found: Mapping[str, Floats], bins: Floats) -> dict[str, Floats]:
    """Compute histograms (`BINS`,) of area one; the end bins hold all values beyond them."""
    width = np.diff(bins)
    return {kind: np.histogram(np.clip(scores, bins[0], bins[-1]), bins)[0] / (len(scores) * width)
            for kind, scores in found.items()}


@mpl.rc_context(STYLE)
def draw_histograms(measured: Measured, detector: str) -> Figure:
    """Draw one panel per target site: scores of native, auxiliary, unseen auxiliary and stitched data.

    This is Figure 1c of Balogh and Jelasity (2025), with the scores of all source layers pooled.
    """
    n = len(measured.targets)
    columns = max(1, min(_MOST_COLUMNS, n))
    rows = max(1, -(-n // columns))
    made = Figure(figsize=(max(3.4, 1.75 * columns), 1.25 * rows + 0.85),
                  layout=ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.05))
    handles: dict[str, Any] = {}
    for place, site in enumerate(measured.targets):
        ax = made.add_subplot(rows, columns, place + 1)
        handles |= _draw_panel(ax, collect_scores(measured, detector, place))
        ax.set_title(make_printable(site), fontsize=7.5, parse_math=False)
    if handles:
        shown = [kind for kind in _LINES if kind in handles]
        made.legend([handles[kind] for kind in shown], [METHOD_NAMES.get(kind, kind) for kind in shown],
                    loc="outside lower center", ncols=len(shown) if columns > 2 else 2, frameon=False,
                    fontsize=7, title="score, larger is more in-distribution; the ends hold all "
                                      "that lies beyond", title_fontsize=7)
    made.suptitle(f"{format_networks(measured)}, {make_printable(detector)}", fontsize=9,
                  parse_math=False)
    return made


def _draw_panel(ax: Axes, found: Mapping[str, Floats]) -> dict[str, Any]:
    """Draw the histograms of one site; return the handles of the legend by kind."""
    bins = choose_bins(found)
    handles: dict[str, Any] = {}
    heights = compute_densities(found, bins)
    for kind, height in heights.items():
        handles[kind] = ax.stairs(height, bins, fill=kind == "native", linewidth=1.0, gid=kind,
                                  **_LINES[kind])
    if heights:
        # High peaks, such as those of the end bins, would hide the native scores.
        native = heights.get("native", np.zeros(1)).max() or np.inf
        ax.set_ylim(0, 1.08 * max(min(h.max(), 2 * native) for h in heights.values()))
    ax.set_yticks([])
    ax.locator_params(axis="x", nbins=3)
    ax.tick_params(labelsize=6, length=2)
    for side in ("left", "right", "top"):
        ax.spines[side].set_visible(False)
    return handles
