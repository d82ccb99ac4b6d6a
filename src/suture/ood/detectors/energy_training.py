"""Training of the classifiers of energy detectors, at several sites at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from suture._base import (
    SutureError,
    check_classes,
    check_finite,
    convert_tensors,
    count_examples,
    expect,
    list_tensors,
)
from suture.data import Batch, cut_batch, move_batch
from suture.networks import augment, compute_rate_factor, disable_gradients, freeze, make_optimizer
from suture.ood.auxiliary import take_examples
from suture.ood.detector import NativeData
from suture.ood.detectors.energy_classifier import EnergyClassifier, compute_energy_loss, derive_site_seed
from suture.ood.energy_recipe import EnergyRecipe
from suture.ood.sums import ShiftedSums, limit_spread
from suture.representations import View, get_row_mask, get_token_mask, to_grid

LEAST_CHANNEL_STD = 0.01
"""Smallest standard deviation of a channel, relative to the root mean square of all. It limits the scale of a
channel that is almost constant on the native data but not elsewhere."""
_INSTEAD = "choose a detector that needs no classes, such as mahalanobis or neighbours"
FrontOutputs = tuple[list[Tensor], Tensor | None]
"""Representations at the sites, and the token mask (False for padding tokens) or None."""


def train_classifiers(native: NativeData, stream: Iterable[Batch], recipe: EnergyRecipe,
                      sites: Sequence[int]) -> dict[int, EnergyClassifier]:
    """Train a classifier for each of several sites of a network; one front pass per batch serves all of them.

    The network is frozen, and no representation is kept beyond its batch. One pass over the data checks
    labels and measures the spread of each channel. Then each epoch is one pass. The classifier of a site does
    not depend on the other sites. On one CPU, the same seed, data and order give the same classifier, bit for
    bit.

    Args:
        native: the network, and its auxiliary inputs for training. Fine-tuning draws as many as the batch
            has, shuffled and repeated, with the same augmentation.
        stream: re-iterable batches with labels. They decide their shuffling. Batches of one example are
            skipped, because batch norm needs a variance.
        recipe: see `EnergyRecipe`.
        sites: indices of sites.

    Returns:
        Site index -> classifier, on the device, in eval mode and without gradients.

    Raises:
        SutureError: no labels, labels outside the classes or of one class alone; crops or flips of inputs
            that are no images; a body that does not suit a site; representations or a loss that are not
            finite.
    """
    training = _Trainer(native, recipe)
    with freeze(native.target.network), torch.enable_grad():
        training.prepare(stream, list(dict.fromkeys(sites)))
        training.fit(stream)
    return {m.index: m.classifier.eval().requires_grad_(False) for m in training.members}


@dataclass
class _Member:
    """The training of one site."""

    index: int
    name: str
    classifier: EnergyClassifier
    optimizer: torch.optim.Optimizer


class _Trainer:
    """A trainer of all classifiers of a network. They share only the front passes."""

    def __init__(self, native: NativeData, recipe: EnergyRecipe) -> None:
        self.native, self.recipe = native, recipe
        self.members: list[_Member] = []
        self._steps = 0
        self._augmentation = torch.Generator().manual_seed(derive_site_seed(recipe.seed, "augmentation"))
        self._order = torch.Generator().manual_seed(derive_site_seed(recipe.seed, "auxiliary"))
        self._waiting = torch.zeros(0, dtype=torch.int64)

    def prepare(self, stream: Iterable[Batch], sites: Sequence[int]) -> None:
        """Check the data, measure the channels and make the classifiers, in one pass."""
        native, channels, largest = self.native, {j: ShiftedSums() for j in sites}, 0
        found: set[int] = set()
        for batch in stream:
            self._steps += 1
            largest = max(largest, batch.size)
            found |= self._collect_classes(batch.labels)
            if self.recipe.crop or self.recipe.flip:
                shapes = [tuple(t.shape) for t in list_tensors(batch.target)]
                expect(len(shapes) == 1 and len(shapes[0]) == 4, "inputs (N, C, H, W) for crops and flips",
                       " and ".join(map(str, shapes)), "write crop=0, flip=False")
            xs, mask = self._run_front(move_batch(batch, native.device).target, sites)
            for (j, sums), x in zip(channels.items(), xs, strict=True):
                shape = native.target.shapes[j]
                grid, kept = to_grid(x.float(), shape, View.ALL), get_row_mask(shape, View.ALL, mask)
                sums.update(grid.flatten(0, 2) if kept is None else grid[kept])
        expect(len(found) > 1, "labels of at least 2 classes for energy detectors",
               f"only class {min(found, default='none')}", _INSTEAD)
        expect(largest > 1, "batches of at least 2 examples for energy detectors", "single ones",
               f"write batch_size={self.recipe.batch_size}")
        self.members = [self._start(j, sums) for j, sums in channels.items()]

    def _start(self, j: int, channels: ShiftedSums) -> _Member:
        native, name = self.native, str(self.native.target.sites[j])
        mean, squares = channels.compute_overall()
        check_finite(mean, f"the representation at site {name!r}", "look at the inputs, or leave this site out")
        made = EnergyClassifier(native.target.shapes[j], native.classes, self.recipe, native.image_size, name)
        made.mean.copy_(mean[0])
        made.std.copy_(limit_spread(squares.clamp(min=0).sqrt(), LEAST_CHANNEL_STD))
        made.to(native.device).train()
        return _Member(j, name, made, self._make_optimizer(made))

    def fit(self, stream: Iterable[Batch]) -> None:
        """Train all classifiers by the recipe."""
        epochs = self.recipe.epochs + self.recipe.tune_epochs
        for epoch in range(epochs):
            if epoch == self.recipe.epochs:
                for member in self.members:
                    member.optimizer = self._make_optimizer(member.classifier)
            self._check_losses(self._train_epoch(stream, epoch), epoch)
            if self.native.progress:
                self.native.progress("energy detectors", epoch + 1, epochs)

    def _train_epoch(self, stream: Iterable[Batch], epoch: int) -> list[float]:
        """Run one epoch, and return the summed loss of each site."""
        totals = [torch.zeros((), device=self.native.device) for _ in self.members]
        sites = [member.index for member in self.members]
        for k, raw in enumerate(stream):
            if raw.size < 2:
                continue
            batch = move_batch(raw, self.native.device)
            assert batch.labels is not None
            inside = self._run_front(self._augment(batch.target), sites)
            outside = (self._run_front(self._augment(self._draw_auxiliary(batch.size)), sites)
                       if epoch >= self.recipe.epochs else None)
            for i, member in enumerate(self.members):
                for group in member.optimizer.param_groups:
                    group["lr"] = self._compute_rate(epoch, k)
                loss = self._compute_loss(member.classifier, i, inside, outside, batch.labels)
                member.optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                member.optimizer.step()
                totals[i] += loss.detach()
        return [float(t) for t in totals]

    def _compute_loss(self, classifier: EnergyClassifier, i: int, inside: FrontOutputs,
                      outside: FrontOutputs | None, labels: Tensor) -> Tensor:
        (xs, mask), n = inside, len(labels)
        if outside is None:
            return F.cross_entropy(classifier(xs[i], mask), labels)
        # In one batch, so that batch norm uses the statistics of both sides, as in the code of Liu et al.
        logits = classifier(*_concatenate((xs[i], outside[0][i]), (mask, outside[1])))
        return compute_energy_loss(logits[:n], logits[n:], labels, self.recipe)

    def _compute_rate(self, epoch: int, step: int) -> float:
        recipe = self.recipe
        if epoch < recipe.epochs:
            done = epoch * self._steps + min(step, self._steps - 1)
            return recipe.lr * compute_rate_factor(recipe.schedule, done, recipe.epochs * self._steps)
        late = epoch - recipe.epochs >= max(1, recipe.tune_epochs // 2)
        return recipe.tune_lr * (0.1 if late else 1.0)

    def _make_optimizer(self, classifier: EnergyClassifier) -> torch.optim.Optimizer:
        return make_optimizer(classifier.parameters(), self.recipe,
                              fused=self.native.device.type in ("cpu", "cuda"))

    def _run_front(self, inputs: Any, sites: Sequence[int]) -> FrontOutputs:
        with disable_gradients():
            parts = [self.native.target.front(p.target)
                     for p in cut_batch(Batch(inputs, inputs, None), self.native.micro_batch)]
        return [torch.cat([p[j] for p in parts]) for j in sites], get_token_mask(inputs)

    def _augment(self, inputs: Any) -> Any:
        return convert_tensors(inputs,
                               lambda t: augment(t, self._augmentation, self.recipe.crop, self.recipe.flip))

    def _draw_auxiliary(self, n: int) -> Any:
        """Return the next `n` auxiliary examples."""
        m = count_examples(self.native.auxiliary)
        while len(self._waiting) < n:
            self._waiting = torch.cat([self._waiting, torch.randperm(m, generator=self._order)])
        rows, self._waiting = self._waiting[:n], self._waiting[n:]
        return convert_tensors(take_examples(self.native.auxiliary, rows), lambda t: t.to(self.native.device))

    def _collect_classes(self, labels: Tensor | None) -> set[int]:
        if labels is None or labels.ndim != 1:
            raise SutureError("expected labels (N,) for energy detectors, got "
                              f"{'none' if labels is None else tuple(labels.shape)}; {_INSTEAD}")
        check_classes(labels, self.native.classes, "number the classes as the network's outputs, from 0")
        return set(labels.tolist())

    def _check_losses(self, losses: Sequence[float], epoch: int) -> None:
        for member, loss in zip(self.members, losses, strict=True):
            if not math.isfinite(loss):
                name, rate = (("lr", self.recipe.lr) if epoch < self.recipe.epochs
                              else ("tune_lr", self.recipe.tune_lr))
                raise SutureError(
                    f"the loss of the energy detector at site {member.name!r} became {loss} in epoch "
                    f"{epoch + 1} of {self.recipe.epochs + self.recipe.tune_epochs}; try "
                    f"{name}={rate / 10:g}, and look for NaN in the inputs")


def _concatenate(xs: tuple[Tensor, Tensor],
                 masks: tuple[Tensor | None, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """Concatenate the representations of both sides; shorter texts are padded."""
    if xs[0].shape[1:] == xs[1].shape[1:]:
        there = [m for m in masks if m is not None]
        return torch.cat(xs), torch.cat(there) if there else None
    longest = max(x.shape[1] for x in xs)
    kept = [x.new_ones(x.shape[:2], dtype=torch.bool) if m is None else m
            for x, m in zip(xs, masks, strict=True)]
    return (torch.cat([F.pad(x, (0, 0, 0, longest - x.shape[1])) for x in xs]),
            torch.cat([F.pad(m, (0, longest - m.shape[1])) for m in kept]))
