"""Energy detectors: of the target network's own logits, and of classifiers that are trained for sites."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from suture._base import (
    KeptPass,
    SutureError,
    check_classes,
    check_finite,
    convert_tensors,
    count_examples,
    expect,
    hash_parts,
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
from suture.ood.training_position import RandomRows, TrainingPosition
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
    name = f"energy detectors of {hash_parts({'sites': training.sites})}"
    with freeze(native.target.network), torch.enable_grad():
        if native.keeper.has(name):
            training.make_classifiers()
        else:
            training.prepare(stream)
        training.fit(stream, name)
    return {j: made.eval().requires_grad_(False) for j, made in training.classifiers.items()}


class _Trainer:
    """A trainer of the classifiers of several sites of a network."""

    def __init__(self, native: NativeData, sites: Sequence[int]) -> None:
        self.native, self.recipe, self.sites = native, native.recipe, sites
        self.classifiers: dict[int, EnergyClassifier] = {}
        self._position = TrainingPosition()
        augmentation, auxiliary = (derive_site_seed(self.recipe.seed, use)
                                   for use in ("augmentation", "auxiliary"))
        self._augmentation = torch.Generator().manual_seed(augmentation)
        self._rows = RandomRows(count_examples(native.auxiliary), auxiliary)

    def prepare(self, stream: Iterable[Batch]) -> None:
        """Check the data, measure the channels and make the classifiers, in one pass."""
        sums, found, largest = {j: ShiftedSums(pairs=False) for j in self.sites}, set[int](), 0
        for batch in stream:
            self._position.steps, largest = self._position.steps + 1, max(largest, batch.size)
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
        self.make_classifiers()
        for j, of in sums.items():
            self._standardise(j, of)

    def make_classifiers(self) -> None:
        """Make the classifiers with their initial weights, for channels that are not measured yet."""
        native, shapes = self.native, self.native.target.shapes
        self.classifiers = {j: EnergyClassifier(shapes[j], native.classes, self.recipe, native.image_size,
                                                str(native.target.sites[j])).to(native.device).train()
                            for j in self.sites}

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

    def _standardise(self, j: int, channels: ShiftedSums) -> None:
        mean, variances = channels.compute_overall()
        check_finite(mean, f"the representation at site {str(self.native.target.sites[j])!r}",
                     "check the inputs, or leave this site out")
        self.classifiers[j].mean.copy_(mean[0])
        self.classifiers[j].std.copy_(limit_spread(variances.clamp(min=0).sqrt(), LEAST_CHANNEL_STD))

    def fit(self, stream: Iterable[Batch], name: str) -> None:
        """Train all classifiers by the recipe; fine-tuning starts with new optimisers."""
        recipe, at, optimizers = self.recipe, self._position, self._make_optimizers()
        state = {"position": at, "classifiers": self.classifiers, "optimizers": optimizers,
                 "rows": self._rows, "augmentation": self._augmentation}
        with self.native.keeper.keep(name, state) as kept:
            kept.fill()
            while at.epoch < recipe.epochs + recipe.tune_epochs:
                if at.epoch == recipe.epochs and not at.batch:
                    optimizers.update(self._make_optimizers())
                self._train_epoch(stream, optimizers, kept)
                at.end_epoch(stream)
                if self.native.progress:
                    self.native.progress("energy detectors", at.epoch, recipe.epochs + recipe.tune_epochs)
                kept.step(at.epoch)
            kept.finish(at.epoch)

    def _choose_phase(self, epoch: int) -> tuple[str, EnergyRecipe]:
        """Return the recipe of an epoch, and the name of the option that is its learning rate."""
        recipe = self.recipe
        if epoch < recipe.epochs:
            return "lr", recipe
        late = epoch - recipe.epochs >= max(1, recipe.tune_epochs // 2)
        return "tune_lr", replace(recipe, lr=recipe.tune_lr * (0.1 if late else 1), schedule="constant")

    def _make_optimizers(self) -> dict[int, torch.optim.Optimizer]:
        fused = self.native.device.type in ("cpu", "cuda")
        return {j: make_optimizer(made.parameters(), self.recipe, fused=fused)
                for j, made in self.classifiers.items()}

    def _train_epoch(self, stream: Iterable[Batch], optimizers: dict[int, torch.optim.Optimizer],
                     kept: KeptPass) -> None:
        """Run the rest of an epoch."""
        at = self._position
        option, phase = self._choose_phase(at.epoch)
        if not at.totals:
            at.totals = {j: torch.zeros((), device=self.native.device) for j in self.sites}
        for k, raw in at.read(stream, kept):
            if raw.size > 1:
                self._train_step(move_batch(raw, self.native.device), k, phase, optimizers)
            at.batch = k + 1
        for j, total in at.totals.items():
            if not math.isfinite(loss := float(total)):
                site, epochs = str(self.native.target.sites[j]), self.recipe.epochs + self.recipe.tune_epochs
                raise SutureError(f"the loss of the energy detector at site {site!r} became {loss} in "
                                  f"epoch {at.epoch + 1} of {epochs}; try {option}="
                                  f"{getattr(self.recipe, option) / 10:g}, and look for NaN in the inputs")

    def _train_step(self, batch: Batch, k: int, phase: EnergyRecipe,
                    optimizers: dict[int, torch.optim.Optimizer]) -> None:
        at, outside = self._position, None
        assert batch.labels is not None
        inside = self._run_front(self._augment(batch.target))
        if at.epoch >= self.recipe.epochs:
            drawn = convert_tensors(take_examples(self.native.auxiliary, self._rows.draw(batch.size)),
                                    lambda t: t.to(self.native.device))
            outside = self._run_front(self._augment(drawn))
        for i, j in enumerate(self.sites):
            set_rate(optimizers[j], phase, at.epoch * at.steps + min(k, at.steps - 1),
                     self.recipe.epochs * at.steps)
            loss = self._compute_loss(self.classifiers[j], i, inside, outside, batch.labels)
            optimizers[j].zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizers[j].step()
            at.totals[j] += loss.detach()

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
