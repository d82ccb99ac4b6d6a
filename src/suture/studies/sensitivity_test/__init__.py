"""Sensitivity of measures: what they say when a representation loses its last principal components."""

from suture.studies.sensitivity_test.alignment_table import rank_alignments as rank_alignments
from suture.studies.sensitivity_test.call import SensitivityOptions as SensitivityOptions
from suture.studies.sensitivity_test.call import sensitivity as sensitivity
from suture.studies.sensitivity_test.result import Sensitivity as Sensitivity
