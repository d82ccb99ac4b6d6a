"""The indices, one file for each kind. A new function or a new file needs no change elsewhere."""

from suture.indices.entries.registry import DEFAULT as DEFAULT
from suture.indices.entries.registry import GROUPS as GROUPS
from suture.indices.entries.registry import INDICES as INDICES
from suture.indices.entries.regression import FOLDS as FOLDS
