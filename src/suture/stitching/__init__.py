"""The stitching layer and the two ways of fitting it: direct matching and task loss matching."""

from suture.stitching.direct import DirectMatch as DirectMatch
from suture.stitching.direct import direct_match as direct_match
from suture.stitching.families import Family as Family
from suture.stitching.layer import StitchingLayer as StitchingLayer
from suture.stitching.task import TaskRecipe as TaskRecipe
