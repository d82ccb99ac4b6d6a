"""Results of a comparison: table, verdicts, figures, page, and files on disk."""

from suture.results.comparison import Comparison as Comparison
from suture.results.comparison import load as load
from suture.results.correspondence import pair_sites as pair_sites
from suture.results.findings import summarise_findings as summarise_findings
from suture.results.inference.nulls import NULL_FIELDS as NULL_FIELDS
from suture.results.measured import COLUMNS as COLUMNS
from suture.results.report import ReportOptions as ReportOptions
from suture.results.report import write_report as write_report
from suture.results.sanity import Verdict as Verdict
from suture.results.saving import give_up_result as give_up_result
from suture.results.saving import has_comparison as has_comparison
from suture.results.saving import is_given_up as is_given_up
from suture.results.saving import refuse_foreign as refuse_foreign
from suture.results.saving import remove_temporary as remove_temporary
from suture.results.standing import Criterion as Criterion
from suture.results.standing import describe_flaw as describe_flaw
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
