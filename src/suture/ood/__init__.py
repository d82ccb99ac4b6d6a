"""Detectors of stitched representations that are far from native ones."""

from suture.ood.auxiliary import as_batches as as_batches
from suture.ood.detection import Detection as Detection
from suture.ood.detection import DetectorFitter as DetectorFitter
from suture.ood.detector import Detector as Detector
from suture.ood.detector import NativeData as NativeData
from suture.ood.detector import NativeSite as NativeSite
from suture.ood.detector import Statistics as Statistics
from suture.ood.distances import FeatureSample as FeatureSample
from suture.ood.energy_classifier import EnergyRecipe as EnergyRecipe
from suture.ood.features import SiteFeatures as SiteFeatures
from suture.ood.natural_range.outcomes import Outcome as Outcome
from suture.ood.natural_range.outcomes import measure_outcome as measure_outcome
from suture.ood.natural_range.radii import NaturalRange as NaturalRange
from suture.ood.natural_range.radii import ShiftRange as ShiftRange
from suture.ood.natural_range.search import RangeSearch as RangeSearch
from suture.ood.natural_range.shifts import Shift as Shift
from suture.ood.options import DEFAULT_OOD as DEFAULT_OOD
from suture.ood.options import OOD as OOD
from suture.ood.options import Thresholds as Thresholds
from suture.ood.scores import ScoreCollector as ScoreCollector
from suture.ood.scores import is_constant as is_constant
from suture.ood.scores import join_parts as join_parts
from suture.ood.scores import stack_scores as stack_scores
from suture.ood.scores import tabulate_scores as tabulate_scores
from suture.ood.table import DEFAULT_DETECTORS as DEFAULT_DETECTORS
from suture.ood.table import DETECTORS as DETECTORS
