"""The public call `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from suture._base import FilePath, checked, describes, expect, keep_parts, show_value
from suture.results import Comparison, ReportOptions, write_report
from suture.studies.network_study.report import StudyReportOptions, write_study_page
from suture.studies.network_study.result import Study


@checked
@describes(ReportOptions)
def report(results: Any, path: FilePath, figures: bool = False) -> Path:
    """Write one HTML page for several comparisons, or for a study; it needs no other file.

    >>> suture.report([first, second], "report.html")

    Args:
        results: comparisons of networks or of arrays, one or several; or one study, whose page has its
            findings over networks.
        path: the page; an existing file is replaced.
        {options}

    Returns:
        The page.

    Raises:
        SutureError: something else, or both kinds; the page or the figures cannot be written.
    """
    given = (results,) if isinstance(results, Comparison | Study) else keep_parts(results)
    wanted, advice = "comparisons, or one study", "write suture.report([first, second], path)"
    expect(isinstance(given, tuple) and bool(given), wanted, show_value(results), advice)
    odd = next((one for one in given if not isinstance(one, Comparison | Study)), None)
    expect(odd is None, wanted, show_value(odd),
           f"write suture.load({str(odd)!r}) for it" if isinstance(odd, str | Path) else advice)
    studies = [one for one in given if isinstance(one, Study)]
    if not studies:
        return write_report([one for one in given if isinstance(one, Comparison)], path,
                            ReportOptions(figures))
    expect(len(given) == 1, wanted, f"{len(studies)} of {len(given)} results as studies",
           "write suture.report(study, path) for each")
    return write_study_page(studies[0], Path(path), StudyReportOptions(figures))
