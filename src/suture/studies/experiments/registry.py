"""The experiments by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from suture.studies.experiments.experiment import Experiment
from suture.studies.experiments.grids.between_seeds import BetweenSeeds, FunctionalStructural, Indices
from suture.studies.experiments.grids.cross_task import CrossTask
from suture.studies.experiments.grids.detection import OutOfDistribution
from suture.studies.experiments.grids.self_stitching import EqualSize, SelfStitching

EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType({e.name: e for e in (
    SelfStitching(), BetweenSeeds(), OutOfDistribution(), EqualSize(), CrossTask(), Indices(),
    FunctionalStructural())})
"""Every experiment of `reproduce`, in the order of the page."""
