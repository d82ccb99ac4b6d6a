"""Structural similarity indices, and functions that compute them from two matrices without a network.

>>> indices.of_matrices(x, y, ["svcca:0.9", "rsa_kendall", my_function], jackknife=20)["svcca:0.9"].value

`INDICES` is the table of all indices; each name of `GROUPS` stands for several.
"""

from suture.indices.computation import Streaming as Streaming
from suture.indices.computation import compute_indices as compute_indices
from suture.indices.computation import count_blocks as count_blocks
from suture.indices.computation import of_blocks as of_blocks
from suture.indices.computation import of_matrices as of_matrices
from suture.indices.computation import of_moments as of_moments
from suture.indices.definition import FROM_MOMENTS as FROM_MOMENTS
from suture.indices.definition import STITCH as STITCH
from suture.indices.definition import TRANSFORMATIONS as TRANSFORMATIONS
from suture.indices.definition import WITHIN as WITHIN
from suture.indices.definition import Index as Index
from suture.indices.definition import Needs as Needs
from suture.indices.definition import Value as Value
from suture.indices.definition import expand_invariances as expand_invariances
from suture.indices.entries import DEFAULT as DEFAULT
from suture.indices.entries import FOLDS as FOLDS
from suture.indices.entries import GROUPS as GROUPS
from suture.indices.entries import INDICES as INDICES
from suture.indices.gram_matrices import PAPER_EXAMPLES as PAPER_EXAMPLES
from suture.indices.gram_matrices import FlatKernels as FlatKernels
from suture.indices.hsic import Kernels as Kernels
from suture.indices.jackknife import Jackknife as Jackknife
from suture.indices.jackknife import choose_group_size as choose_group_size
from suture.indices.logits import of_logits as of_logits
from suture.indices.matrices import ArraySource as ArraySource
from suture.indices.matrices import compare_arrays as compare_arrays
from suture.indices.matrices import open_array_file as open_array_file
from suture.indices.nulls.labels import Groups as Groups
from suture.indices.nulls.labels import Labels as Labels
from suture.indices.nulls.labels import check_count as check_count
from suture.indices.nulls.labels import number_labels as number_labels
from suture.indices.nulls.permutation import NullSource as NullSource
from suture.indices.nulls.preparation import GROUPED as GROUPED
from suture.indices.nulls.preparation import keep_rows as keep_rows
from suture.indices.nulls.preparation import prepare_within as prepare_within
from suture.indices.nulls.record import NullTest as NullTest
from suture.indices.nulls.shuffled_rows import PermutedRows as PermutedRows
from suture.indices.requests import Named as Named
from suture.indices.requests import Names as Names
from suture.indices.requests import Request as Request
from suture.indices.requests import chosen as chosen
from suture.indices.requests import own as own
from suture.indices.sample import Rows as Rows
from suture.indices.sample import Sample as Sample
from suture.indices.saved_moments import merged_moments as merged_moments
from suture.indices.statistics import SITE_COLUMNS as SITE_COLUMNS
from suture.indices.statistics import SiteStatistics as SiteStatistics
from suture.indices.statistics import tabulate_statistics as tabulate_statistics
