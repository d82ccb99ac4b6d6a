"""The stitching layer and the two ways of fitting it: direct matching and task loss matching."""

from suture.stitching.direct_matching import DirectMatch as DirectMatch
from suture.stitching.direct_matching import direct_match as direct_match
from suture.stitching.families import Family as Family
from suture.stitching.layer import StitchingLayer as StitchingLayer
from suture.stitching.trainer import TaskRecipe as TaskRecipe
