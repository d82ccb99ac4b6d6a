"""One comparison: its table, its per-example arrays, and its files on disk."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from suture._base import SutureError, make_unknown_error
from suture.indices import SITE_COLUMNS, tabulate_statistics
from suture.numbers import Difference, get_measure, sort_measures
from suture.results import cell_verdict as judging
from suture.results import sanity as battery
from suture.results import summary as findings
from suture.results.cell_differences import compute_difference
from suture.results.table import (
    FLOAT_COLUMNS,
    check_arrays,
    check_cells,
    format_csv,
    is_same_array,
    tidy_table,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Comparison:
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

    source: str
    target: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    same_network: bool
    same_architecture: bool
    table: pd.DataFrame
    arrays: dict[str, npt.NDArray[Any]]
    meta: dict[str, Any]

    def __post_init__(self) -> None:
        for kind, names in (("source", self.sources), ("target", self.targets)):
            if len(set(names)) != len(names):
                raise SutureError(f"expected every {kind} site once, got {list(names)}")
        object.__setattr__(self, "sources", tuple(self.sources))
        object.__setattr__(self, "targets", tuple(self.targets))
        object.__setattr__(self, "table", tidy_table(self.table))
        check_cells(self.table, self.sources, self.targets)
        check_arrays(self.arrays)
        try:
            object.__setattr__(self, "meta", json.loads(json.dumps(self.meta)))
        except (TypeError, ValueError) as error:
            raise SutureError(f"expected meta that JSON can hold, got: {error}") from error

    def __repr__(self) -> str:
        return (f"Comparison({self.source!r} -> {self.target!r}, {len(self.sources)} x {len(self.targets)} "
                f"cells, measures: {', '.join(self.measures) or 'none'})")

    @property
    def measures(self) -> list[str]:
        """Names of the measures in the table, in the order of `suture.numbers.measures.sort_measures`."""
        return sort_measures(self._by_measure)

    @cached_property
    def _by_measure(self) -> dict[str, pd.DataFrame]:
        """The rows of each measure by cell, cached because a report needs each several times."""
        import pandas as pd

        cells = pd.MultiIndex.from_product([self.sources, self.targets])
        fill = {"reason": "not computed", "mark": ""}
        found = {}
        for name, rows in self.table.groupby("measure", sort=False):
            whole = rows.set_index(["source", "target"]).reindex(cells)
            there = cells.isin(pd.MultiIndex.from_frame(rows[["source", "target"]]))
            for column, value in fill.items() if not there.all() else ():
                whole.loc[~there, column] = value
            found[str(name)] = whole
        return found

    def matrix(self, measure: str, what: str = "value") -> pd.DataFrame:
        """Return one measure as a matrix: rows are source sites, columns target sites.

        Args:
            measure: a name of `measures`.
            what: ``"value"``, ``"low"``, ``"high"``, ``"n"``, ``"reason"`` or ``"mark"``.

        Raises:
            SutureError: no such measure in this comparison, or no such `what`.
        """
        import pandas as pd

        if measure not in self.measures:
            raise make_unknown_error("measure", measure, self.measures)
        if what not in (*FLOAT_COLUMNS, "n", "reason", "mark"):
            raise make_unknown_error("column", what, (*FLOAT_COLUMNS, "n", "reason", "mark"))
        cells = self._by_measure[measure][what].to_numpy(copy=True)
        return pd.DataFrame(cells.reshape(len(self.sources), len(self.targets)),
                            index=pd.Index(self.sources, name="source"),
                            columns=pd.Index(self.targets, name="target"))

    def marks(self, measure: str) -> pd.DataFrame:
        """Return why cells are not to be trusted, as texts: rows are source sites, columns target sites.

        A text holds one or several causes, ``cause: numbers; cause: numbers``. It is empty where all is well.
        For the marks of task loss matching see `suture.stitching.convergence.find_unconverged`.

        Raises:
            SutureError: no such measure in this comparison.
        """
        return self.matrix(measure, "mark")

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
                `suture.results.cell_verdict.decide_verdicts`.

        Returns:
            Texts: rows are source sites, columns target sites.

        Raises:
            SutureError: the comparison has no relative accuracy or no out-of-distribution scores of this
                method.
        """
        return judging.tabulate_verdicts(self, method, what)

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

        matrix = self.matrix(measure)
        if ax is None:
            # Imported here, because pyplot chooses a window system and saved figures must not depend on one.
            from matplotlib import pyplot as plt
            _, ax = plt.subplots(layout="constrained")
        entry = get_measure(measure)
        figures.draw_heatmap(matrix, entry, ax, annotate=annotate, marks=self.marks(measure),
                             hatched=findings.find_artefacts(self).get(measure.partition(".")[0]),
                             title=f"{entry.label}\n{self.source} → {self.target}")
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
        return compute_difference(self, a, b, measure, other)

    def verdict(self) -> battery.Verdict:
        """Run the paper's sanity battery; see `suture.results.sanity.run_sanity_battery`."""
        return battery.run_sanity_battery(self.table, self.sources, self.targets,
                                          same_network=self.same_network,
                                          same_architecture=self.same_architecture, arrays=self.arrays)

    def equals(self, other: Comparison) -> bool:
        """Return True where all fields are exactly equal: names, order, dtypes and every number.

        NaN equals NaN.
        """
        fields = ("source", "target", "sources", "targets", "same_network", "same_architecture")
        return (all(getattr(self, f) == getattr(other, f) for f in fields)
                and json.dumps(self.meta) == json.dumps(other.meta)
                and format_csv(self.table) == format_csv(other.table)
                and list(self.table.dtypes) == list(other.table.dtypes)
                and list(self.arrays) == list(other.arrays)
                and all(is_same_array(self.arrays[name], other.arrays[name]) for name in self.arrays))

    def save(self, dir: str | os.PathLike[str]) -> Path:
        """Write ``comparison.json``, ``table.csv`` and ``arrays.safetensors`` into a folder.

        A reader finds all of the earlier comparison or all of this one, also after a killed writer. Only one
        process may write to a folder at a time. A report in the folder (``report.html``, ``figures/``) is
        left as it is.

        Args:
            dir: a folder that is missing, empty, or holds an earlier comparison.

        Returns:
            The folder.

        Raises:
            SutureError: the folder holds anything else, or cannot be written; nothing in it has changed then.
        """
        from suture.results.saving import save_comparison

        return save_comparison(self, Path(dir))

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
