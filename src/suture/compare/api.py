"""The public calls from networks and data to a `Comparison`."""

from __future__ import annotations

from typing import Any

from suture._base import takes
from suture.compare.estimate import DryRun, estimate_run
from suture.compare.run import Run
from suture.compare.settings import CompareOptions
from suture.compare.setup import Setup, set_up
from suture.representations import AlignmentRule
from suture.results import Comparison
from suture.stitching import FULL, TaskRecipe


@takes(CompareOptions)
def compare(given: CompareOptions) -> Comparison:
    """Compare two networks layer by layer.

    One pass over `data` gives the moments of all cells, and from them every index and every direct-matching
    layer. Task loss matching trains on `data`. Stitched networks are evaluated on `test`, with an
    out-of-distribution score of each stitched representation (`Comparison.cells`).

    Args:
        {options}

    Raises:
        SutureError: bad input. One line says what was expected, what was given and what to write instead.
    """
    run = Run(_set_up(given), given.previous)
    result = None
    for stage in run.list_stages():
        run.run_stage(stage)
        result = run.make_result()
        if given.on_stage:
            given.on_stage(result)
    return run.make_result() if result is None else result


@takes(CompareOptions)
def dry_run(given: CompareOptions) -> DryRun:
    """Return sites, shapes, memory of the sums and estimated time of `compare` with the same arguments.

    One micro-batch passes every stage twice. `on_stage` and `previous` are ignored.

    Args:
        {options}

    Raises:
        SutureError: bad input, as by `compare`.
    """
    return estimate_run(_set_up(given))


def _set_up(given: CompareOptions) -> Setup:
    return set_up(given.source, given.target, given.data, given.test, given)


def paper(seed: int = 0) -> dict[str, Any]:
    """Return the arguments of `compare` and `suture.stitch` for the setup of Balogh and Jelasity, AAAI 2025.

    >>> suture.compare(network, data=train, test=test, **suture.paper())

    In the paper (arXiv 2412.11299), the map is a bilinear resize to the target's size, then a full affine map
    (one for all tokens). Direct matching uses the first 100 examples of `data`, which should not be
    augmented. Task loss matching uses `TaskRecipe.paper`. Functional DM is ``dm.accuracy``, structural DM is
    ``dm.residual_batches``.

    Two errors of the published code are not repeated. Its float32 pseudo-inverse drops more directions the
    more rows there are. Its residual belongs to another map than the stitching layer.

    The paper's detectors take hours, so they are not included. To add them, write
    ``ood=suture.OOD(("energy",), energy=suture.EnergyRecipe.paper(), auxiliary=random_images,
    store="detectors")``.

    Args:
        seed: seed of initialisations, the order of the data and the augmentation.
    """
    return {"family": FULL, "alignment": AlignmentRule(resize="bilinear", order="before", prefix="auto"),
            "examples": 100, "tlm": TaskRecipe.paper(seed), "seed": seed}
