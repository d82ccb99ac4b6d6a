"""suture: compare the inner representations of neural networks by stitching them together.

>>> result = suture.compare(network, other, data=train, test=test)
>>> result.matrix("dm.relative_accuracy"); result.verdict(); result.report("report.html")
"""

from suture import indices as indices
from suture._base.errors import SutureError as SutureError
from suture.compare.api import compare as compare
from suture.compare.api import dry_run as dry_run
from suture.compare.api import paper as paper
from suture.compare.stitched_network import StitchedNetwork as StitchedNetwork
from suture.compare.stitched_network import load_stitched as load_stitched
from suture.compare.stitched_network import stitch as stitch
from suture.data import sources as sources
from suture.data.batches import Paired as Paired
from suture.data.batches import Prepared as Prepared
from suture.data.preprocessing import ImagePreprocessing as ImagePreprocessing
from suture.data.preprocessing import TextPreprocessing as TextPreprocessing
from suture.indices.matrices import compare_arrays as compare_arrays
from suture.indices.matrices import merged_moments as merged_moments
from suture.networks.naming import Site as Site
from suture.networks.site_outputs import capture as capture
from suture.networks.site_outputs import find_sites as find_sites
from suture.networks.site_outputs import run_tail as run_tail
from suture.numbers.measures import MEASURES as MEASURES
from suture.ood.detection import OOD as OOD
from suture.ood.detectors.energy_training import EnergyRecipe as EnergyRecipe
from suture.ood.thresholds import Thresholds as Thresholds
from suture.representations.alignment import AlignmentRule as AlignmentRule
from suture.results.comparison import Comparison as Comparison
from suture.results.comparison import load as load
from suture.stitching import Family as Family
from suture.stitching import StitchingLayer as StitchingLayer
from suture.stitching import TaskRecipe as TaskRecipe
