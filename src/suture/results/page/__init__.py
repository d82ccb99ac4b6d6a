"""The page of comparisons: one self-contained HTML file."""

from suture.results.page.comparisons import build_loss_curve as build_loss_curve
from suture.results.page.comparisons import embed as embed
from suture.results.page.comparisons import fill_template as fill_template
from suture.results.page.comparisons import list_provenance as list_provenance
from suture.results.page.comparisons import render_page as render_page
from suture.results.page.comparisons import tabulate_quality as tabulate_quality
from suture.results.page.comparisons import tabulate_range as tabulate_range
from suture.results.page.comparisons import write_page as write_page
from suture.results.page.comparisons import write_text as write_text
from suture.results.page.maps import build_map as build_map
from suture.results.page.maps import style_cell as style_cell
