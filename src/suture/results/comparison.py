"""The comparison of two networks: numbers, verdicts, figures and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainValidator

from suture._base import (
    FilePath,
    SutureError,
    checked,
    describes,
    escape_controls,
    expect,
    keep_parts,
    make_unknown_error,
    refuse,
)
from suture.indices import SITE_COLUMNS, tabulate_statistics
from suture.networks import Site
from suture.numbers import (
    MEASURES,
    Difference,
    Record,
    build_record,
    estimate_difference,
    make_measure,
    register_measure,
)
from suture.ood import RANGE_COLUMNS, describe_range
from suture.results.drawing.drawn import Drawn
from suture.results.findings import Findings, summarise_findings
from suture.results.inference.correspondence import Correspond
from suture.results.measured import Measured, take_cells
from suture.results.meta import check_meta
from suture.results.report import ReportOptions, write_report
from suture.results.sanity import Verdict, run_sanity_battery
from suture.results.saving import read_fields, report_damage, save_measured
from suture.results.verdicts import judge_cells

if TYPE_CHECKING:
    import pandas as pd


def _read_cell(given: Any) -> tuple[str, str]:
    """Return the names of a cell's sites, or refuse anything else."""
    parts = keep_parts(given)
    if not isinstance(parts, tuple) or len(parts) != 2 or not all(isinstance(p, str | Site) for p in parts):
        raise refuse("a cell (source site, target site)", "", 'write ("layer1.0", "layer2.0")')
    return str(parts[0]), str(parts[1])


CellName = Annotated[tuple[str, str], PlainValidator(_read_cell)]
"""A cell: source site, target site."""


