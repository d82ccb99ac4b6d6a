"""Texts of a figure as its renderer draws them: which overlap, and which are clipped."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

DPI = 100


def collect_texts(figure: Figure) -> list[tuple[Text, Any]]:
    """Return every text that is drawn, with its box in pixels (left, low, right, high)."""
    found: dict[int, tuple[Text, Any]] = {}
    draw = Text.draw

    def note(text: Text, renderer: Any, *args: Any, **kwargs: Any) -> None:
        draw(text, renderer, *args, **kwargs)
        if text.get_visible() and text.get_text().strip():
            found[id(text)] = text, text.get_window_extent(renderer).extents

    figure.set_dpi(DPI)
    with patch.object(Text, "draw", note):
        FigureCanvasAgg(figure).draw()
    return list(found.values())


def find_faults(figure: Figure, least: float = 5.0) -> list[str]:
    """Describe texts that overlap each other or a map, leave the figure, or have less than some points."""
    texts = collect_texts(figure)
    width, height = figure.get_size_inches() * DPI
    maps = [(ax, ax.images[0].get_window_extent().extents) for ax in figure.axes if ax.images]
    boxes = np.array([box for _, box in texts])
    faults = [f"{texts[a][0].get_text()!r} overlaps {texts[b][0].get_text()!r}"
              for a, box in enumerate(boxes) for b in np.flatnonzero(_overlap(box, boxes[:a]))]
    for text, (left, low, right, high) in texts:
        if min(left, low) < -0.5 or right > width + 0.5 or high > height + 0.5:
            faults.append(f"{text.get_text()!r} is clipped")
        if text.get_fontsize() < least:
            faults.append(f"{text.get_text()!r} has {text.get_fontsize():.1f} points")
        faults += [f"{text.get_text()!r} lies on a map" for ax, box in maps
                   if text not in ax.texts and _overlap(np.array([left, low, right, high]), box)]
    return faults


def _overlap(box: Any, others: Any) -> Any:
    """Return True for boxes that share more than a rounded pixel each way with one."""
    shared = np.minimum(box[2:], others[..., 2:]) - np.maximum(box[:2], others[..., :2])
    return (shared > 1).all(-1)
