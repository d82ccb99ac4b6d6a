"""The comparison of two networks: its numbers, verdicts, figures and files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from suture._base import SutureError, expect, make_unknown_error
from suture.indices import SITE_COLUMNS, tabulate_statistics
from suture.numbers import Difference, Record, build_record, estimate_difference
from suture.results.cell_verdict import find_artefacts, judge_cells
from suture.results.measured import Measured
from suture.results.sanity import Verdict, run_sanity_battery
from suture.results.saving import read_fields, save_measured
from suture.results.table import register_own

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Comparison(Measured):
    """All results about one source network and one target network.

    Attributes:
        source, target: display names of the networks.
        sources: source site names, in order of execution (rows of every matrix).
        targets: target site names (columns).
        same_network: the source network is the target network (self-stitching).
        same_architecture: sites of the two networks with the same name are the same layer.
        table: tidy, columns `COLUMNS`, one row per cell and measure; a value is NaN exactly where the reason
            is not empty. The mark says why a given value is not to be trusted, such as a stitching layer that
            was still improving. It is empty where all is well, and where the column is left out.
        arrays: per-example and per-cell arrays by name, such as ``"target.correct"`` bool (N,),
            ``"dm.correct"`` bool and ``"dm.kl"`` float32 (S, T, N), ``"tlm.loss"`` (S, T, epochs),
            ``"dm.weight/0/1"`` float32. The per-example ones (`suture.compare.scores.stack_evaluation`) need
            about 14 bytes per cell, method and test example, in memory and on disk.
        meta: JSON-able: ``versions``, ``seed``, ``command``, ``settings``, ``n_fit``, ``n_test``,
            ``created``, ``device``, ``notes`` (list of str), ``stages`` (names of the finished stages).

    The table and the meta are copied and brought to one form (str, float64, int64; JSON lists), so that a
    loaded comparison equals the saved one.

    Raises:
        SutureError: the table breaks the rules above, a site name occurs twice, meta is not JSON-able, or an
            array is not a NumPy array of booleans, integers or floats.
    """

    def __repr__(self) -> str:
        return (f"Comparison({self.source!r} -> {self.target!r}, {len(self.sources)} x {len(self.targets)} "
                f"cells, measures: {', '.join(self.measures) or 'none'})")

    def statistics(self) -> pd.DataFrame:
        """Return statistics of the representation at each site, with positions as rows.

        They are those of `suture.indices.SiteStatistics`.

        Returns:
            Columns ``side``, ``site``, ``rows``, ``width``, ``rank``, ``effective_rank``,
            ``participation_ratio`` and ``dead`` (columns that do not vary); the spectra are in `arrays`,
            ``source.spectrum/0`` and so on. Empty where no index of the stitched matrices was requested.
        """
        import pandas as pd

        return pd.DataFrame(tabulate_statistics(self.arrays, self.sources, self.targets),
                            columns=list(SITE_COLUMNS))

    def cells(self, method: str = "dm", what: str = "word") -> pd.DataFrame:
        """Return the verdict of every cell: similar, dissimilar, artefact or unproven.

        An artefact works, but is out of distribution.

        Args:
            method: ``"dm"`` or ``"tlm"``.
            what: ``"word"``, or ``"reason"`` for a sentence why. The rules are in
                `suture.results.cell_verdict.judge_cell`.

        Returns:
            Texts: rows are source sites, columns target sites.

        Raises:
            SutureError: the comparison has no relative accuracy or no out-of-distribution scores of this
                method.
        """
        if what not in ("word", "reason"):
            raise make_unknown_error("column", what, ("word", "reason"))
        found = judge_cells(self, method)
        return found.words if what == "word" else found.reasons

    def plot(self, measure: str, ax: Axes | None = None, annotate: bool = True) -> Axes:
        """Draw a heat map of one measure, with the measure's colour limits; a star means a mark.

        Measures of a stitching method are hatched where the stitched network works and its representations
        are out of distribution (`cells`), if the comparison has those scores.

        Args:
            measure: a name of `measures`.
            ax: where to draw; new axes through pyplot by default, so that a notebook shows them.
            annotate: write the values into the cells (at most 12 x 12 cells).

        Raises:
            SutureError: no such measure in this comparison.
        """
        from suture.results.report import figures

        self.matrix(measure)
        if ax is None:
            # Imported here, because pyplot chooses a window system and saved figures must not depend on one.
            from matplotlib import pyplot as plt
            _, ax = plt.subplots(layout="constrained")
        figures.draw_heatmap(self, measure, ax, find_artefacts(self), annotate,
                             f"{self.source} → {self.target}")
        return ax

    def difference(self, a: tuple[str, str], b: tuple[str, str], measure: str,
                   other: str | None = None) -> Difference:
        """Test how much one cell's value exceeds another's on the same examples, against chance.

        Hits of examples (accuracy, relative accuracy, agreement) are tested by the exact McNemar test. Other
        measures, and numbers of tokens, are tested by a paired bootstrap over examples (whole texts). The
        mean over batches is tested by Student's t (see `suture.numbers.differences.estimate_difference`).
        Nothing is corrected for looking at many pairs. A tiny p value says that a difference is real, not
        that it is large.

        >>> result.difference(("layer3", "layer1"), ("layer1", "layer1"), "dm.kl")
        >>> result.difference(("layer3", "layer1"), ("layer3", "layer1"), "dm.accuracy", "tlm.accuracy")

        Args:
            a, b: cells: (source site, target site).
            measure: measure of `a`, and of `b` unless `other` is given.
            other: the same measure of another method, for `b`.

        Returns:
            Value of `a` minus value of `b` in the measure's units, with interval, p value, test and n.

        Raises:
            SutureError: a site, a measure or a cell that this comparison lacks; a measure without per-example
                record (structural indices); two different measures.
        """
        other = measure if other is None else other
        expect(measure.rpartition(".")[2] == other.rpartition(".")[2], "one measure of two methods",
               f"{measure!r} and {other!r}")
        one, two = _build_cell_record(self, a, measure), _build_cell_record(self, b, other)
        return estimate_difference(one, two, int(self.meta.get("seed") or 0))

    def verdict(self) -> Verdict:
        """Run the paper's sanity battery; see `suture.results.sanity.run_sanity_battery`."""
        return run_sanity_battery(self)

    def save(self, dir: str | os.PathLike[str]) -> Path:
        """Write ``comparison.safetensors`` into a folder, and ``table.csv`` beside it for people.

        A reader finds all of the earlier comparison or all of this one, also after a killed writer. Only one
        process may write to a folder at a time. A report in the folder (``report.html``, ``figures/``) is
        left as it is. `load` never reads ``table.csv``.

        Args:
            dir: a folder that is missing, empty, or holds an earlier comparison.

        Returns:
            The folder.

        Raises:
            SutureError: the folder holds anything else, or cannot be written; nothing in it has changed then.
        """
        return save_measured(self, Path(dir))

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained HTML page, and beside it PNG and PDF figures in ``figures/``.

        Args:
            path: the page, such as ``"out/report.html"``; an existing file is replaced.

        Returns:
            The page.

        Raises:
            SutureError: the place cannot be written.
        """
        from suture.results.report import figures, page

        written = page.write_page([self], path)
        figures.save_figures(self, written.parent / "figures")
        return written


def _build_cell_record(measured: Measured, cell: tuple[str, str], measure: str) -> Record:
    expect(not isinstance(cell, str) and len(cell) == 2, "a cell (source site, target site)", repr(cell))
    for kind, name, names in zip(("source", "target"), cell, (measured.sources, measured.targets),
                                 strict=True):
        if name not in names:
            raise make_unknown_error(f"{kind} site", name, names)
    i, j = measured.sources.index(cell[0]), measured.targets.index(cell[1])
    record = build_record(measured.arrays, measure, i, j)
    reason = str(measured.matrix(measure, "reason").iloc[i, j])
    if reason:
        raise SutureError(f"{measure} of {cell[0]!r} into {cell[1]!r} has no value: {reason}")
    return record


def load(dir: str | os.PathLike[str]) -> Comparison:
    """Load the comparison that `Comparison.save` wrote into a folder, exactly.

    Raises:
        SutureError: the folder is missing, or holds no comparison, one of another format version, or a
            damaged one.
    """
    fields = read_fields(Path(dir))
    try:
        register_own(fields["meta"])
        return Comparison(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise SutureError(f"the comparison in {str(dir)!r} is damaged: {error}; compute it again") from error


def write_report(comparisons: Sequence[Comparison], path: str | os.PathLike[str]) -> Path:
    """Write one HTML page for several comparisons; see `suture.results.report.page.write_page`."""
    from suture.results.report.page import write_page  # imports matplotlib and the template engine

    return write_page(comparisons, path)
