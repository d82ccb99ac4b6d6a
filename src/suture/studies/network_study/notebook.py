"""What a notebook shows of a study: what it found, and the matrix of one measure over networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from suture.numbers import get_measure
from suture.results import render_card, render_map, render_maps
from suture.studies.network_study.findings import choose_measure
from suture.studies.network_study.report import StudyReportOptions, describe_study

if TYPE_CHECKING:
    from suture.studies.network_study.result import Study


def render_study_card(study: Study) -> str:
    """Render the findings of a study, and a small map."""
    title = f"{len(study.networks)} networks, {len(study.pairs)} pairs"
    parts = []
    if study.pairs:
        matrix = study.matrix(choose_measure(study))
        names = ", ".join(f"{k} {name}" for k, name in enumerate(matrix.columns, 1))
        parts = [render_maps([render_map(get_measure(choose_measure(study)), matrix)],
                             f"rows: source networks; columns: target networks ({names[:2000]})")]
    return render_card(title, describe_study(study, StudyReportOptions(), 3), parts)
