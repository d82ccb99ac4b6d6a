"""Colours, signs and numbers that drawn heat maps and those of a page share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, to_hex

from suture.numbers import Measure
from suture.results.measured import Measured

HATCH_LEGEND = "hatched: works, beyond what natural inputs reach"
CHANCE_SIGN = "°"
CHANCE_LEGEND = f"{CHANCE_SIGN}: not above chance"
GREY_LEGEND = "grey: no value"
# Average precision, FPR at 95 % recall, and the parts of the Fréchet distance (shift, shrinkage, rotation).
_DETAILS = ("ap", "fpr95", "frechet")


def make_printable(name: str) -> str:
    """Replace characters of a name that a font cannot draw, such as line breaks, by blanks."""
    return "".join(c if c.isprintable() else " " for c in name)


def format_networks(measured: Measured) -> str:
    """Format the names of the compared networks as a title."""
    return make_printable(f"{measured.source} → {measured.target}")


def is_detail(name: str) -> bool:
    """Return True if a measure adds detail to another one, such as a part of it; overviews leave it out."""
    kind, of, _ = name.rpartition(".")[2].partition("_")
    return bool(of) and kind in _DETAILS


@cache  # because matplotlib copies a colour map at every access
def choose_colormap(entry: Measure) -> Colormap:
    """Return viridis, reversed if smaller is more similar: bright always means similar."""
    return mpl.colormaps["viridis" if entry.larger_is_more_similar else "viridis_r"]


def pick_colours(value: float, entry: Measure) -> tuple[str, str]:
    """Return the hex colours of a cell with this value: background and legible text."""
    colours = choose_colormap(entry)
    share = min(1.0, max(0.0, (value - entry.low) / (entry.high - entry.low)))
    return _pick_step(colours.name, min(int(share * colours.N), colours.N - 1))


@cache  # a page has thousands of cells, in the 256 colours of a map
def _pick_step(colormap: str, step: int) -> tuple[str, str]:
    ground = mpl.colormaps[colormap](step)
    return to_hex(ground), choose_ink(ground)


def choose_ink(ground: Sequence[float]) -> str:
    """Return white or black, which is more legible on a colour of red, green and blue from 0 to 1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in ground[:3]]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    # Contrast ratios of WCAG 2 with white and with black.
    white = 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05
    return "#ffffff" if white else "#000000"


def format_value(value: float, digits: int = 3) -> str:
    """Format a value for a cell, with fewer digits from 10 on (residuals have no upper limit)."""
    size = abs(value)
    if size < 0.5 * 10**-digits:
        value = 0.0  # avoids "-0.000"
    if size < 10:
        return f"{value:.{digits}f}"
    return f"{value:.1f}" if size < 100 else f"{value:.0f}" if size < 10_000 else f"{value:.1e}"
