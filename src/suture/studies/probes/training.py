"""Training of many linear probes together, each as it would be trained alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from suture._base import Progress, SutureError, derive_seed
from suture.numbers import Bools
from suture.studies.probes.principal_components import Basis
from suture.studies.probes.recipe import ProbeRecipe


class CutFeatures(Protocol):
    """Features of N examples at one site, cut to R ranks."""

    @property
    def ranks(self) -> int: ...

    @property
    def width(self) -> int: ...

    def compute_logits(self, examples: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the logits (R, n, C) of n examples from weights (R, C, p) and biases (R, C)."""


@dataclass(frozen=True)
class ProjectedFeatures:
    """Features as coordinates (N, p) of one basis, float32, of which each rank keeps the first.

    Instead of the features the weights are projected, which are fewer. The logits are the same.
    """

    coordinates: Tensor
    mean: Tensor
    vectors: Tensor
    masks: Tensor

    @classmethod
    def of(cls, features: Tensor, basis: Basis, ranks: Sequence[int]) -> ProjectedFeatures:
        """Bring features (N, p) to a basis."""
        vectors = basis.vectors.float()
        masks = torch.stack([(torch.arange(len(vectors)) < r).float() for r in ranks])
        return cls((features.double() - basis.mean).float() @ vectors, basis.mean.float(), vectors, masks)

    @property
    def ranks(self) -> int:
        return len(self.masks)

    @property
    def width(self) -> int:
        return len(self.mean)

    def compute_logits(self, examples: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        r, c, p = weight.shape
        projected = (weight.flatten(0, 1) @ self.vectors).view(r, c, p) * self.masks[:, None]
        logits = self.coordinates[examples] @ projected.flatten(0, 1).T
        return logits.view(-1, r, c).movedim(1, 0) + (weight @ self.mean + bias)[:, None]


@dataclass(frozen=True)
class StackedFeatures:
    """Features (R, N, p) that were cut beforehand."""

    features: Tensor

    @property
    def ranks(self) -> int:
        return len(self.features)

    @property
    def width(self) -> int:
        return self.features.shape[2]

    def compute_logits(self, examples: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return self.features[:, examples] @ weight.mT + bias[:, None]


@dataclass(frozen=True)
class TrainedProbes:
    """Probes of one site: weights (R, C, p) and biases (R, C)."""

    weight: Tensor
    bias: Tensor

    @torch.no_grad()
    def find_hits(self, features: CutFeatures, labels: Tensor) -> Bools:
        """Return True (R, N) where a probe predicts the label."""
        logits = features.compute_logits(torch.arange(len(labels)), self.weight, self.bias)
        return (logits.argmax(2) == labels).numpy()


def draw_probes(seed: int, site: str, ranks: int, classes: int, width: int) -> TrainedProbes:
    """Draw first weights as `torch.nn.Linear` does, the same for all ranks of a site."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "probe", site))
    bound = 1 / math.sqrt(width)
    weight, bias = (torch.empty(shape).uniform_(-bound, bound, generator=generator)
                    for shape in ((classes, width), (classes,)))
    return TrainedProbes(weight.expand(ranks, -1, -1).clone().requires_grad_(),
                         bias.expand(ranks, -1).clone().requires_grad_())


def train_probes(sites: Sequence[str], read: Callable[[int], tuple[Sequence[CutFeatures], Tensor]],
                 classes: int, recipe: ProbeRecipe, progress: Progress | None = None) -> list[TrainedProbes]:
    """Train the probes of all sites and ranks.

    Args:
        sites: their names, which decide the first weights.
        read: returns the features of all sites and the labels (N,) of an epoch, counted from 0.
        classes: number of logits.
    """
    order = torch.Generator().manual_seed(recipe.seed)
    probes: list[TrainedProbes] = []
    optimizer: torch.optim.Optimizer | None = None
    with torch.enable_grad():
        for epoch in range(recipe.epochs):
            features, labels = read(epoch)
            if optimizer is None:
                probes = [draw_probes(recipe.seed, s, f.ranks, classes, f.width)
                          for s, f in zip(sites, features, strict=True)]
                optimizer = torch.optim.Adam([t for p in probes for t in (p.weight, p.bias)], lr=recipe.lr,
                                             weight_decay=recipe.weight_decay, fused=True)
            for group in optimizer.param_groups:
                group["lr"] = recipe.find_rate(epoch)
            loss = _train_epoch(probes, features, labels, torch.randperm(len(labels), generator=order),
                                recipe, optimizer)
            if not math.isfinite(loss):
                raise SutureError(f"the loss of the probes became {loss} in epoch {epoch + 1}; write "
                                  f"lr={recipe.lr / 10:g}")
            if progress:
                progress("probes", epoch + 1, recipe.epochs)
    return [TrainedProbes(p.weight.detach(), p.bias.detach()) for p in probes]


def _train_epoch(probes: Sequence[TrainedProbes], features: Sequence[CutFeatures], labels: Tensor,
                 order: Tensor, recipe: ProbeRecipe, optimizer: torch.optim.Optimizer) -> float:
    """Run one epoch, and return the sum of the losses of all probes and steps."""
    total = torch.zeros(())
    for examples in torch.split(order, recipe.batch_size):
        optimizer.zero_grad()
        wanted = labels[examples]
        # The gradients of a sum over probes separate by themselves.
        losses = []
        for p, f in zip(probes, features, strict=True):
            logits = f.compute_logits(examples, p.weight, p.bias)
            losses.append(F.cross_entropy(logits.flatten(0, 1), wanted.repeat(f.ranks), reduction="sum"))
        loss = torch.stack(losses).sum() / len(examples)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach()
    return float(total)
