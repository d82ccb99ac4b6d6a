"""The result of a study: comparisons of pairs, tables and matrices over networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suture._base import FilePath, checked, describes, make_unknown_error
from suture.numbers import get_measure
from suture.results import Comparison, require_matplotlib, show_in_notebook
from suture.studies.network_study.compared_networks import ComparedNetworks
from suture.studies.network_study.findings import choose_measure
from suture.studies.network_study.layers import Reduce
from suture.studies.network_study.manifest import KeptComparisons, list_broken, read_tasks
from suture.studies.network_study.report import StudyReportOptions, write_study_page
from suture.studies.population.pairs import PairName
from suture.studies.running.store import StudyStore

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

@dataclass(frozen=True, eq=False)
class Study(ComparedNetworks):
    """Comparisons of many networks; attributes as for `ComparedNetworks`."""

    @classmethod
    def make(cls, about: Mapping[str, Any], comparisons: Mapping[PairName, Comparison],
             failures: Mapping[PairName, str]) -> Study:
        """Make a study from its manifest."""
        import pandas as pd

        words = pd.DataFrame.from_dict(dict(about["networks"]), orient="index")
        words.index.name = "network"
        return cls(tuple(about["networks"]), words, comparisons, dict(failures), about)

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"Study({len(self.networks)} networks, {len(self.comparisons)} pairs{failed})"

    def _repr_html_(self) -> str | None:
        from suture.studies.network_study.notebook import render_study_card

        return show_in_notebook(lambda: render_study_card(self))

    @cached_property
    def table(self) -> pd.DataFrame:
        """The tables of all pairs, with ``source_network``, ``target_network`` and what is said of both.

        A pair that failed has one row with its reason.
        """
        import pandas as pd

        parts = [made.table.assign(source_network=a, target_network=b)
                 for (a, b), made in self.comparisons.items()]
        parts += [pd.DataFrame([{"source_network": a, "target_network": b, "reason": reason}])
                  for (a, b), reason in self.failures.items()]
        whole = pd.concat(parts, ignore_index=True)
        for side in ("source", "target"):
            words = self.about.add_prefix(f"{side}_")
            whole = whole.merge(words, left_on=f"{side}_network", right_index=True, how="left")
        first = ["source_network", "target_network"]
        return whole[[*first, *(name for name in whole.columns if name not in first)]]

    @checked
    def dendrogram(self, measure: str = "cka", ax: Axes | None = None) -> Axes:
        """Draw the tree of the networks, average linkage of `distances`."""
        from suture.studies.network_study.figures import draw_links

        if ax is None:
            from matplotlib import pyplot as plt
            ax = plt.subplots(layout="constrained")[1]
        draw_links(self, measure, ax)
        return ax

    @checked
    def plot(self, what: str = "map", measure: str | None = None, reduce: Reduce = "diagonal",
             along: str | None = None) -> Figure:
        """Draw a figure, which a notebook shows and `Figure.savefig` saves as PNG or PDF.

        Args:
            what: ``"map"`` (the matrix), ``"embedding"``, ``"tree"`` or ``"trend"``.
            measure: default CKA, else the first.
            reduce: as for `matrix`, for the map and the trend.
            along: column of `about` for the trend and the colours of the embedding. Default: the first that
                fits.

        Raises:
            SutureError: what the figure shows does not exist, as distances of a measure that is no metric.
        """
        require_matplotlib("a plot")
        from suture.studies.network_study.figures import draw

        return draw(self, what, choose_measure(self, measure), reduce, along)

    @checked
    def to_latex(self, what: str = "matrix", measure: str | None = None, reduce: Reduce = "diagonal",
                 by: str | None = None, *, digits: int = 3, caption: str = "", label: str = "") -> str:
        """Write a table of LaTeX; it needs the package booktabs.

        Args:
            what: ``"matrix"``, or ``"summary"`` with 95 % intervals over networks.
            measure: default CKA, else the first.
            reduce: as for `matrix`.
            by: column of `about`, as for `summary`.
            digits: after the point.
            caption, label: of a ``table`` around the ``tabular``. Default: the tabular alone.

        Raises:
            SutureError: no such table, measure or column.
        """
        from suture.results import write_frame, write_matrix

        chosen = choose_measure(self, measure)
        if what == "matrix":
            cells, name = {"value": self.matrix(chosen, reduce).to_numpy(float)}, get_measure(chosen).label
            return write_matrix(self.networks, self.networks, cells, name, False, digits, caption, label)
        if what != "summary":
            raise make_unknown_error("table", what, ("matrix", "summary"))
        found = self.summary(chosen, reduce, by).set_index("group").drop(columns="reason")
        return write_frame(found, digits, caption, label)

    @checked
    @describes(StudyReportOptions)
    def report(self, path: FilePath, figures: bool = False, measure: str | None = None,
               reduce: Reduce = "diagonal", along: str | None = None, by: str | None = None) -> Path:
        """Write a self-contained HTML page that begins with what was found; it needs no other file.

        Args:
            path: the page, such as ``"out/report.html"``; an existing file is replaced.
            {options}

        Returns:
            The page.

        Raises:
            SutureError: no such measure or column, or the page or the figures cannot be written.
        """
        return write_study_page(self, Path(path), StudyReportOptions(figures, measure, reduce, along, by))

    @checked
    def save(self, folder: FilePath) -> Path:
        """Write all comparisons and the manifest into a folder, which `Study.load` reads."""
        store = StudyStore.open(folder)
        for task in read_tasks(self.meta):
            if task.pair in self.comparisons:
                self.comparisons[task.pair].save(store.get_place(task))
                store.finish(task)
            else:
                store.finish(task, self.failures[task.pair])
        store.write_manifest({**self.meta, "folder": str(folder)})
        return store.folder

    @classmethod
    @checked
    def load(cls, folder: FilePath) -> Study:
        """Load a study from its folder; a pair that is not finished yet counts as failed, for that reason.

        Raises:
            SutureError: the folder holds no study.
        """
        store = StudyStore(Path(folder))
        about = store.read_manifest()
        places, failures = dict[PairName, Path](), dict(list_broken(about))
        for task in read_tasks(about):
            record = store.find(task)
            if record is None or record.reason:
                failures[task.pair] = "not finished" if record is None else record.reason
            else:
                places[task.pair] = store.get_place(task)
        return cls.make(about, KeptComparisons(places), failures)
