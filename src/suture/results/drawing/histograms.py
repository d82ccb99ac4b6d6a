"""Histograms of a detector's scores of native and of stitched representations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from suture._base import expect, make_unknown_error
from suture.numbers import METHOD_NAMES, Floats
from suture.results.drawing.fitting import WordsFitting
from suture.results.drawing.grids import make_figure, write_above
from suture.results.drawing.lines import COLOURS, count_columns, strip_spines
from suture.results.drawing.measuring import fit_words, resolve_points
from suture.results.drawing.style import STYLE
from suture.results.heatmaps import format_networks, make_printable
from suture.results.measured import Measured

BINS = 48
_MOST_COLUMNS = 4
_PANEL = 11.5
"""Least width of a panel, in the size of the legend's letters."""
SCORE_LINES: Mapping[str, dict[str, Any]] = {
    "native": {"color": "0.75"}, "auxiliary": {"color": COLOURS[3], "linestyle": "--"},
    "unseen": {"color": COLOURS[5], "linestyle": ":"}, "dm": {"color": COLOURS[0]},
    "tlm": {"color": COLOURS[1]}}
"""How the scores of each kind look; dashes distinguish them in grey."""


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
    """Draw the scores at all sites as a page shows them."""
    return draw_scores(measured, detector, None, None, f"{format_networks(measured)}, {detector}")


def draw_scores(measured: Measured, detector: str | None, sites: Sequence[str] | None, width: float | None,
                title: str = "") -> Figure:
    """Draw one panel per target site: scores of native, auxiliary, unseen auxiliary and stitched data.

    `Drawn.plot_scores` describes the arguments.
    """
    known = list_scored_detectors(measured)
    expect(bool(known), "scores of a detector", "a comparison without them", "compare with ood")
    detector = known[0] if detector is None else detector
    if detector not in known:
        raise make_unknown_error("detector", detector, known)
    shown = list(measured.targets if sites is None else sites)
    for site in shown:
        if site not in measured.targets:
            raise make_unknown_error("target site", site, measured.targets)
    expect(bool(shown), "at least one target site", "none", "leave sites out")
    return _draw_panels(measured, detector, shown, width, title)


def _draw_panels(measured: Measured, detector: str, sites: Sequence[str], width: float | None,
                 title: str) -> Figure:
    made = make_figure(width)
    size = resolve_points("legend.fontsize")
    columns = max(1, min(_MOST_COLUMNS, len(sites), int(72 * made.get_figwidth() / (_PANEL * size))))
    rows = -(-len(sites) // columns)
    handles: dict[str, Any] = {}
    for place, site in enumerate(sites):
        ax = made.add_subplot(rows, columns, place + 1)
        handles |= _draw_panel(ax, collect_scores(measured, detector, measured.targets.index(site)))
        WordsFitting(ax, ax.title, make_printable(site), resolve_points("axes.titlesize"))
    lines = 1
    if handles:
        kinds = [kind for kind in SCORE_LINES if kind in handles]
        words = [METHOD_NAMES.get(kind, kind) for kind in kinds]
        ncols = count_columns(words, 0.95 * 72 * made.get_figwidth(), size)
        lines += -(-len(kinds) // ncols)
        axis = f"{make_printable(detector)} score, larger is more in-distribution; the ends hold all beyond"
        legend = made.legend([handles[kind] for kind in kinds], words, loc="outside lower center",
                             ncols=ncols, frameon=False, fontsize=size, title=" ", title_fontsize=size,
                             handlelength=1.6, columnspacing=1.0, labelspacing=0.3)
        legend.get_title().set_parse_math(False)
        fit_words(legend.get_title(), axis, 0.95 * 72 * made.get_figwidth(), size)
    if title:
        write_above(made, title)
    made.set_figheight((rows * _PANEL * 0.75 + 2 * bool(title) + 1.7 * lines) * size / 72)
    made.draw_without_rendering()  # ticks get the style of now
    return made


def _draw_panel(ax: Axes, found: Mapping[str, Floats]) -> dict[str, Any]:
    """Draw the histograms of one site; return the handles of the legend by kind."""
    bins = choose_bins(found)
    handles: dict[str, Any] = {}
    heights = compute_densities(found, bins)
    for kind, height in heights.items():
        handles[kind] = ax.stairs(height, bins, fill=kind == "native", linewidth=1.0, gid=kind,
                                  **SCORE_LINES[kind])
    if heights:
        # High peaks, such as those of the end bins, would hide the native scores.
        native = heights.get("native", np.zeros(1)).max() or np.inf
        ax.set_ylim(0, 1.08 * max(min(h.max(), 2 * native) for h in heights.values()))
    ax.set_yticks([])
    ax.locator_params(axis="x", nbins=3)
    ax.tick_params(labelsize=min(resolve_points("xtick.labelsize"), resolve_points("font.size", 0.8)),
                   length=2)
    strip_spines(ax, "left", "right", "top")
    return handles
