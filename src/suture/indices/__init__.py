"""Structural similarity indices: the table, and functions that compute them without any network.

>>> from suture import indices
>>> indices.of_matrices(x, y)["cka"].value
>>> indices.of_matrices(x, y, ["svcca:0.9", "rsa_kendall", my_function], jackknife=20)

Names, arguments and groups are in `suture.indices.table`. `INDICES` describes each index.
"""

from suture.indices.computation import of_blocks as of_blocks
from suture.indices.computation import of_matrices as of_matrices
from suture.indices.computation import of_moments as of_moments
from suture.indices.definition import Index as Index
from suture.indices.definition import Needs as Needs
from suture.indices.definition import Value as Value
from suture.indices.entries import FOLDS as FOLDS
from suture.indices.entries import INDICES as INDICES
from suture.indices.entries import merge_into_folds as merge_into_folds
from suture.indices.flat_kernels import FlatKernels as FlatKernels
from suture.indices.gram_matrices import Kernels as Kernels
from suture.indices.logits import of_logits as of_logits
from suture.indices.matrices import compare_arrays as compare_arrays
from suture.indices.matrices import merged_moments as merged_moments
from suture.indices.sample import Rows as Rows
from suture.indices.sample import Sample as Sample
from suture.indices.statistics import SITE_COLUMNS as SITE_COLUMNS
from suture.indices.statistics import SiteStatistics as SiteStatistics
from suture.indices.statistics import tabulate_statistics as tabulate_statistics
from suture.indices.streaming import Streaming as Streaming
from suture.indices.streaming import compute_indices as compute_indices
from suture.indices.streaming import count_blocks as count_blocks
from suture.indices.table import DEFAULT as DEFAULT
from suture.indices.table import FLAT_INDICES as FLAT_INDICES
from suture.indices.table import FROM_MOMENTS as FROM_MOMENTS
from suture.indices.table import GROUPS as GROUPS
from suture.indices.table import STITCH as STITCH
from suture.indices.table import Named as Named
from suture.indices.table import Request as Request
from suture.indices.table import chosen as chosen
from suture.indices.table import own as own
