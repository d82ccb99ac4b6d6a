"""Results of a comparison: table, verdicts, figures, page, and files on disk."""

from suture.results.comparison import Comparison as Comparison
from suture.results.comparison import load as load
from suture.results.comparison import write_report as write_report
from suture.results.convergence_marks import describe_marks as describe_marks
from suture.results.sanity import Verdict as Verdict
from suture.results.saving import has_comparison as has_comparison
from suture.results.summary import summarise_findings as summarise_findings
from suture.results.table import COLUMNS as COLUMNS
