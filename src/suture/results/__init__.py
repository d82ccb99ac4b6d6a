"""Results of a comparison: table, verdicts, figures, page, and files on disk.

What draws is loaded when it is first used, because matplotlib is slow to load.
"""

import importlib
from typing import TYPE_CHECKING, Any

from suture.results.comparison import Comparison as Comparison
from suture.results.comparison import load as load
from suture.results.findings import summarise_findings as summarise_findings
from suture.results.inference.correspondence import match_depths as match_depths
from suture.results.inference.correspondence import measure_correspondence as measure_correspondence
from suture.results.inference.correspondence import pair_sites as pair_sites
from suture.results.inference.noise import NoiseTest as NoiseTest
from suture.results.inference.noise import choose_test as choose_test
from suture.results.inference.nulls import LEVEL as LEVEL
from suture.results.inference.nulls import NULL_FIELDS as NULL_FIELDS
from suture.results.inference.nulls import adjust_holm as adjust_holm
from suture.results.measured import COLUMNS as COLUMNS
from suture.results.measured import format_people_csv as format_people_csv
from suture.results.measured import take_cells as take_cells
from suture.results.notebook import render_card as render_card
from suture.results.notebook import render_map as render_map
from suture.results.notebook import render_maps as render_maps
from suture.results.notebook import render_table as render_table
from suture.results.notebook import show_in_notebook as show_in_notebook
from suture.results.report import ReportOptions as ReportOptions
from suture.results.report import require_matplotlib as require_matplotlib
from suture.results.report import write_report as write_report
from suture.results.report import write_with_figures as write_with_figures
from suture.results.sanity import Verdict as Verdict
from suture.results.sanity import tabulate_contests as tabulate_contests
from suture.results.saving import give_up_result as give_up_result
from suture.results.saving import has_comparison as has_comparison
from suture.results.saving import is_given_up as is_given_up
from suture.results.saving import refuse_foreign as refuse_foreign
from suture.results.saving import remove_temporary as remove_temporary
from suture.results.standing import Criterion as Criterion
from suture.results.standing import describe_flaw as describe_flaw
from suture.results.unjudged import shorten_name as shorten_name
from suture.results.verdicts import ARTEFACT as ARTEFACT
from suture.results.verdicts import DISSIMILAR as DISSIMILAR
from suture.results.verdicts import LABELS_ONLY as LABELS_ONLY
from suture.results.verdicts import NATIVE as NATIVE
from suture.results.verdicts import NOT_SHOWN as NOT_SHOWN
from suture.results.verdicts import SIMILAR as SIMILAR
from suture.results.verdicts import UNPROVEN as UNPROVEN
from suture.results.verdicts import CellEvidence as CellEvidence
from suture.results.verdicts import describe_marks as describe_marks
from suture.results.verdicts import judge_cell as judge_cell

if TYPE_CHECKING:
    from suture.results.drawing.files import render_png as render_png
    from suture.results.drawing.files import save_drawn as save_drawn
    from suture.results.drawing.fitting import CellFitting as CellFitting
    from suture.results.drawing.fitting import CellText as CellText
    from suture.results.drawing.fitting import WordsFitting as WordsFitting
    from suture.results.drawing.grids import draw_matrix_grid as draw_matrix_grid
    from suture.results.drawing.grids import fit_height as fit_height
    from suture.results.drawing.grids import make_figure as make_figure
    from suture.results.drawing.histograms import SCORE_LINES as SCORE_LINES
    from suture.results.drawing.histograms import choose_bins as choose_bins
    from suture.results.drawing.histograms import collect_scores as collect_scores
    from suture.results.drawing.histograms import compute_densities as compute_densities
    from suture.results.drawing.latex import write_frame as write_frame
    from suture.results.drawing.latex import write_matrix as write_matrix
    from suture.results.drawing.lines import COLOURS as COLOURS
    from suture.results.drawing.lines import SIGNS as SIGNS
    from suture.results.drawing.lines import strip_spines as strip_spines
    from suture.results.drawing.lines import write_legend as write_legend
    from suture.results.drawing.lines import write_legend_below as write_legend_below
    from suture.results.drawing.maps import Heat as Heat
    from suture.results.drawing.maps import draw_matrix as draw_matrix
    from suture.results.drawing.measuring import fit_words as fit_words
    from suture.results.drawing.measuring import resolve_points as resolve_points
    from suture.results.drawing.names import NameTicks as NameTicks
    from suture.results.drawing.style import STYLE as STYLE
    from suture.results.drawing.style import embed_fonts as embed_fonts
    from suture.results.drawing.style import style as style
    from suture.results.heatmaps import format_value as format_value
    from suture.results.heatmaps import make_printable as make_printable
    from suture.results.page import CellGrid as CellGrid
    from suture.results.page import CellMap as CellMap
    from suture.results.page import embed as embed
    from suture.results.page import embed_table as embed_table
    from suture.results.page import fill_template as fill_template
    from suture.results.page import list_provenance as list_provenance
    from suture.results.page import write_text as write_text

_DRAWING = {
    "drawing.files": ("render_png", "save_drawn"),
    "drawing.fitting": ("CellFitting", "CellText", "WordsFitting"),
    "drawing.grids": ("draw_matrix_grid", "fit_height", "make_figure"),
    "drawing.histograms": ("SCORE_LINES", "choose_bins", "collect_scores", "compute_densities"),
    "drawing.latex": ("write_frame", "write_matrix"),
    "drawing.lines": ("COLOURS", "SIGNS", "strip_spines", "write_legend", "write_legend_below"),
    "drawing.maps": ("Heat", "draw_matrix"),
    "drawing.measuring": ("fit_words", "resolve_points"),
    "drawing.names": ("NameTicks",),
    "drawing.style": ("STYLE", "embed_fonts", "style"),
    "heatmaps": ("format_value", "make_printable"),
    "page": ("CellGrid", "CellMap", "embed", "embed_table", "fill_template", "list_provenance", "write_text"),
}
_MODULE_OF = {name: module for module, names in _DRAWING.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'suture.results' has no attribute {name!r}")
    return getattr(importlib.import_module(f"suture.results.{_MODULE_OF[name]}"), name)
