"""What holds for all tests: one thread, also in the processes that they start, and no given width.

The tensors are small. Several threads gain nothing on them, and wait for one another whenever another process
keeps the cores busy, which slows a training down tenfold. Set `OMP_NUM_THREADS` to have it otherwise. PyTorch
reads it when it is loaded, which is after this file.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
# A console takes its width from it for good when it is made, and processes of pytest-xdist have it set.
os.environ.pop("COLUMNS", None)

FAST = {
    "_base": ("errors", "files", "hashing", "runtime", "trees", "option_records"),
    "numbers": ("measures", "records", "intervals", "frechet_distance", "moments", "sampling",
                "pair_moments", "spectra", "resizing"),
    "indices": ("logits", "jackknife", "flattened_cka", "sample", "statistics"),
    "representations": ("recognition", "alignment"),
    "data": ("batch", "batches", "columns", "splits"),
    "networks": ("site_search", "training_recipe", "preparation", "captures", "sites"),
    "zoo": ("image_sets", "weights"),
    "stitching": ("families", "objective_settings", "convergence", "tasks", "direct_matching"),
    "ood": ("auxiliary", "energy_classifier", "features", "options", "detectors"),
    "results": ("measured", "sanity", "verdicts"),
    "compare": ("settings", "data_description", "run", "scores"),
    "cli": ("console",),
    "testing": ("site_laws",),
}
"""Files of every room that cost seconds only; `make test-fast` runs them."""


FILES = {f"{room}/test_{name}.py" for room, names in FAST.items() for name in names}


def _is_fast(path: Path) -> bool:
    return "/".join(path.parts[-2:]) in FILES


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files without fast tests where only those are asked for: importing them takes longer."""
    only_fast = config.getoption("markexpr") == "fast" and collection_path.name.startswith("test_")
    return True if only_fast and collection_path.suffix == ".py" and not _is_fast(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of `FAST`, but for those that are slow."""
    for item in items:
        if _is_fast(item.path) and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.fast)
