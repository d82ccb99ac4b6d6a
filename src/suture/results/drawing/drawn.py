"""The verbs of a comparison that draw it, or write it as a table of LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from suture._base import checked, expect
from suture.results.inference.correspondence import Correspond
from suture.results.measured import Measured
from suture.results.report import require_matplotlib
from suture.results.verdicts import find_artefacts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Drawn(Measured):
    """A record of measures that can be drawn; attributes as for `Measured`.

    All figures have the sizes and fonts of matplotlib's settings, which `suture.style` sets, and smaller
    letters where there is less room. Figures that are returned were made without pyplot: a notebook shows
    them, `Figure.savefig` saves them. PDF files embed TrueType fonts.
    """

    @checked
    def plot(self, measure: str, ax: Axes | None = None, *, annotate: bool | None = None,
             vmin: float | None = None, vmax: float | None = None, cmap: Any = None, title: str | None = None,
             colorbar: bool = True) -> Axes:
        """Draw a heat map of one measure, with the measure's colour limits; a star means a mark.

        Artefacts (`cells`) are hatched in measures of a stitching method, if the comparison has verdicts; a °
        means not above chance (`null`). Missing cells are grey. A legend below explains the signs that occur.

        Args:
            measure: a name of `measures`.
            ax: axes to draw on. Default: new ones through pyplot, so that a notebook shows them, at most as
                large as the setting ``figure.figsize``.
            annotate: write the values into the cells, with as many digits as fit. None: if they fit. True: in
                any case.
            vmin, vmax: limits of the colours. Default: the measure's, so that figures can be compared.
            cmap: name or colour map of matplotlib. Default: viridis, bright where similar.
            title: default: measure and networks.
            colorbar: draw the colour bar.

        Raises:
            SutureError: no such measure in this comparison, no such colour map, or limits that are no range.
        """
        require_matplotlib("a plot")
        from suture.results.drawing.grids import fit_height
        from suture.results.drawing.maps import Heat, draw_matrix

        self.matrix(measure)
        plain = ax is None or (hasattr(ax, "imshow") and ax.name == "rectilinear")
        expect(plain, "rectangular axes of matplotlib to draw on", getattr(ax, "name", ax), "leave ax out")
        heat = Heat.of(self, measure, find_artefacts(self), titled=title is None, vmin=vmin, vmax=vmax,
                       cmap=cmap, **({} if title is None else {"title": title}))
        if ax is not None:
            draw_matrix(heat, ax, annotate, colorbar)
            return ax
        # Imported here, because pyplot chooses a window system and saved figures must not depend on one.
        from matplotlib import pyplot as plt

        figure, ax = plt.subplots(layout="constrained")
        draw_matrix(heat, ax, annotate, colorbar, fitted=True)
        fit_height(figure, [[ax]], float(figure.get_figheight()))
        return ax

    @checked
    def plot_pair(self, distance: str | None = None, *, width: float | None = None,
                  annotate: bool | None = None, title: str | None = None) -> Figure:
        """Draw the paper's pair: how well the stitched networks work, and how far they lie from native ones.

        The upper row is task loss matching, the lower one direct matching; a comparison with one of them has
        one row. All four stand in one row if the figure is at least 1.5 times as wide as the setting
        ``figure.figsize`` is high, as in the styles "two-column" and "slide". Rows of a map are sources,
        columns targets (Figures 1 and 2 of Balogh and Jelasity 2025).

        >>> with suture.style("column"):
        ...     result.plot_pair("auroc_energy").savefig("pair.pdf")

        Args:
            distance: a measure without its method, such as ``"natural_distance"``, ``"auroc_energy"`` or
                ``"ood_mahalanobis"``. Default: the first of these that the comparison has.
            width: inches. Default: the first of the setting ``figure.figsize``. The height follows.
            annotate: as for `plot`.
            title: of the figure. Default: none.

        Raises:
            SutureError: the comparison lacks stitched networks, distances, or this distance.
        """
        require_matplotlib("a plot")
        from suture.results.drawing.pair import draw_pair

        return draw_pair(self, distance, width, annotate, title)

    @checked
    def plot_profile(self, measures: Sequence[str] | None = None, *, correspond: Correspond = None,
                     width: float | None = None) -> Figure:
        """Draw measures of corresponding layers over depth, with 95 % intervals.

        Measures of different quantities have a panel each. A band shows where 95 % of the values lie by
        chance, for indices with a null (`null`), by its mean and standard deviation.

        Args:
            measures: names of `measures`. Default: by what cells work, natural distances, and an index.
            correspond: as for `Comparison.findings`.
            width: inches. Default: the first of the setting ``figure.figsize``.

        Raises:
            SutureError: no such measure or site, or no layers that correspond.
        """
        require_matplotlib("a plot")
        from suture.results.drawing.profile import draw_profile

        return draw_profile(self, measures, correspond, width)

    @checked
    def plot_curves(self, *, width: float | None = None) -> Figure:
        """Draw the learning curves of task loss matching: median and range over cells.

        Args:
            width: inches. Default: the first of the setting ``figure.figsize``.

        Raises:
            SutureError: the comparison keeps no losses, as without task loss matching.
        """
        require_matplotlib("a plot")
        from suture.results.drawing.curves import draw_curves

        return draw_curves(self, width)

    @checked
    def plot_scores(self, detector: str | None = None, *, sites: Sequence[str] | None = None,
                    width: float | None = None) -> Figure:
        """Draw histograms of a detector's scores, one panel per target site.

        Native representations are grey, stitched ones lines; the ends hold all scores that lie beyond them.
        This is Figure 1c of Balogh and Jelasity (2025), with all source layers pooled.

        Args:
            detector: its name, such as ``"energy"``. Default: the first that kept scores.
            sites: target sites. Default: all.
            width: inches. Default: the first of the setting ``figure.figsize``.

        Raises:
            SutureError: the comparison keeps no scores, none of this detector, or has no such site.
        """
        require_matplotlib("a plot")
        from suture.results.drawing.histograms import draw_scores

        return draw_scores(self, detector, sites, width)

    @checked
    def to_latex(self, measure: str, *, intervals: bool = True, digits: int = 3, caption: str = "",
                 label: str = "") -> str:
        r"""Write one measure as a table of LaTeX; it needs the package booktabs.

        Rows are source sites, columns target sites. A star marks values that are not to be trusted, a dash
        cells without a value; notes below the table explain them.

        Args:
            measure: a name of `measures`.
            intervals: write 95 % intervals below the values, if the measure has any.
            digits: after the point.
            caption, label: of a ``table`` around the ``tabular``. Default: the tabular alone.

        Raises:
            SutureError: no such measure in this comparison.
        """
        from suture.results.drawing.latex import write_measure

        return write_measure(self, measure, intervals, digits, caption, label)
