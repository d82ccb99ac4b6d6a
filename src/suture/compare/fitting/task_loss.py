"""The stage of task loss matching: train the layers of all cells, and mark those not converged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from suture._base import derive_seed
from suture.compare.records import Findings, Fitted, FittedMap, pack_maps, stack_cells
from suture.compare.scoring.evaluation import Evaluator
from suture.compare.scoring.scores import score_cells
from suture.compare.setup import Setup, report_network_errors
from suture.numbers import NumericalError
from suture.representations import Cell
from suture.results import describe_marks
from suture.stitching import (
    Curves,
    GroupTrainer,
    LayerKey,
    Layers,
    StitchingLayer,
    Task,
    collect_own_layers,
    find_unconverged,
    merge_marks,
    stack_curves,
)


@dataclass(frozen=True)
class Trained:
    """Stitching layers trained on the task loss from one initialisation.

    Attributes:
        maps: of all layers as training left them, also of failed ones.
        curves: learning curves by cell.
        objectives: final objectives on the fitting data of "tlm" and "dm" layers; empty where they cannot be
            compared.
        own: own layers of target sites, by number, that were trained beside the cells
            (`list_own_layers`), but for failed ones.
    """

    maps: Mapping[Cell, FittedMap]
    curves: Curves
    objectives: Mapping[str, Mapping[Cell, float]]
    own: Mapping[int, StitchingLayer]


@dataclass(frozen=True)
class Training:
    """The training of all cells: one `Trained` for each initialisation, and the cells without a layer."""

    runs: Sequence[Trained]
    unfit: Mapping[Cell, str]

    @cached_property
    def failed(self) -> dict[Cell, str]:
        """The cells without a network to evaluate, with the reason: those of which any layer failed."""
        found = dict(self.unfit)
        for number, run in enumerate(self.runs, 1):
            which = f"initialisation {number} of {len(self.runs)}: " if len(self.runs) > 1 else ""
            for key, why in run.curves.failed.items():
                found.setdefault((key[0], key[1]), which + why)
        return found

    @property
    def fitted(self) -> list[Fitted]:
        """By initialisation, the maps of the cells that did not fail, and the reasons of the others."""
        return [Fitted({c: m for c, m in run.maps.items() if c not in self.failed}, self.failed)
                for run in self.runs]


def list_own_layers(setup: Setup) -> list[int]:
    """Return the target sites whose own layers are trained beside the cells, for the marks alone.

    Where both networks are one, the mark of a cell needs the own layer of its target, which other cells do
    not hold. Marks must not depend on which cells are computed.
    """
    held = setup.source is setup.target
    return [] if held or not setup.one_network or setup.task is Task.NONE else [*range(setup.shape[1])]


def make_layers(setup: Setup, start: Mapping[Cell, StitchingLayer]
                ) -> tuple[dict[LayerKey, StitchingLayer], dict[Cell, str]]:
    """Return the initial layers of all cells and initialisations, and the own layers (`LayerKey`).

    `start` are the layers of direct matching. Cells whose first map cannot be drawn have a reason instead.
    """
    target, device = setup.target, setup.settings.torch_device
    sources = [*map(str, setup.source.sites), *map(str, target.sites)]
    layers: dict[LayerKey, StitchingLayer] = {}
    failed: dict[Cell, str] = {}
    own = [(setup.shape[0] + j, j) for j in list_own_layers(setup)]
    for run, (i, j) in product(range(setup.settings.recipe.seeds), [*start, *own]):
        try:
            layer = setup.make_layer((i, j)) if (i, j) in start else setup.make_own_layer(j)
            _initialise_layer(setup, layer, (sources[i], str(target.sites[j])), run, start.get((i, j)))
            layers[i, j, run] = layer.to(device)
        except NumericalError as e:
            failed[i, j] = str(e)
    return ({key: layer for key, layer in layers.items() if key[:2] not in failed},
            {c: why for c, why in failed.items() if c in start})


def _initialise_layer(setup: Setup, layer: StitchingLayer, sites: tuple[str, str], run: int,
                      matched: StitchingLayer | None) -> None:
    recipe = setup.settings.recipe
    if recipe.init == "random":
        layer.init_random(derive_seed(recipe.seed + run, *sites))
    elif recipe.init == "identity" or matched is None:  # direct matching of a site to itself is the identity
        layer.init_identity()
    else:
        layer.load_state_dict(matched.state_dict())


def train(setup: Setup, matched: Fitted) -> Training:
    """Train stitching layers for each cell that direct matching solved, one for each initialisation."""
    assert setup.data.training is not None
    settings, (batches, held_out) = setup.settings, setup.data.training
    start, failed = matched.make_layers(setup)
    layers, undrawn = make_layers(setup, start)
    start = {c: layer for c, layer in start.items() if c not in undrawn}
    trainer = GroupTrainer(setup.source, setup.target, layers, settings.recipe, setup.micro_batch, setup.task)
    with report_network_errors("data", IndexError):
        curves = trainer.fit(batches, settings.torch_device, settings.tell_progress, held_out, setup.keeper)
    ends = {}
    # After one epoch every cell is marked anyway. Under a penalty the trained layer need not be better.
    if settings.recipe.epochs > 1 and not settings.affine_family.penalised:
        kinds: dict[str, Layers] = {
            "tlm": {k: layer for k, layer in layers.items() if k[:2] in start and k not in curves.failed}}
        kinds["dm"] = {k[:2]: start[k[0], k[1]] for k in kinds["tlm"]}
        ends = {name: trainer.compute_objective(batches, settings.torch_device, of, settings.tell_progress,
                                                setup.keeper)
                for name, of in kinds.items() if of}
    return Training([_take_run(setup, run, layers, curves, ends) for run in range(settings.recipe.seeds)],
                    {**failed, **undrawn})


def _take_run(setup: Setup, run: int, layers: Layers, curves: Curves,
              ends: Mapping[str, Mapping[LayerKey, float]]) -> Trained:
    """Return what the training of all layers found for one initialisation."""
    first = setup.shape[0]
    cells: dict[LayerKey, Cell] = {k: (k[0], k[1]) for k in layers if k[0] < first and k[2] == run}

    def take(of: Mapping[LayerKey, Any]) -> dict[Any, Any]:
        return {c: of[k] for k, c in cells.items() if k in of}

    maps = {c: FittedMap(m.weight.detach(), m.bias.detach()) for c, m in take(layers).items()}
    own = {k[1]: m for k, m in layers.items() if k[0] >= first and k[2] == run and k not in curves.failed}
    mine = Curves(take(curves.loss), take(curves.accuracy), take(curves.held_out), take(curves.failed),
                  take(curves.stopped), curves.notes)
    objectives = {} if not ends else {"tlm": take(ends["tlm"]), "dm": {
        c: ends["dm"][c] for c in cells.values() if c in ends["dm"] and c not in mine.failed}}
    return Trained(maps, mine, objectives, own)


def measure_own_layers(setup: Setup, training: Training, tested: Findings) -> dict[str, float]:
    """Return the relative accuracy (without labels: agreement) of own layers by site, the mean over runs.

    `tested` holds the evaluation of the cells. Own layers beside them need a pass over the test data.
    """
    if setup.source is setup.target:
        return collect_own_layers(tested.rows)
    found = [_score_own_layers(setup, run.own) for run in training.runs if run.own]
    return {site: float(np.mean([of[site] for of in found if site in of]))
            for site in dict.fromkeys(site for of in found for site in of)}


def _score_own_layers(setup: Setup, own: Mapping[int, StitchingLayer]) -> dict[str, float]:
    settings, target = setup.settings, setup.target
    layers = {(j, j): layer for j, layer in own.items()}
    evaluator = Evaluator(target, target, layers, setup.pieces, None, setup.task)
    found = evaluator.run(setup.data.test, settings.torch_device, settings.tell_progress,
                          "evaluating own layers", setup.keeper)
    count = len(target.sites)
    others = {(i, j): "no own layer" for i in range(count) for j in range(count) if i != j or j not in own}
    names = [str(s) for s in target.sites]
    return collect_own_layers({"source": names[r.i], "target": names[r.j], "measure": r.measure,
                               "value": r.value.value, "reason": r.value.reason}
                              for r in score_cells(found, "tlm", settings.seed, others))


def find_marks(setup: Setup, training: Training, own: Mapping[str, float]) -> dict[Cell, str]:
    """Return a mark for every cell that has not converged; `own` is from `measure_own_layers`."""
    recipe, targets = setup.settings.recipe, [str(s) for s in setup.target.sites]
    marks = merge_marks([find_unconverged(run.curves, recipe, own=own, ends=run.objectives.get("tlm"),
                                          matched=run.objectives.get("dm"), targets=targets)
                         for run in training.runs])
    return {c: mark for c, mark in marks.items() if c not in training.failed}


def describe_training(setup: Setup, training: Training, marks: Mapping[Cell, str]) -> Findings:
    """Return the findings of training: layers, learning curves, notes."""
    recipe = setup.settings.recipe
    arrays: dict[str, Any] = {}
    for number, run in enumerate(training.runs):
        name = f"tlm.run{number}" if number else "tlm"
        arrays |= pack_maps(name, Fitted(run.maps, {}))
        arrays |= stack_curves(run.curves, setup.shape, recipe.epochs, name)
        arrays |= {f"{name if method == 'tlm' else method}.objective": stack_cells(of, setup.shape)
                   for method, of in run.objectives.items()}
    notes = list(training.runs[0].curves.notes)
    if len(training.runs) == 1:
        notes.append("task loss matching has one initialisation: its intervals hold test examples only"
                     + ("; write TaskRecipe(seeds=3)" if recipe.init == "random" else ""))
    if marks:
        count = len(setup.cells) - len(training.failed)
        notes.append(f"task loss matching has not converged: {describe_marks(marks.values(), count)}; with "
                     "longer training their test scores may rise or fall")
    return Findings(arrays=arrays, notes=notes)
