"""Compare two networks layer by layer, or fit a single stitched network.

- `compare` gives a `Comparison`: structural indices, direct matching, task loss matching and OOD scores of
  every cell, with verdicts, plots and a report.
- `dry_run` uses the same arguments and returns a `DryRun`: sites, shapes, memory and estimated time.
- `paper` returns the arguments of Balogh and Jelasity, AAAI 2025, for `compare` and `stitch`.
- `stitch` fits one stitching layer and returns a `StitchedNetwork`. `load_stitched` reads a saved one.

>>> comparison = suture.compare(network_a, network_b, data=train, test=test)
"""

from suture.compare.api import compare as compare
from suture.compare.api import dry_run as dry_run
from suture.compare.api import paper as paper
from suture.compare.estimate import DryRun as DryRun
from suture.compare.settings import FitSettings as FitSettings
from suture.compare.settings import Settings as Settings
from suture.compare.stitched_network import StitchedNetwork as StitchedNetwork
from suture.compare.stitched_network import load_stitched as load_stitched
from suture.compare.stitched_network import stitch as stitch
