"""The stage of task loss matching: train the layers of all cells, and mark those not converged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from suture._base import derive_seed
from suture.compare.records import Findings, Fitted, FittedMap, pack_maps, stack_cells
from suture.compare.setup import Setup, report_network_errors
from suture.representations import Cell
from suture.results import describe_marks
from suture.stitching import (
    Curves,
    GroupTrainer,
    StitchingLayer,
    collect_own_layers,
    find_unconverged,
    stack_curves,
)


@dataclass(frozen=True)
class Trained:
    """Stitching layers trained on the task loss.

    Attributes:
        weights: maps of all layers as training left them, also of failed ones.
        curves: learning curves.
        objectives: final objectives on the fitting data of "tlm" and "dm" layers; empty where they cannot be
            compared.
    """

    weights: Fitted
    curves: Curves
    objectives: Mapping[str, Mapping[Cell, float]]

    @property
    def fitted(self) -> Fitted:
        """Maps of the cells that did not fail, and the reasons of the others."""
        failed = self.curves.failed
        return Fitted({c: m for c, m in self.weights.maps.items() if c not in failed},
                      {**self.weights.failed, **failed})


def train(setup: Setup, matched: Fitted) -> Trained:
    """Train one stitching layer for each cell that direct matching solved."""
    assert setup.data.training is not None
    settings, (batches, held_out) = setup.settings, setup.data.training
    start = matched.make_layers(setup)
    layers = {c: _initialise_layer(setup, c, layer) for c, layer in start.items()}
    trainer = GroupTrainer(setup.source, setup.target, layers, settings.recipe, setup.micro_batch, setup.task)
    with report_network_errors("data", IndexError):
        curves = trainer.fit(batches, settings.torch_device, settings.progress, held_out)
    maps = {c: FittedMap(m.weight.detach(), m.bias.detach()) for c, m in layers.items()}
    alive, objectives = [c for c in layers if c not in curves.failed], {}
    # After one epoch every cell is marked anyway. Under a penalty the trained layer need not be better.
    if settings.recipe.epochs > 1 and not settings.affine_family.penalised and alive:
        kinds = {"tlm": {c: layers[c] for c in alive}, "dm": {c: start[c] for c in alive}}
        objectives = {name: trainer.compute_objective(batches, settings.torch_device, of, settings.progress)
                      for name, of in kinds.items()}
    return Trained(Fitted(maps, matched.failed), curves, objectives)


def _initialise_layer(setup: Setup, cell: Cell, matched: StitchingLayer) -> StitchingLayer:
    recipe, layer = setup.settings.recipe, setup.make_layer(cell)
    if recipe.init == "dm":
        layer.load_state_dict(matched.state_dict())
    elif recipe.init == "identity":
        layer.init_identity()
    else:
        layer.init_random(derive_seed(recipe.seed, str(setup.source.sites[cell[0]]),
                                      str(setup.target.sites[cell[1]])))
    return layer.to(setup.settings.torch_device)


def find_marks(setup: Setup, trained: Trained, tested: Findings) -> dict[Cell, str]:
    """Return a mark for every cell that has not converged; `tested` is its evaluation."""
    own = collect_own_layers(tested.rows) if setup.source is setup.target else {}
    return find_unconverged(trained.curves, setup.settings.recipe, own=own,
                            ends=trained.objectives.get("tlm"), matched=trained.objectives.get("dm"),
                            targets=[str(s) for s in setup.target.sites])


def describe_training(setup: Setup, trained: Trained, marks: Mapping[Cell, str]) -> Findings:
    """Return the findings of training: layers, learning curves, notes."""
    arrays = pack_maps("tlm", trained.weights)
    arrays |= stack_curves(trained.curves, setup.shape, setup.settings.recipe.epochs)
    arrays |= {f"{name}.objective": stack_cells(of, setup.shape) for name, of in trained.objectives.items()}
    notes = list(trained.curves.notes)
    if marks:
        notes.append("task loss matching has not converged: "
                     f"{describe_marks(marks.values(), len(trained.fitted.maps))}; train longer before "
                     "reading the TLM map")
    return Findings(arrays=arrays, notes=notes)
