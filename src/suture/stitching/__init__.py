"""Stitching layers and the two ways of fitting them: direct matching and task loss matching."""

from suture.stitching.convergence import collect_own_layers as collect_own_layers
from suture.stitching.convergence import find_unconverged as find_unconverged
from suture.stitching.convergence import merge_marks as merge_marks
from suture.stitching.convergence import stack_curves as stack_curves
from suture.stitching.direct_matching import DirectMatch as DirectMatch
from suture.stitching.direct_matching import direct_match as direct_match
from suture.stitching.direct_matching import explain_overfit as explain_overfit
from suture.stitching.families import FAMILIES as FAMILIES
from suture.stitching.family import FULL as FULL
from suture.stitching.family import Family as Family
from suture.stitching.grouped_pass import LayerKey as LayerKey
from suture.stitching.grouped_pass import Layers as Layers
from suture.stitching.layer import StitchingLayer as StitchingLayer
from suture.stitching.objective import TaskRecipe as TaskRecipe
from suture.stitching.objective import check_batch as check_batch
from suture.stitching.output_evidence import EXAMPLES as EXAMPLES
from suture.stitching.task_inference import ScoredOutput as ScoredOutput
from suture.stitching.task_inference import resolve_output as resolve_output
from suture.stitching.tasks import TASKS as TASKS
from suture.stitching.tasks import ScoredRows as ScoredRows
from suture.stitching.tasks import Task as Task
from suture.stitching.tasks import TaskName as TaskName
from suture.stitching.tasks import extract_logits as extract_logits
from suture.stitching.trainer import GroupTrainer as GroupTrainer
from suture.stitching.trainer import make_training_batches as make_training_batches
from suture.stitching.training_state import Curves as Curves
