"""The stage of task loss matching: train the layers of all cells, evaluate them, mark unconverged ones."""

from __future__ import annotations

import numpy as np

from suture.compare.collect import report_network_errors
from suture.compare.evaluation_stage import evaluate_method
from suture.compare.run import Run
from suture.representations import Cell
from suture.results import describe_marks
from suture.stitching import (
    Curves,
    GroupTrainer,
    StitchingLayer,
    collect_own_layers,
    derive_cell_seed,
    find_unconverged,
    mark_rows,
    stack_curves,
)


def match_task_loss(run: Run) -> None:
    """Train the stitching layers of all cells, evaluate them, and mark those that have not converged."""
    curves, ends = train_layers(run)
    evaluate_method(run, "tlm", run.excluded | curves.failed)
    own = collect_own_layers(run.rows) if run.source is run.target else {}
    sources, targets = ([str(s) for s in n.sites] for n in (run.source, run.target))
    found = find_unconverged(curves, run.settings.recipe, own=own, ends=ends.get("tlm"),
                             matched=ends.get("dm"), targets=targets)
    mark_rows(run.rows, sources, targets, found)
    if found:
        trained = len(run.cells) - len(run.excluded | curves.failed)
        run.notes.append("task loss matching has not converged: "
                          f"{describe_marks(found.values(), trained)}; train longer before "
                          "reading the TLM map")


def train_layers(run: Run) -> tuple[Curves, dict[str, dict[Cell, float]]]:
    """Train the stitching layers of all cells, and return learning curves and final objectives."""
    assert run.training_batches is not None
    recipe, device = run.settings.recipe, run.settings.device
    layers = {c: _initialise_layer(run, *c) for c in run.cells if c not in run.excluded}
    trainer = GroupTrainer(run.source, run.target, layers, recipe, run.micro_batch, run.task)
    with report_network_errors("data", IndexError):
        curves = trainer.fit(run.training_batches[0], device, run.settings.progress,
                             run.training_batches[1])
    for (i, j), layer in layers.items():
        fitted = {"weight": layer.weight, "bias": layer.bias}
        run.arrays |= {f"tlm.{k}/{i}/{j}": v.detach().cpu().numpy() for k, v in fitted.items()}
    run.arrays |= stack_curves(curves, (len(run.source.sites), len(run.target.sites)), recipe.epochs)
    run.notes += curves.notes
    return curves, _compute_objectives(run, trainer,
                                       {c: m for c, m in layers.items() if c not in curves.failed})


def _initialise_layer(run: Run, i: int, j: int) -> StitchingLayer:
    recipe = run.settings.recipe
    if recipe.init == "dm":
        return run.restore_layer("dm", i, j)
    layer = run.make_layer(i, j)
    seed = derive_cell_seed(recipe.seed, str(run.source.sites[i]), str(run.target.sites[j]))
    made = layer.init_identity() if recipe.init == "identity" else layer.init_random(seed)
    return made.to(run.settings.device)


def _compute_objectives(run: Run, trainer: GroupTrainer,
                        trained: dict[Cell, StitchingLayer]) -> dict[str, dict[Cell, float]]:
    """Return the objectives of the trained and the direct matching layers on the fitting data.

    The result is empty if the comparison says nothing. After a single epoch every cell is marked anyway.
    Under a penalty the trained layer need not be better.
    """
    assert run.training_batches is not None
    if (run.settings.recipe.epochs == 1 or run.settings.family.name in ("ridge", "sparse")
        or not trained):
        return {}
    kinds = {"tlm": trained, "dm": {c: run.restore_layer("dm", *c) for c in trained}}
    found = {name: trainer.compute_objective(run.training_batches[0], run.settings.device, layers,
                                             run.settings.progress) for name, layers in kinds.items()}
    for name, values in found.items():
        array = np.full((len(run.source.sites), len(run.target.sites)), np.nan)
        for c, value in values.items():
            array[c] = value
        run.arrays[f"{name}.objective"] = array
    return found
