"""The entries of the table of indices: function, definedness and description of each."""

from suture.indices.entries.flattened_cka import explain_not_kept as explain_not_kept
from suture.indices.entries.flattened_cka import explain_too_few_kept as explain_too_few_kept
from suture.indices.entries.flattened_cka import flat_cka as flat_cka
from suture.indices.entries.flattened_cka import flat_cka_debiased as flat_cka_debiased
from suture.indices.entries.registry import INDICES as INDICES
from suture.indices.entries.regression import FOLDS as FOLDS
from suture.indices.entries.regression import merge_into_folds as merge_into_folds