@dataclass(frozen=True, eq=False)
class Comparison(Drawn):
    """All results about one source network and one target network.

    The table and the meta are copied and normalised (str, float64, int64; JSON lists), so that a loaded
    comparison equals the saved one.

    Attributes:
        source, target: display names of the networks.
        sources, targets: site names in order of execution: rows and columns of every matrix.
        same_network: True if the source network is the target network (self-stitching).
        same_architecture: True if sites of the same name are the same layer of both networks.
        table: columns `COLUMNS`, one row per cell and measure. A missing value is NaN with a reason. A mark
            says why a value is not to be trusted, such as a stitching layer that was still improving; it is
            empty otherwise.
        arrays: per-example and per-cell arrays by name, such as ``"target.correct"`` bool (N,),
            ``"dm.correct"`` bool and ``"dm.kl"`` float32 (S, T, N), ``"tlm.loss"`` (S, T, epochs),
            ``"dm.weight/0/1"`` float32. The per-example ones (`suture.compare.scoring.evaluation`) need
            about 14 bytes per cell, method and test example. With several initialisations
            (`TaskRecipe.seeds`) they are means, float32. ``"tlm.runs.kl"`` (initialisations, S, T) holds the
            values of each, and ``"tlm.run1.loss"`` belongs to the second.
        meta: JSON-able: ``versions``, ``seed``, ``command``, ``settings``, ``n_fit``, ``n_test``,
            ``created``, ``device``, ``notes`` (list of str), ``stages`` (names of the finished stages),
            ``output`` (which output of the target network was scored, ``choice``, and its ``kind``).

    Raises:
        SutureError: the table breaks these rules, a site name occurs twice, meta is not JSON-able, or an
            array is not a NumPy array of booleans, integers or floats.
    """

    def __repr__(self) -> str:
        """Return what was compared and what was found first, in one line."""
        return ": ".join([self._head, *self._sentences[:1]])

    def __str__(self) -> str:
        """Return what was compared and all that was found, one sentence a line."""
        return "\n".join([self._head, *self._sentences])

    @property
    def _head(self) -> str:
        return (f"Comparison({self.source!r} -> {self.target!r}, {len(self.sources)} x {len(self.targets)} "
                f"cells, {len(self.measures)} measure{'s' * (len(self.measures) != 1)})")

    @cached_property
    def _sentences(self) -> tuple[str, ...]:
        try:
            return tuple(map(escape_controls, summarise_findings(self).all))
        except SutureError:
            return ()

    def _repr_html_(self) -> str | None:
        from suture.results.notebook import render_comparison, show_in_notebook

        return show_in_notebook(lambda: render_comparison(self))

    def statistics(self) -> pd.DataFrame:
        """Return statistics of each site's representation (`suture.indices.SiteStatistics`).

        Returns:
            Columns ``side``, ``site``, ``rows``, ``width``, ``rank``, ``effective_rank``,
            ``participation_ratio`` and ``dead`` (columns that do not vary). Positions count as rows. Empty if
            no index of the stitched matrices was requested. The spectra are in `arrays`, as
            ``source.spectrum/0`` and so on.
        """
        import pandas as pd

        return pd.DataFrame(tabulate_statistics(self.arrays, self.sources, self.targets),
                            columns=list(SITE_COLUMNS))

    def natural_range(self) -> pd.DataFrame:
        """Return the natural range of the target network at every target site.

        `inner` is the smallest distance from native representations at which some shift of the inputs breaks
        the network, `outer` the largest at which it still works under some shift (open-ended if the network
        works under this shift throughout). Distances are squared Fréchet distances over the native variance.

        Returns:
            Columns `suture.ood.RANGE_COLUMNS`. `range` is that of all built-in shifts,
            without one of them, or that of the user's own shifts. Empty without stitched networks.
        """
        import pandas as pd

        return pd.DataFrame(describe_range(self.meta, self.targets), columns=list(RANGE_COLUMNS))

    @checked
    def cells(self, method: str = "dm", what: str = "word") -> pd.DataFrame:
        """Return the verdict of every cell: similar, artefact, shares the labels only, dissimilar, or open.

        An artefact works, but with representations beyond what natural inputs reach.
        `suture.results.verdicts.judge_cell` has the rules.

        Args:
            method: ``"dm"`` or ``"tlm"``.
            what: ``"word"``, or ``"reason"`` for a sentence.

        Returns:
            Texts; rows are source sites, columns target sites.

        Raises:
            SutureError: the comparison lacks natural distances of this method, or a measure by which its
                cells work.
        """
        if what not in ("word", "reason"):
            raise make_unknown_error("column", what, ("word", "reason"))
        found = judge_cells(self, method)
        return found.words if what == "word" else found.reasons

    @checked
    def difference(self, a: CellName, b: CellName, measure: str,
                   other: str | None = None) -> Difference:
        """Test if the values of two cells differ on the same examples.

        Hits of examples (accuracy, relative accuracy, agreement) are tested by the exact McNemar test, the
        mean over batches by Student's t, all else by a paired bootstrap over examples (whole texts); see
        `suture.numbers.intervals.estimate_difference`. Means over several initialisations are tested by t
        tests over examples and initialisations. There is no correction for many tests. A tiny p
        value says that a difference is real, not that it is large.

        >>> result.difference(("layer3", "layer1"), ("layer1", "layer1"), "dm.kl")
        >>> result.difference(("layer3", "layer1"), ("layer3", "layer1"), "dm.accuracy", "tlm.accuracy")

        Args:
            a, b: cells (source site, target site).
            measure: measure of `a`, and of `b` unless `other` is given.
            other: the same measure of another method, for `b`.

        Returns:
            Value of `a` minus value of `b` in the measure's units, with interval, p value, test and n.

        Raises:
            SutureError: the comparison lacks the site, measure or value, the measure has no results per
                example (structural indices), or the two measures differ in more than the method.
        """
        other = measure if other is None else other
        expect(measure.rpartition(".")[2] == other.rpartition(".")[2], "one measure of two methods",
               f"{measure!r} and {other!r}")
        one, two = _build_cell_record(self, a, measure), _build_cell_record(self, b, other)
        return estimate_difference(one, two, int(self.meta.get("seed") or 0))

    def verdict(self) -> Verdict:
        """Run the paper's sanity battery; see `suture.results.sanity.run_sanity_battery`."""
        return run_sanity_battery(self)

    def findings(self, correspond: Correspond = None) -> Findings:
        """Return what the comparison found, in at most six sentences, the finding first.

        >>> print(result.findings())

        Args:
            correspond: which layers of two networks correspond: ``"name"``, ``"order"`` (the same depth), or
                a mapping from target sites to source sites. None: by name for one architecture, else by
                order.

        Raises:
            SutureError: a site that the comparison does not have.
        """
        return summarise_findings(self, correspond)

    @checked
    def save(self, dir: FilePath) -> Path:
        """Write ``comparison.safetensors`` into a folder, and ``table.csv`` beside it for people.

        A reader finds the earlier comparison or this one, each whole, even if the writer was killed. Only one
        process may write to a folder at a time. A report in the folder is kept. `load` never reads
        ``table.csv``.

        Args:
            dir: a folder that is missing, empty, or holds an earlier comparison.

        Returns:
            The folder.

        Raises:
            SutureError: the folder holds anything else (it stays unchanged), or cannot be written.
        """
        return save_measured(self, Path(dir))

    @checked
    @describes(ReportOptions)
    def report(self, path: FilePath, figures: bool = False) -> Path:
        """Write a self-contained HTML page; it needs no other file.

        Args:
            path: the page, such as ``"out/report.html"``; an existing file is replaced.
            {options}

        Returns:
            The page.

        Raises:
            SutureError: the page or the figures cannot be written, or another file has the name of a figure.
        """
        return write_report([self], path, ReportOptions(figures))


def _build_cell_record(measured: Measured, cell: tuple[str, str], measure: str) -> Record:
    for kind, name, names in zip(("source", "target"), cell, (measured.sources, measured.targets),
                                 strict=True):
        if name not in names:
            raise make_unknown_error(f"{kind} site", name, names)
    i, j = measured.sources.index(cell[0]), measured.targets.index(cell[1])
    record = build_record(measured.arrays, measure, i, j)
    reason = str(take_cells(measured, measure, "reason")[i, j])
    if reason:
        raise SutureError(f"{measure} of {cell[0]!r} into {cell[1]!r} has no value: {reason}")
    return record


@checked
def load(dir: FilePath) -> Comparison:
    """Load the comparison that `Comparison.save` wrote into a folder, exactly.

    Raises:
        SutureError: the folder holds no comparison, one of another format version, or a damaged one.
    """
    folder = Path(dir)
    fields = read_fields(folder)
    with report_damage(folder):
        check_meta(fields["meta"])
        _register_own(fields["meta"])
        return Comparison(**fields)


def _register_own(meta: Mapping[str, Any]) -> None:
    """Register the measures of a saved comparison that are the user's own indices."""
    for entry in meta.get("own_measures", []):
        known = MEASURES.get(entry["name"])
        if known is None or known.own:
            register_measure(make_measure(**entry, own=True))
