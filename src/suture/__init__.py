"""suture: compare the inner representations of neural networks by stitching them together.

>>> result = suture.compare(network, other, data=train, test=test)
>>> result.matrix("dm.relative_accuracy"); result.verdict(); result.report("report.html")
"""

from suture import indices as indices
from suture import sources as sources
from suture._errors import SutureError as SutureError
from suture.batches import Paired as Paired
from suture.batches import Prepared as Prepared
from suture.capture import capture as capture
from suture.capture import find_sites as find_sites
from suture.capture import run_tail as run_tail
from suture.cells import Thresholds as Thresholds
from suture.compare import compare as compare
from suture.compare import dry_run as dry_run
from suture.compare import paper as paper
from suture.detection import OOD as OOD
from suture.detectors.energy import EnergyRecipe as EnergyRecipe
from suture.matrices import compare_arrays as compare_arrays
from suture.matrices import merged_moments as merged_moments
from suture.measures import MEASURES as MEASURES
from suture.naming import Site as Site
from suture.preprocessing import ImagePreprocessing as ImagePreprocessing
from suture.preprocessing import TextPreprocessing as TextPreprocessing
from suture.representations import AlignmentRule as AlignmentRule
from suture.results import Comparison as Comparison
from suture.results import load as load
from suture.stitch import StitchedNetwork as StitchedNetwork
from suture.stitch import load_stitched as load_stitched
from suture.stitch import stitch as stitch
from suture.stitching import Family as Family
from suture.stitching import StitchingLayer as StitchingLayer
from suture.stitching import TaskRecipe as TaskRecipe
