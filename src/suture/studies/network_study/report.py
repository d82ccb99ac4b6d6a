"""The report of a study: a page that begins with what was found, its figures, and its table as CSV."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typing_extensions import Doc

from suture._base import FilePath, checked, options, replace_file
from suture.results import ReportOptions, format_people_csv, require_matplotlib, write_with_figures
from suture.studies.network_study.findings import StudyFindings, find_study
from suture.studies.network_study.layers import Reduce
from suture.studies.population.pairs import PairName

if TYPE_CHECKING:
    from suture.studies.network_study.result import Study


@options
class StudyReportOptions(ReportOptions):
    """Options of the report of a study."""

    measure: Annotated[str | None, Doc("Measure of the page. Default: cka, else the first.")] = None
    reduce: Annotated[Reduce, Doc("One number for each pair: diagonal, best or transport.")] = "diagonal"
    along: Annotated[str | None, Doc(
        "Column of numbers in `about` for a trend. Default: all but the seed.")] = None
    by: Annotated[str | None, Doc(
        "Column of `about` whose groups of networks are contrasted. Default: all that are groups.")] = None


def write_study_page(study: Study, page: Path, given: StudyReportOptions) -> Path:
    """Write the page of a study, and its figures if the options ask for them."""
    require_matplotlib("a report")
    from suture.results import write_text
    from suture.studies.network_study.figures import plan_figures
    from suture.studies.network_study.page import render_study

    found = _find(study, given)
    drawn, lost = (({}, {}) if not study.pairs else
                   plan_figures(study, found.measure, found.reduce, [t.column for t in found.trends],
                                given.along or given.by))
    text = render_study(study, found, drawn, lost)
    return write_with_figures(page, partial(write_text, text), {"": drawn} if given.figures else {})


def describe_study(study: Study, given: StudyReportOptions, most: int = 10) -> list[str]:
    """Return what a study found, in sentences, and its failures, at most so many."""
    return [*_find(study, given).sentences, *describe_failures(study.failures, most)]


def describe_failures(failures: Mapping[PairName, str], most: int = 10) -> list[str]:
    """Say which pairs failed and why, pairs of one reason in one line, in at most so many lines and one."""
    pairs: dict[str, list[PairName]] = {}
    for pair, reason in failures.items():
        pairs.setdefault(reason, []).append(pair)
    others = ("", " and another pair", *(f" and {n} other pairs" for n in range(2, len(failures))))
    lines = [f"{' into '.join(of[0])}{others[len(of) - 1]} failed: {reason}" for reason, of in pairs.items()]
    left = sum(map(len, list(pairs.values())[most:]))
    return lines[:most] + ([f"{left} more failed."] if left else [])


def _find(study: Study, given: StudyReportOptions) -> StudyFindings:
    if not study.pairs:
        return StudyFindings.none(study)
    return find_study(study, given.measure, given.reduce, given.along, given.by)


@checked
def write_study_report(study: Study, folder: FilePath, given: StudyReportOptions | None = None
                       ) -> tuple[Path, Path]:
    """Write ``table.csv`` and ``report.html`` into a folder, and return them."""
    table, page = (Path(folder) / name for name in ("table.csv", "report.html"))
    write_study_page(study, page, given or StudyReportOptions())
    replace_file(table, _format_table(study))
    return table, page


def _format_table(study: Study) -> bytes:
    table = study.table
    numbers = ("value", "low", "high", "n")
    texts = {name: ["" if cell is None or cell != cell else str(cell) for cell in table[name]]
             for name in table.columns if name not in numbers}
    return format_people_csv(table.assign(**texts))
