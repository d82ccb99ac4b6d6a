"""Detectors of stitched representations that are far from native ones."""

from suture.ood.auxiliary import as_batches as as_batches
from suture.ood.detection import Detection as Detection
from suture.ood.detectors.energy_detector import EnergyRecipe as EnergyRecipe
from suture.ood.detectors.fitter import DetectorFitter as DetectorFitter
from suture.ood.detectors.registry import DEFAULT_DETECTORS as DEFAULT_DETECTORS
from suture.ood.detectors.registry import DETECTORS as DETECTORS
from suture.ood.detectors.score_collector import ScoreCollector as ScoreCollector
from suture.ood.detectors.score_collector import is_constant as is_constant
from suture.ood.detectors.score_collector import stack_scores as stack_scores
from suture.ood.detectors.score_collector import tabulate_scores as tabulate_scores
from suture.ood.detectors.site_features import SiteFeatures as SiteFeatures
from suture.ood.options import DEFAULT_OOD as DEFAULT_OOD
from suture.ood.options import OOD as OOD
from suture.ood.thresholds import Thresholds as Thresholds
