"""What holds for all tests: one thread, also in the processes that they start, and no given width.

The tensors are small. Several threads gain nothing on them, and wait for one another whenever another process
keeps the cores busy, which slows a training down tenfold. So it is one thread whatever `OMP_NUM_THREADS`
says, which libraries read when they are loaded, after this file. Tests of several threads ask for them.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
# A console takes its width from it for good when it is made, and processes of pytest-xdist have it set.
os.environ.pop("COLUMNS", None)
# A shell starts jobs in the background with Ctrl-C ignored, and so are their processes.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
    "specs": ("specs", "specs_image_processors"),
    "studies": ("controls", "measure_tests", "network_inference", "probes", "sensitivity", "spec",
                "validate"),
    "cli": ("console",),
    "testing": ("site_laws",),
}
"""Files of every room that cost seconds only; `make test-fast` runs them."""


LONG = (
    "golden/test_golden.py", "representations/test_accumulators.py", "tests/test_laws.py",
    "ood/test_detection.py", "compare/test_kept_run.py", "studies/test_study.py", "stitching/test_layer.py",
    "studies/test_validate.py", "studies/test_engines.py", "compare/test_unsolved.py",
    "compare/test_arrays.py", "studies/test_hurt_studies.py", "stitching/test_trainer.py",
    "numbers/test_roc.py", "compare/test_chance.py", "compare/test_token_scores.py",
    "compare/test_encoder_decoders.py", "compare/test_reuse.py", "results/test_figures.py",
    "compare/test_outputs.py", "ood/test_energy.py", "testing/test_index_laws.py",
    "studies/test_group_passes.py", "compare/test_out_of_memory.py", "specs/test_specs_networks.py",
    "cli/test_stitching_commands.py", "networks/test_tails.py", "cli/test_demo.py",
)
"""Files that take longest, begun first (in the order of `make test`)."""


FILES = {f"{room}/test_{name}.py" for room, names in FAST.items() for name in names}


def _is_fast(path: Path) -> bool:
    return "/".join(path.parts[-2:]) in FILES


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files without fast tests where only those are asked for: importing them takes longer."""
    only_fast = config.getoption("markexpr") == "fast" and collection_path.name.startswith("test_")
    return True if only_fast and collection_path.suffix == ".py" and not _is_fast(collection_path) else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without looking for garbage: thousands of tests are made, and all of them stay.

    Later it is looked for less often than by default. Compiled files are kept here even if
    `PYTHONDONTWRITEBYTECODE` is set: each process would compile the sources, and rewrite the tests, anew.
    """
    gc.disable()
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = kept
        gc.freeze()
        gc.set_threshold(10_000)  # of 700, which cost 5 to 13 % of the time of tests that make records
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of `FAST`, but for those that are slow; files that take long come first.

    Two processes end together only if neither begins a long file when the other has no more.
    """
    for item in items:
        if _is_fast(item.path) and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.fast)
    rank = {name: k for k, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get("/".join(item.path.parts[-2:]), len(LONG)))


@pytest.fixture(autouse=True, scope="session")
def few_held_out() -> Iterator[None]:
    """Measure detectors on 60 auxiliary examples that are made, where it is 500 for users.

    It is three times as many as a quality counts from, and a fourth of a small comparison would go by.
    """
    from suture.ood import auxiliary

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auxiliary, "HELD_OUT", 60)
        yield


@pytest.fixture(autouse=True, scope="session")
def short_waits() -> Iterator[None]:
    """Wait shortly, not 5 s, for the workers of a loader that has failed, whenever it is thrown away."""
    from torch.utils.data import _utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
        yield


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Undo what an earlier test asked for."""
    import torch

    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
