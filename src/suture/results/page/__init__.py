"""The page of comparisons: one self-contained HTML file, and the frame of the pages of studies."""

from suture.results.page.comparisons import render_page as render_page
from suture.results.page.comparisons import write_page as write_page
from suture.results.page.curves import build_loss_curve as build_loss_curve
from suture.results.page.data import CellGrid as CellGrid
from suture.results.page.data import CellMap as CellMap
from suture.results.page.data import embed as embed
from suture.results.page.frame import embed_table as embed_table
from suture.results.page.frame import fill_template as fill_template
from suture.results.page.frame import write_text as write_text
from suture.results.page.tables import list_provenance as list_provenance
from suture.results.page.tables import tabulate_quality as tabulate_quality
from suture.results.page.tables import tabulate_range as tabulate_range
