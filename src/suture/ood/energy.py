"""Energy detectors: of the target network's own logits, and of classifiers that are trained for sites."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import Any, Self

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
from suture.data import Batch, Batches, MicroBatch, move_batch
from suture.networks import (
    augment,
    check_images,
    disable_gradients,
    freeze,
    load_state,
    make_optimizer,
    set_rate,
)
from suture.numbers import ShiftedSums
from suture.ood.auxiliary import take_examples
from suture.ood.detector import Detector, NativeData, NativeSite
from suture.ood.energy_classifier import EnergyClassifier, EnergyRecipe, compute_energy_loss, derive_site_seed
from suture.ood.features import SiteFeatures, limit_spread
from suture.representations import Masks, View, get_row_mask, select_mask, select_output_mask, to_grid

LEAST_CHANNEL_STD = 0.01
"""Smallest standard deviation of a channel, relative to the root mean square of all. It limits the scale of a
channel that is almost constant on native data but not elsewhere."""
_INSTEAD = "choose a detector that needs no classes, such as mahalanobis or neighbours"
FrontOutputs = tuple[list[Tensor], Masks]
"""Representations at the sites, and the token mask (False for padding tokens) or None."""


class TailEnergy(Detector):
    """The log-sum-exp of the target network's logits after a site, averaged over tokens without padding.

    A mask of another shape than the logits belongs to other tokens and is ignored.
    """

    about = ("Minus the energy of the target network's own logits, log sum exp, after the site (Liu et al. "
             "2020).")
    needs_logits = needs_energy = two_sided = True

    def score(self, seen: SiteFeatures) -> Tensor:
        assert seen.logits is not None
        found: Tensor = seen.logits.float().logsumexp(-1)
        if found.ndim == 1:
            return found
        kept = select_output_mask(seen.mask)
        if kept is None or kept.shape != found.shape:
            kept = torch.ones_like(found, dtype=torch.bool)
        return found.masked_fill(~kept, 0).sum(1) / kept.sum(1).clamp(min=1)


class Energy(Detector):
    """Minus the energy of a classifier that is trained on the representations of a site."""

    about = ("Minus the energy of a classifier that is trained on the representations of the site, with an "
             "energy margin between native and auxiliary ones (Liu et al. 2020; Balogh and Jelasity 2025).")
    needs_labels = needs_classes = needs_auxiliary = two_sided = True
    classifier: EnergyClassifier

    def fit(self, native: NativeSite) -> Self:
        return self.fit_sites([native])[0]

    def fit_sites(self, natives: Sequence[NativeSite]) -> list[Self]:
        data = _get_data(natives[0])
        stream = Batches(data.data, size=data.recipe.batch_size, shuffle=True, seed=data.recipe.seed,
                         complete=data.batches.complete)
        made = train_classifiers(data, stream, [n.index for n in natives])
        return [self.copy_with(classifier=made[n.index]) for n in natives]

    def score(self, seen: SiteFeatures) -> Tensor:
        return self.classifier.score(seen)

    def describe_training(self, native: NativeSite) -> dict[str, Any]:
        data = _get_data(native)
        return {"recipe": asdict(data.recipe), "classes": data.classes}

    def get_state(self) -> dict[str, Tensor]:
        return dict(self.classifier.state_dict())

    def restore(self, native: NativeSite, state: Mapping[str, Tensor]) -> Self:
        data = _get_data(native)
        made = EnergyClassifier(native.shape, data.classes, data.recipe, data.image_size, native.name)
        load_state(made, state, f"the stored detector of {native.name}")
        return self.copy_with(classifier=made.eval().requires_grad_(False))


def _get_data(native: NativeSite) -> NativeData:
    assert native.data is not None
    return native.data


def train_classifiers(native: NativeData, stream: Iterable[Batch],
                      sites: Sequence[int]) -> dict[int, EnergyClassifier]:
    """Return a trained classifier by index of the site; all sites share the front passes of the network.

    A first pass checks labels and measures channels; then each epoch is one pass. A site's classifier does
    not depend on the other sites. On one CPU it is the same bit for bit, for the same seed, data and order.

    Args:
        native: the network, the recipe, and auxiliary inputs. Fine-tuning draws as many of these as the
            batch has, shuffled and repeated, with the same augmentation.
        stream: re-iterable batches with labels. Batches of one example are skipped, because batch norm needs
            a variance.
        sites: indices of the sites.
    """
    training = _Trainer(native, list(dict.fromkeys(sites)))
    with freeze(native.target.network), torch.enable_grad():
        training.prepare(stream)
        training.fit(stream)
    return {j: made.eval().requires_grad_(False) for j, made in training.classifiers.items()}


class _Trainer:
    """A trainer of the classifiers of several sites of a network."""

    def __init__(self, native: NativeData, sites: Sequence[int]) -> None:
        self.native, self.recipe, self.sites = native, native.recipe, sites
        self.classifiers: dict[int, EnergyClassifier] = {}
        self._steps = 0
        augmentation, auxiliary = (derive_site_seed(self.recipe.seed, use)
                                   for use in ("augmentation", "auxiliary"))
        self._augmentation = torch.Generator().manual_seed(augmentation)
        self._rows = _draw_rows(count_examples(native.auxiliary), auxiliary)

    def prepare(self, stream: Iterable[Batch]) -> None:
        """Check the data, measure the channels and make the classifiers, in one pass."""
        sums, found, largest = {j: ShiftedSums(pairs=False) for j in self.sites}, set[int](), 0
        for batch in stream:
            self._steps, largest = self._steps + 1, max(largest, batch.size)
            found |= self._collect_classes(batch)
            xs, mask = self._run_front(move_batch(batch, self.native.device).target)
            for j, x in zip(self.sites, xs, strict=True):
                shape = self.native.target.shapes[j]
                grid, kept = to_grid(x.float(), shape, View.ALL), get_row_mask(shape, View.ALL, mask)
                sums[j].update(grid.flatten(0, -2) if kept is None else grid[kept])
        expect(len(found) > 1, "labels of at least 2 classes for energy detectors",
               f"only class {min(found, default='none')}", _INSTEAD)
        expect(largest > 1, "batches of at least 2 examples for energy detectors", "single ones",
               f"write batch_size={self.recipe.batch_size}")
        self.classifiers = {j: self._make_classifier(j, sums[j]) for j in self.sites}

    def _collect_classes(self, batch: Batch) -> set[int]:
        """Return the classes of a batch, after checks of its labels and inputs."""
        if batch.labels is None or batch.labels.ndim != 1:
            got = "none" if batch.labels is None else tuple(batch.labels.shape)
            raise SutureError(f"expected labels (N,) for energy detectors, got {got}; {_INSTEAD}")
        check_classes(batch.labels, self.native.classes, "number the classes as the network's outputs")
        images, *others = list_tensors(batch.target)
        check_images(images, self.recipe)
        expect(not others or not (self.recipe.crop or self.recipe.flip), "one tensor to crop and flip",
               f"{1 + len(others)} tensors", "write crop=0, flip=False")
        return set(batch.labels.tolist())

    def _make_classifier(self, j: int, channels: ShiftedSums) -> EnergyClassifier:
        native, name = self.native, str(self.native.target.sites[j])
        mean, variances = channels.compute_overall()
        check_finite(mean, f"the representation at site {name!r}", "check the inputs, or leave this site out")
        made = EnergyClassifier(native.target.shapes[j], native.classes, self.recipe, native.image_size, name)
        made.mean.copy_(mean[0])
        made.std.copy_(limit_spread(variances.clamp(min=0).sqrt(), LEAST_CHANNEL_STD))
        return made.to(native.device).train()

    def fit(self, stream: Iterable[Batch]) -> None:
        """Train all classifiers by the recipe; fine-tuning starts with new optimisers."""
        recipe, optimizers = self.recipe, self._make_optimizers()
        epochs = recipe.epochs + recipe.tune_epochs
        for epoch in range(epochs):
            option, phase = "lr", recipe
            if epoch >= recipe.epochs:
                late = epoch - recipe.epochs >= max(1, recipe.tune_epochs // 2)
                option, phase = "tune_lr", replace(recipe, lr=recipe.tune_lr * (0.1 if late else 1),
                                                   schedule="constant")
            if epoch == recipe.epochs:
                optimizers = self._make_optimizers()
            losses = self._train_epoch(stream, epoch, phase, optimizers)
            for j, loss in losses.items():
                if not math.isfinite(loss):
                    site = str(self.native.target.sites[j])
                    raise SutureError(f"the loss of the energy detector at site {site!r} became {loss} in "
                                      f"epoch {epoch + 1} of {epochs}; try {option}="
                                      f"{getattr(recipe, option) / 10:g}, and look for NaN in the inputs")
            if self.native.progress:
                self.native.progress("energy detectors", epoch + 1, epochs)

    def _make_optimizers(self) -> dict[int, torch.optim.Optimizer]:
        fused = self.native.device.type in ("cpu", "cuda")
        return {j: make_optimizer(made.parameters(), self.recipe, fused=fused)
                for j, made in self.classifiers.items()}

    def _train_epoch(self, stream: Iterable[Batch], epoch: int, phase: EnergyRecipe,
                     optimizers: dict[int, torch.optim.Optimizer]) -> dict[int, float]:
        """Run one epoch, and return the summed loss of each site."""
        totals = {j: torch.zeros((), device=self.native.device) for j in self.sites}
        for k, raw in enumerate(stream):
            if raw.size < 2:
                continue
            batch, outside = move_batch(raw, self.native.device), None
            assert batch.labels is not None
            inside = self._run_front(self._augment(batch.target))
            if epoch >= self.recipe.epochs:
                rows = torch.tensor(list(islice(self._rows, batch.size)))
                drawn = convert_tensors(take_examples(self.native.auxiliary, rows),
                                        lambda t: t.to(self.native.device))
                outside = self._run_front(self._augment(drawn))
            for i, j in enumerate(self.sites):
                set_rate(optimizers[j], phase, epoch * self._steps + min(k, self._steps - 1),
                         self.recipe.epochs * self._steps)
                loss = self._compute_loss(self.classifiers[j], i, inside, outside, batch.labels)
                optimizers[j].zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizers[j].step()
                totals[j] += loss.detach()
        return {j: float(t) for j, t in totals.items()}

    def _compute_loss(self, classifier: EnergyClassifier, i: int, inside: FrontOutputs,
                      outside: FrontOutputs | None, labels: Tensor) -> Tensor:
        (xs, masks), n, own = inside, len(labels), classifier.shape.sequence
        mask = select_mask(masks, own)
        if outside is None:
            return F.cross_entropy(classifier(xs[i], mask), labels)
        # In one batch, so that batch norm uses the statistics of both sides, as in the code of Liu et al.
        logits = classifier(*_concatenate((xs[i], outside[0][i]), (mask, select_mask(outside[1], own))))
        return compute_energy_loss(logits[:n], logits[n:], labels, self.recipe)

    def _run_front(self, inputs: Any) -> FrontOutputs:
        pieces = MicroBatch.of(self.native.micro_batch)
        with disable_gradients():
            parts = [xs for _, xs in pieces.map(Batch(inputs, inputs, None), self.native.device,
                                                lambda piece: self.native.target.front(piece.target))]
        return [torch.cat([p[j] for p in parts]) for j in self.sites], self.native.target.find_masks(inputs)

    def _augment(self, inputs: Any) -> Any:
        return convert_tensors(inputs,
                               lambda t: augment(t, self._augmentation, self.recipe.crop, self.recipe.flip))


def _draw_rows(n: int, seed: int) -> Iterator[int]:
    """Yield the numbers below `n` without end, in a new order each time."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(n, generator=generator).tolist()


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
