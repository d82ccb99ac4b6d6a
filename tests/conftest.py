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
    "_base": ("errors", "files", "hashing", "memory", "tensor_files", "trees", "checks", "option_records"),
    "numbers": ("measures", "records", "intervals", "frechet_distance", "differences", "moments", "sampling",
                "pair_moments", "shifted_sums", "spectra", "resizing"),
    "indices": ("logits", "jackknife", "flattened_cka", "sample", "statistics"),
    "representations": ("shapes", "alignment"),
    "data": ("batch", "batches", "paired", "labels", "columns", "splits", "sampling"),
    "networks": ("site_names", "recipe", "augmentation", "preparation", "captures", "sites"),
    "zoo": ("image_sets", "weights"),
    "stitching": ("families", "recipe", "convergence", "task_inference", "tasks", "direct_matching"),
    "ood": ("auxiliary", "energy_classifier", "features", "options", "detectors"),
    "results": ("table", "sanity", "cell_verdict"),
    "compare": ("settings", "data_description", "run", "estimate", "evaluate"),
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
