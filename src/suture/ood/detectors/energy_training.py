"""Training of the energy detectors of Balogh and Jelasity (2025), at several sites at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from suture._base import Progress, SutureError, convert_tensors, count_examples, list_tensors
from suture.data import Batch, cut_batch, move_batch
from suture.networks import (
    SitedNetwork,
    augment,
    check_images,
    compute_rate_factor,
    disable_gradients,
    freeze,
    make_optimizer,
)
from suture.ood.detectors.channel_moments import ChannelMoments
from suture.ood.detectors.energy_detector import (
    EnergyDetector,
    EnergyRecipe,
    derive_site_seed,
    energy_loss,
)
from suture.representations import (
    find_image_size,
    find_sequence_lengths,
    get_token_mask,
)

STAGE = "energy detectors"
_INSTEAD = "choose a detector that needs no classes, such as mahalanobis or neighbours"
FrontOutputs = tuple[list[Tensor], Tensor | None]
"""Representations at the sites, and the token mask (True for unpadded tokens) or None."""


def train_detectors(target: SitedNetwork, data: Iterable[Batch], auxiliary: Any, recipe: EnergyRecipe,
                    device: torch.device, *, classes: int, sites: Sequence[int], micro_batch: int,
                    size: tuple[int, int] | None = None,
                    progress: Progress | None = None) -> dict[int, EnergyDetector]:
    """Train a detector for each of several sites of a network; one front pass per batch serves all of them.

    The network is frozen, and no representation is kept beyond its batch. One pass over the data checks
    labels and measures the spread of each channel. Then each epoch is one pass. The detector of a site does
    not depend on the other sites. On one CPU, the same seed, data and order give the same detector, bit for
    bit.

    Args:
        target: the network, on `device`.
        data: re-iterable batches with labels; inputs are ``batch.target``. The data decide their shuffling,
            such as ``Batches(data, size=recipe.batch_size, shuffle=True, seed=recipe.seed)``. Batches of one
            example are skipped, because batch norm needs a variance.
        auxiliary: inputs that are not of the task, of the shape of the data's: a tensor (M, C, H, W), or
            nested as the data's are. Fine-tuning draws as many as the batch has, shuffled and repeated, with
            the same augmentation.
        recipe: see `EnergyRecipe`.
        device: where to train.
        classes: number of classes.
        sites: indices of sites of `target`.
        micro_batch: most examples that pass the network at once. Detectors always get whole batches.
        size: (height, width) that maps are resized to. Default: that of the images, as in the paper; if the
            inputs are no images, the map's own.
        progress: called as ``progress("energy detectors", epochs done, epochs)``.

    Returns:
        Site index -> detector, on `device`, in eval mode and without gradients.

    Raises:
        SutureError: no labels, labels outside the classes or of one class alone; auxiliary inputs of another
            shape; data that can be read only once; crops or flips of inputs that are no images; a body that
            does not suit a site; representations or a loss that are not finite.
    """
    if isinstance(data, Iterator):
        raise SutureError("expected data that can be read more than once, got "
                          f"{type(data).__name__}; pass Batches")
    if classes < 2:
        raise SutureError(f"expected at least 2 classes for energy detectors, got {classes}; {_INSTEAD}")
    if count_examples(auxiliary) < 1:
        raise SutureError("expected at least one auxiliary example for energy detectors, got "
                          "none; check the path")
    training = _DetectorTrainer(target, auxiliary, recipe, device, sites, micro_batch, classes)
    with freeze(target.network), torch.enable_grad():
        training.prepare(data, size)
        training.fit(data, progress)
    return {j: m.detector.eval().requires_grad_(False) for j, m in training.members.items()}


@dataclass
class _SiteDetector:
    name: str
    detector: EnergyDetector
    optimizer: torch.optim.Optimizer


class _DetectorTrainer:
    """A trainer of all detectors of a network. They share only the front passes."""

    def __init__(self, target: SitedNetwork, auxiliary: Any, recipe: EnergyRecipe, device: torch.device,
                 sites: Sequence[int], micro_batch: int, classes: int) -> None:
        self.target, self.auxiliary, self.recipe, self.device = target, auxiliary, recipe, device
        self.sites, self.micro_batch, self.classes = list(dict.fromkeys(sites)), micro_batch, classes
        self.members: dict[int, _SiteDetector] = {}
        self._steps = 0
        self._augmentation = torch.Generator().manual_seed(derive_site_seed(recipe.seed, "augmentation"))
        self._order = torch.Generator().manual_seed(derive_site_seed(recipe.seed, "auxiliary"))
        self._waiting = torch.zeros(0, dtype=torch.int64)

    def prepare(self, data: Iterable[Batch], size: tuple[int, int] | None) -> None:
        """Check the data, measure the channels and make the detectors, in one pass."""
        spreads = {j: ChannelMoments(self.target.shapes[j]) for j in self.sites}
        found: set[int] = set()
        largest = 0
        for batch in data:
            largest = max(largest, batch.size)
            found |= self._collect_classes(batch)
            if not self._steps:
                self._check_inputs(batch)
                size = size or find_image_size(batch.target)
            self._steps += 1
            xs, mask = self._run_front(move_batch(batch, self.device).target)
            for x, spread in zip(xs, spreads.values(), strict=True):
                spread.update(x, mask)
        if len(found) < 2:
            raise SutureError("expected labels of at least 2 classes for energy detectors, got "
                              f"{f'only class {min(found)}' if found else 'none'}; {_INSTEAD}")
        if largest < 2:
            raise SutureError("expected batches of at least 2 examples for energy detectors, got single "
                              f"ones; write batch_size={self.recipe.batch_size}")
        for j, spread in spreads.items():
            name = str(self.target.sites[j])
            detector = EnergyDetector.make(self.target.shapes[j], self.classes, self.recipe, size, name)
            spread.set_buffers(detector)
            if not (detector.mean.isfinite().all() and detector.std.isfinite().all()):
                raise SutureError(f"expected finite representations at site {name!r}, got inf or NaN; look "
                                  "at the inputs, or leave this site out")
            detector.to(self.device).train()
            self.members[j] = _SiteDetector(name, detector, self._make_optimizer(detector))

    def fit(self, data: Iterable[Batch], progress: Progress | None) -> None:
        """Train all detectors by the recipe."""
        epochs = self.recipe.epochs + self.recipe.tune_epochs
        for epoch in range(epochs):
            if epoch == self.recipe.epochs:
                for member in self.members.values():
                    member.optimizer = self._make_optimizer(member.detector)
            self._check_losses(self._train_epoch(data, epoch), epoch)
            if progress:
                progress(STAGE, epoch + 1, epochs)

    def _train_epoch(self, data: Iterable[Batch], epoch: int) -> list[float]:
        """Run one epoch, and return the summed loss of each site."""
        totals = [torch.zeros((), device=self.device) for _ in self.members]
        for k, raw in enumerate(data):
            if raw.size < 2:
                continue
            batch = move_batch(raw, self.device)
            assert batch.labels is not None
            inside = self._run_front(self._augment(batch.target))
            outside = (self._run_front(self._augment(self._draw_auxiliary(batch.size)))
                       if epoch >= self.recipe.epochs else None)
            for i, member in enumerate(self.members.values()):
                for group in member.optimizer.param_groups:
                    group["lr"] = self._compute_rate(epoch, k)
                loss = self._compute_loss(member.detector, i, inside, outside, batch.labels)
                member.optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                member.optimizer.step()
                totals[i] += loss.detach()
        return [float(t) for t in totals]

    def _compute_loss(self, detector: EnergyDetector, i: int, inside: FrontOutputs,
                      outside: FrontOutputs | None, labels: Tensor) -> Tensor:
        (xs, mask), n = inside, len(labels)
        if outside is None:
            return F.cross_entropy(detector(xs[i], mask), labels)
        # In one batch, so that batch norm uses the statistics of both sides, as in the code of Liu et al.
        logits = detector(*_concatenate((xs[i], outside[0][i]), (mask, outside[1])))
        return energy_loss(logits[:n], logits[n:], labels, self.recipe)

    def _compute_rate(self, epoch: int, step: int) -> float:
        recipe = self.recipe
        if epoch < recipe.epochs:
            done = epoch * self._steps + min(step, self._steps - 1)
            return recipe.lr * compute_rate_factor(recipe.schedule, done, recipe.epochs * self._steps)
        late = epoch - recipe.epochs >= max(1, recipe.tune_epochs // 2)
        return recipe.tune_lr * (0.1 if late else 1.0)

    def _make_optimizer(self, detector: EnergyDetector) -> torch.optim.Optimizer:
        return make_optimizer(detector.parameters(), self.recipe, fused=self.device.type in ("cpu", "cuda"))

    def _run_front(self, inputs: Any) -> FrontOutputs:
        with disable_gradients():
            parts = [self.target.front(p.target)
                     for p in cut_batch(Batch(inputs, inputs, None), self.micro_batch)]
        return [torch.cat([p[j] for p in parts]) for j in self.sites], get_token_mask(inputs)

    def _augment(self, inputs: Any) -> Any:
        return convert_tensors(inputs,
                               lambda t: augment(t, self._augmentation, self.recipe.crop, self.recipe.flip))

    def _draw_auxiliary(self, n: int) -> Any:
        """Return the next `n` auxiliary examples."""
        m = count_examples(self.auxiliary)
        while len(self._waiting) < n:
            self._waiting = torch.cat([self._waiting, torch.randperm(m, generator=self._order)])
        rows, self._waiting = self._waiting[:n], self._waiting[n:]
        return convert_tensors(self.auxiliary,
                               lambda t: (t[rows.to(t.device)] if t.ndim and len(t) == m
                                          else t).to(self.device))

    def _collect_classes(self, batch: Batch) -> set[int]:
        labels = batch.labels
        if labels is None:
            raise SutureError("expected labels for energy detectors, got batches without; yield (inputs, "
                              "labels), or " + _INSTEAD)
        if labels.is_floating_point() or labels.ndim != 1:
            raise SutureError(f"expected class numbers (N,) for energy detectors, got {labels.dtype} of "
                              f"shape {tuple(labels.shape)}; {_INSTEAD}")
        found = set(labels.tolist())
        if found and not 0 <= min(found) <= max(found) < self.classes:
            bad = min(found) if min(found) < 0 else max(found)
            raise SutureError(f"expected labels from 0 to {self.classes - 1}, got {bad}; "
                              + (f"the network has {self.classes} outputs" if bad >= 0 else
                                 "number the classes from 0"))
        return found

    def _check_inputs(self, batch: Batch) -> None:
        own, other = _list_shapes(batch.target), _list_shapes(self.auxiliary)
        if own != other:
            raise SutureError(f"expected auxiliary inputs like the data's, {_format_shapes(own)}, got "
                              f"{_format_shapes(other)}; bring them to the same size, channels and type")
        if self.recipe.crop or self.recipe.flip:
            if len(own) > 1:
                raise SutureError("crops and flips need inputs that are one tensor (N, C, H, W), got "
                                  f"{len(own)} tensors; write crop=0, flip=False")
            check_images(next(list_tensors(batch.target)), self.recipe)

    def _check_losses(self, losses: Sequence[float], epoch: int) -> None:
        for member, loss in zip(self.members.values(), losses, strict=True):
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


def _list_shapes(inputs: Any) -> list[tuple[tuple[int | str, ...], torch.dtype]]:
    """Return the shape of one example and the type of each tensor.

    The length of texts is written "T", because it may differ between batches.
    """
    n, texts = count_examples(inputs), {(length,) for length in find_sequence_lengths(inputs)}
    shapes = [tuple(t.shape[1:]) if t.ndim and len(t) == n else tuple(t.shape) for t in list_tensors(inputs)]
    return [(("T",) if s in texts else s, t.dtype) for s, t in zip(shapes, list_tensors(inputs), strict=True)]


def _format_shapes(shapes: Sequence[tuple[tuple[int | str, ...], torch.dtype]]) -> str:
    return " and ".join(f"(N{''.join(f', {d}' for d in shape)}) {str(kind).removeprefix('torch.')}"
                        for shape, kind in shapes)
