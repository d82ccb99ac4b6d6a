"""The table of indices, collected from the entries of each kind."""

from __future__ import annotations

from collections.abc import Mapping

from suture.indices import statistics
from suture.indices.definition import Index, collect_entries
from suture.indices.entries import (
    cca,
    cka,
    distances,
    flattened_cka,
    overlap,
    procrustes,
    regression,
    rsa,
    unit_matching,
)

INDICES: Mapping[str, Index] = collect_entries(
    cka.ENTRIES, cca.ENTRIES, procrustes.ENTRIES, regression.ENTRIES, overlap.ENTRIES, unit_matching.ENTRIES,
    rsa.ENTRIES, statistics.ENTRIES, distances.ENTRIES, flattened_cka.ENTRIES)
"""Every index by name."""
