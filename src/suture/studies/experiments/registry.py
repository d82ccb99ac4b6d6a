"""The experiments by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from suture.studies.experiments.experiment import Experiment
from suture.studies.experiments.grids.between_seeds import BetweenSeeds, FunctionalStructural, Indices
from suture.studies.experiments.grids.cross_task import CrossTask
from suture.studies.experiments.grids.detection import OutOfDistribution
from suture.studies.experiments.grids.self_stitching import EqualSize, SelfStitching
from suture.studies.experiments.measures.deviation_study import DeviationStudy
from suture.studies.experiments.measures.open_questions import OpenQuestions
from suture.studies.experiments.measures.rank_sensitivity import RankSensitivity
from suture.studies.experiments.measures.ranked_probes import RankedProbes
from suture.studies.experiments.measures.seed_specificity import SeedSpecificity

EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType({e.name: e for e in (
    SelfStitching(), BetweenSeeds(), OutOfDistribution(), EqualSize(), CrossTask(), Indices(),
    RankSensitivity(), SeedSpecificity(), RankedProbes(), FunctionalStructural(), OpenQuestions(),
    DeviationStudy())})
"""Every experiment of `reproduce`, in the order of the page."""
