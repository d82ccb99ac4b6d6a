"""Figures of numbers by rank, one panel a site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEIGHT = 2.2


@dataclass(frozen=True)
class Line:
    """A line of a panel: means over networks at each rank, with their range.

    Attributes:
        label, colour: in the legend.
        x: ranks.
        mean, low, high: at each of them.
    """

    label: str
    colour: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, label: str, points: Mapping[int, Sequence[float]] | Mapping[float, Sequence[float]],
           colour: str) -> Self:
        """Make a line of the values at each rank; missing ones are left out."""
        known = {float(x): [v for v in values if v == v] for x, values in points.items()}
        x = sorted(k for k, values in known.items() if values)
        return cls(label, colour, tuple(x), *(tuple(float(f(known[k])) for k in x)
                                              for f in (np.mean, np.min, np.max)))


def draw_ranks(panels: Mapping[str, Sequence[Line]], words: str = "rank") -> Figure:
    """Draw lines over the rank, one panel a site, from 0 on.

    Args:
        panels: lines by the title of the panel.
        words: of the horizontal axis.
    """
    from suture.results import make_figure

    figure = make_figure(None, _HEIGHT)
    axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True, squeeze=True))
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        for line in lines:
            ax.plot(line.x, line.mean, "-o", color=line.colour, label=line.label, markersize=2.5,
                    linewidth=1.2)
            ax.fill_between(line.x, line.low, line.high, color=line.colour, alpha=0.15, linewidth=0)
        ax.set_xscale("log", base=2)
        ax.set_ylim(bottom=0)
        ax.set_title(title, fontsize="medium", parse_math=False)
        ax.set_xlabel(words)
    handles = {h.get_label(): h for ax in axes for h in ax.get_legend_handles_labels()[0]}
    figure.legend(list(handles.values()), list(map(str, handles)), loc="outside lower center", ncols=4,
                  frameon=False)
    return figure
