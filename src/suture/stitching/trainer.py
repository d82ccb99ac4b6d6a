"""Training of stitching layers by gradient, all together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from suture._base import NO_KEEPER, Keeper, KeptPass, Progress, SutureError, derive_seed, expect
from suture.data import Batch, Batches, go_on, move_batch, split_rows
from suture.networks import SitedNetwork, disable_gradients, make_optimizer, set_rate
from suture.stitching.grouped_pass import (
    BatchSums,
    Grads,
    GroupedPass,
    LayerKey,
    Layers,
    list_trainable,
    sort_by_target,
)
from suture.stitching.layer import StitchingLayer
from suture.stitching.objective import TaskRecipe, augment_batch, check_batch
from suture.stitching.tasks import Task
from suture.stitching.training_state import Best, Curves, TrainingState

_HELD_OUT = "held-out data"
LEAST_IMPROVEMENT = 1e-4
"""Smallest relative fall of the held-out objective that is an improvement, well above rounding."""


def make_training_batches(data: Any, recipe: TaskRecipe, device: torch.device | None = None,
                          complete: Callable[[Batch], Batch] | None = None,
                          ) -> tuple[Batches, Batches | None]:
    """Return the batches that layers are fitted to, and the held-out batches of early stopping or None.

    `data` may have any form that `Batches` accepts; raw examples are prepared on `device` (and by `complete`,
    see there). Early stopping on
    a loader raises a `SutureError`, because its examples have no index to split by.
    """
    fit: dict[str, Any] = {"size": recipe.batch_size, "shuffle": True, "seed": recipe.seed, "device": device,
                           "complete": complete}
    if recipe.patience is None:
        return Batches(data, **fit), None
    rows = split_rows(data, recipe.held_out, derive_seed(recipe.seed, "held out", ""))
    if rows is None:
        raise SutureError("early stopping needs data that can be split: pass a Dataset or (inputs, labels), "
                          f"got {type(data).__name__}; or write patience=None")
    return (Batches(data, rows=rows[0], **fit),
            Batches(data, size=recipe.batch_size, rows=rows[1], device=device, complete=complete))


class GroupTrainer:
    """Training of many stitching layers at once, with the same steps as each would make alone (law 5).

    The layers share only the passes of the networks (`GroupedPass`). Each has its own gradients, optimiser
    state and early stopping. If one stops or fails, the others continue.

    Args:
        source, target: networks with their sites, frozen (`suture.networks.freeze`), on one device. For
            self-stitching, one object.
        layers: on the device, with initial weights; `init` and `seeds` of the recipe are not applied here.
        recipe: settings.
        micro_batch: maximum number of examples that pass a whole network at once without gradients.
        task: of the target's output.
    """

    def __init__(self, source: SitedNetwork, target: SitedNetwork, layers: Layers, recipe: TaskRecipe,
                 micro_batch: int, task: Task = Task.CLASSIFICATION) -> None:
        self.layers, self.recipe, self.task = sort_by_target(layers), recipe, task
        self._pass = GroupedPass(source, target, recipe, micro_batch, task)
        moving = [p for layer in self.layers.values() for p in list_trainable(layer)]
        # One optimiser for all layers: its state is per parameter, and it skips those without a gradient.
        self._optimizer = make_optimizer(moving, recipe) if moving else None

    def fit(self, batches: Batches, device: torch.device, progress: Progress | None = None,
            held_out: Batches | None = None, keeper: Keeper = NO_KEEPER) -> Curves:
        """Train the layers and return their curves.

        Args:
            batches: the fitting data.
            device: of networks and layers.
            progress: called as ``progress("task loss matching", steps done, steps)``.
            held_out: data for early stopping (`make_training_batches`).
            keeper: keeps layers, optimiser and all else that training has changed.

        Raises:
            SutureError: labels that are missing or outside the classes, crops of inputs that are no images,
                patience without held-out data, one example that does not fit the memory.
        """
        recipe = self.recipe
        expect(recipe.patience is None or held_out is not None, "held-out data for early stopping", "none",
               "write patience=None")
        made = TrainingState(curves=Curves({c: [] for c in self.layers}, {c: [] for c in self.layers}),
                             generator=torch.Generator().manual_seed(
                                 derive_seed(recipe.seed, "augmentation", "")),
                             active=[*self.layers], length=batches.count_batches())
        state = {"training": made, "layers": self.layers, "optimizer": self._optimizer,
                 "micro_batch": self._pass.micro_batch}
        with keeper.keep("task loss matching", state, "tlm") as kept:
            kept.fill()
            while made.epoch < recipe.epochs and made.active:
                self._train_epoch(batches, device, made, kept, progress)
                self._record_epoch(made)
                if held_out is not None and recipe.patience is not None:
                    self._stop_early(self._measure_held_out(held_out, device, made, keeper), recipe.patience,
                                     made)
                made.end_epoch(batches)
                made.sums, made.length = [], batches.count_batches()
                kept.step(made.steps, now=keeper.has(_name_held_out(made.epoch)))
                keeper.finish(_HELD_OUT)
            kept.finish(made.steps)
        made.set_order(batches)  # which a finished checkpoint has not moved on
        with torch.no_grad():
            for c, best in made.best.items():
                for p, value in zip(list_trainable(self.layers[c]), best.weights, strict=True):
                    p.copy_(value)
        self._check_weights(made)
        made.curves.notes.extend(self._pass.micro_batch.notes)
        return made.curves

    def compute_objective(self, batches: Batches, device: torch.device, layers: Layers,
                          progress: Progress | None = None, keeper: Keeper = NO_KEEPER,
                          name: str = "checking convergence", stage: str = "tlm") -> dict[LayerKey, float]:
        """Return the mean objective of each layer on any data, without penalty, crops and flips.

        `name` and `stage` are those of the kept pass.
        """
        layers = sort_by_target(layers)
        sums: list[BatchSums] = []
        with disable_gradients(), keeper.keep(name, {"sums": sums}, stage) as kept:
            for k, batch in go_on(batches, kept):
                check_batch(batch, self.recipe, self.task)
                sums.append(self._pass.run(layers, move_batch(batch, device), device, backward=False,
                                           check=True)[1])
                if progress:
                    progress("checking convergence", k + 1, batches.count_batches())
        examples = _count_scored(sums)
        losses = torch.stack([s.loss for s in sums]).sum(0).tolist()
        return {c: loss / examples for c, loss in zip(layers, losses, strict=True)}

    def _train_epoch(self, batches: Batches, device: torch.device, made: TrainingState, kept: KeptPass,
                     progress: Progress | None) -> None:
        epoch, epochs, total = made.epoch, self.recipe.epochs, made.length
        active = self._get_active(made)
        for k, raw in made.read(batches, kept):
            check_batch(raw, self.recipe, self.task)
            batch = augment_batch(move_batch(raw, device), self.recipe, made.generator)
            # Checking labels on an accelerator waits for it, so it is done in the first epoch only.
            grads, found = self._pass.run(active, batch, device, backward=True, check=epoch == 0)
            # Without a known length the schedule steps once per epoch.
            done, of = (epoch, epochs) if total is None else (epoch * total + k, epochs * total)
            self._step(active, grads, done, of)
            made.steps, made.batch = made.steps + 1, k + 1
            made.sums.append(found)
            if progress:
                progress("task loss matching", epoch * (total or 0) + k + 1,
                         None if total is None else total * epochs)

    def _measure_held_out(self, held_out: Batches, device: torch.device, made: TrainingState,
                          keeper: Keeper) -> dict[LayerKey, float]:
        return self.compute_objective(held_out, device, self._get_active(made), keeper=keeper,
                                      name=_name_held_out(made.epoch + 1), stage=_HELD_OUT)

    def _get_active(self, made: TrainingState) -> dict[LayerKey, StitchingLayer]:
        return {c: self.layers[c] for c in made.active}

    def _step(self, active: Layers, grads: Grads, done: int, of: int) -> None:
        if self._optimizer is None:
            return
        lr = set_rate(self._optimizer, self.recipe, done, of)
        self._optimizer.zero_grad()
        for c, found in grads.items():
            for p, g in zip(list_trainable(self.layers[c]), found, strict=True):
                p.grad = g
        self._optimizer.step()
        for layer in active.values():
            layer.shrink(lr)

    def _record_epoch(self, made: TrainingState) -> None:
        """Add the sums of an epoch to the curves, and drop cells whose objective was not finite."""
        sums, curves = made.sums, made.curves
        examples, labelled = _count_scored(sums), all(s.labelled for s in sums)
        losses, hits = torch.stack([s.loss for s in sums]), torch.stack([s.hits for s in sums]).sum(0)
        broken = ~torch.isfinite(losses)
        found = zip(made.active, losses.sum(0).tolist(), hits.tolist(), broken.any(0).tolist(),
                    broken.int().argmax(0).tolist(), strict=True)
        for c, loss, right, fails, first in found:
            curves.loss[c].append(loss / examples)
            curves.accuracy[c].append(right / examples if labelled else math.nan)
            if fails:
                step = made.steps - len(sums) + first + 1
                curves.failed[c] = (f"the task loss is not finite at step {step} (epoch {made.epoch + 1}) at "
                                    f"learning rate {self.recipe.lr:g}; use a smaller one")
        made.drop(curves.failed)

    def _stop_early(self, now: Mapping[LayerKey, float], patience: int, made: TrainingState) -> None:
        """Record held-out objectives and best weights, and drop layers that no longer improve."""
        curves, best = made.curves, made.best
        for c, value in now.items():
            curve, old = curves.held_out.setdefault(c, []), best.get(c)
            curve.append(value)
            if math.isfinite(value) and (old is None
                                         or value < old.value - LEAST_IMPROVEMENT * abs(old.value)):
                weights = [p.detach().clone() for p in list_trainable(self.layers[c])]
                best[c] = Best(value, len(curve), weights)
            elif patience <= len(curve) - (old.epochs if old else 0) and len(curve) < self.recipe.epochs:
                curves.stopped[c] = len(curve)
        made.drop(curves.stopped)

    def _check_weights(self, made: TrainingState) -> None:
        # The last step may break a layer, and no later loss would show it.
        failed = made.curves.failed
        for c, layer in self.layers.items():
            if c not in failed and not all(bool(torch.isfinite(p).all()) for p in layer.parameters()):
                failed[c] = (f"the weights are not finite after step {made.steps} at learning rate "
                             f"{self.recipe.lr:g}; use a smaller one")


def _name_held_out(epochs: int) -> str:
    # A pass of another epoch must not go on from a checkpoint that a killed run has left.
    return f"{_HELD_OUT} after epoch {epochs}"


def _count_scored(sums: Sequence[BatchSums]) -> int:
    examples = sum(s.examples for s in sums)
    expect(examples > 0, "scored tokens in the data", "none",
           "give texts of at least two tokens, and labels that are not all -100")
    return examples
