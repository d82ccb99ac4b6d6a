"""Compare two networks layer by layer, or fit a single stitched network.

>>> comparison = suture.compare(network_a, network_b, data=train, test=test)
"""

from suture.compare.arrays.comparison import compare_arrays as compare_arrays
from suture.compare.arrays.files import ArrayFile as ArrayFile
from suture.compare.arrays.options import ArrayOptions as ArrayOptions
from suture.compare.fitting.group_checkpoints import PASS as PASS
from suture.compare.fitting.group_pass import collect_together as collect_together
from suture.compare.fitting.merged_shards import merge as merge
from suture.compare.fitting.prepared_networks import PreparedNetworks as PreparedNetworks
from suture.compare.fitting.shards import Shard as Shard
from suture.compare.fitting.single_layer import StitchOptions as StitchOptions
from suture.compare.fitting.single_layer import stitch as stitch
from suture.compare.given_names import choose_methods as choose_methods
from suture.compare.kept_run import hold_folder as hold_folder
from suture.compare.key import collect_versions as collect_versions
from suture.compare.key import describe_preparation as describe_preparation
from suture.compare.rehearsal.dry_run import DryRun as DryRun
from suture.compare.rehearsal.dry_run import Ready as Ready
from suture.compare.rehearsal.dry_run import dry_run as dry_run
from suture.compare.rehearsal.dry_run import make_ready as make_ready
from suture.compare.run import compare as compare
from suture.compare.run import compare_prepared as compare_prepared
from suture.compare.run import paper as paper
from suture.compare.scoring.evaluation import Evaluator as Evaluator
from suture.compare.scoring.example_rows import CLASS_EXAMPLES as CLASS_EXAMPLES
from suture.compare.scoring.example_rows import FEWEST_OF_CLASS as FEWEST_OF_CLASS
from suture.compare.scoring.example_rows import MOST_ROWS as MOST_ROWS
from suture.compare.scoring.example_rows import ExampleRows as ExampleRows
from suture.compare.scoring.scores import score_cells as score_cells
from suture.compare.settings import CompareOptions as CompareOptions
from suture.compare.settings import FitSettings as FitSettings
from suture.compare.settings import Settings as Settings
from suture.compare.setup import Setup as Setup
from suture.compare.setup import set_up as set_up
from suture.compare.stitched_network import StitchedNetwork as StitchedNetwork
from suture.compare.stitched_network import load_stitched as load_stitched
