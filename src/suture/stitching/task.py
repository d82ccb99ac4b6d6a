"""Task loss matching: stitching layers trained on the task loss, all layers into one target site together."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from suture._errors import SutureError
from suture.batches import Batches, Progress, on_device, pieces
from suture.calls import main_output, no_gradients
from suture.sites import SitedNetwork
from suture.stitching.layer import Init, StitchingLayer

Cell = tuple[int, int]
"""(index of the source site, index of the target site)."""


@dataclass(frozen=True)
class TaskRecipe:
    """How task loss matching trains its stitching layers. Adam, cross-entropy on hard labels, networks frozen.

    Attributes:
        epochs: passes over the fitting data. Default 30 (the paper).
        batch_size: examples per step, where suture makes the batches. Default 256 (the paper).
        lr: Adam's learning rate. Default 1e-3 (the paper). Small data need more steps or a larger rate: look at
            whether the own-layer cells, where the identity gives relative accuracy 1, get there.
        weight_decay: L2 penalty in Adam. Default 1e-5 (the paper).
        init: "random" (the paper), "dm" (the closed-form solution) or "identity".
        schedule: "constant" (the paper) or "cosine" (to zero over all steps).
        seed: of initialisations and of the order of the data.
    """

    epochs: int = 30
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 1e-5
    init: Init = "random"
    schedule: Literal["constant", "cosine"] = "constant"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr"):
            if getattr(self, name) <= 0:
                raise SutureError(f"expected {name} above 0, got {getattr(self, name)}; leave it out for the default")
        if self.weight_decay < 0:
            raise SutureError(f"expected weight_decay of at least 0, got {self.weight_decay}")
        for name, options in (("init", ("random", "dm", "identity")), ("schedule", ("constant", "cosine"))):
            if getattr(self, name) not in options:
                raise SutureError(f"expected {name} to be one of {', '.join(options)}, got {getattr(self, name)!r}")


def cell_seed(seed: int, source: str, target: str) -> int:
    """A seed for one cell that does not depend on which other cells there are (law 7)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{source}/{target}".encode()).digest()[:7], "big")


@dataclass(frozen=True)
class Curves:
    """Learning curves, per cell and epoch.

    Attributes:
        loss: mean training cross-entropy of each epoch.
        accuracy: training accuracy of each epoch, in eval mode of both networks, before each step.
        failed: why a cell has no usable layer: its loss became nan or inf. The others are not affected.
    """

    loss: dict[Cell, list[float]]
    accuracy: dict[Cell, list[float]]
    failed: dict[Cell, str]


class GroupTrainer:
    """Trains many stitching layers at once; each gets the steps that it would get alone (law 5).

    Per batch: one front pass of the source, one full pass of the target, and for each target site a pass of the
    tail over the stitched representations of its sources, as many of them concatenated as fit the micro-batch.

    Args:
        source, target: the two networks with their sites, frozen (`suture.calls.frozen`), on one device. The same
            object for self-stitching: then it runs once per batch.
        layers: one layer per cell, on the device.
        recipe: epochs, rates, schedule. (`init` and `seed` are the caller's.)
        micro_batch: most examples that pass a tail at once.
    """

    def __init__(self, source: SitedNetwork, target: SitedNetwork, layers: Mapping[Cell, StitchingLayer],
                 recipe: TaskRecipe, micro_batch: int) -> None:
        self.source, self.target, self.layers, self.recipe = source, target, layers, recipe
        self.micro_batch = micro_batch
        self._groups: dict[int, list[int]] = {}
        for i, j in layers:
            self._groups.setdefault(j, []).append(i)
        parameters = [p for layer in layers.values() for p in layer.parameters()]
        self._optimizer = torch.optim.Adam(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
        self._steps = 0

    def fit(self, batches: Batches, device: torch.device, progress: Progress | None = None) -> Curves:
        """Run the recipe.

        Raises:
            SutureError: no labels, or labels outside the classes.
        """
        curves = Curves({c: [] for c in self.layers}, {c: [] for c in self.layers}, {})
        total = batches.total()
        for epoch in range(self.recipe.epochs):
            loss = {c: torch.zeros((), device=device) for c in self.layers}
            hits = {c: torch.zeros((), device=device) for c in self.layers}
            seen = 0
            for k, batch in enumerate(batches):
                self._schedule(None if total is None else (epoch * total + k) / (self.recipe.epochs * total), epoch)
                self._step(on_device(batch, device), loss, hits)
                seen += batch.size
                if progress:
                    progress("task loss matching", epoch * (total or 0) + k + 1,
                             None if total is None else total * self.recipe.epochs)
            for c in self.layers:
                curves.loss[c].append(float(loss[c]) / seen)
                curves.accuracy[c].append(float(hits[c]) / seen)
                if c not in curves.failed and not math.isfinite(curves.loss[c][-1]):
                    curves.failed[c] = (f"the task loss is not finite in epoch {epoch + 1} at learning rate "
                                        f"{self.recipe.lr}; use a smaller one")
        return curves

    def _schedule(self, done: float | None, epoch: int) -> None:
        if self.recipe.schedule == "cosine":
            part = epoch / self.recipe.epochs if done is None else done
            for group in self._optimizer.param_groups:
                group["lr"] = self.recipe.lr * (1 + math.cos(math.pi * part)) / 2

    def _step(self, batch: Any, loss: dict[Cell, Tensor], hits: dict[Cell, Tensor]) -> None:
        if batch.labels is None:
            raise SutureError("expected labels for task loss matching, got batches without; yield (inputs, labels), "
                              "or leave 'tlm' out of methods")
        self._optimizer.zero_grad(set_to_none=True)
        for piece in pieces(batch, self.micro_batch):
            with no_gradients():
                done = self.target.full(piece.target)
                own = self.source is self.target
                xs = self.source.representations(done) if own else self.source.front(piece.source)
                assert piece.labels is not None
                check_labels(piece.labels, logits_of(done.output))
            at_once = max(1, self.micro_batch // piece.size)
            for j, sources in self._groups.items():
                for start in range(0, len(sources), at_once):
                    cells = [(i, j) for i in sources[start:start + at_once]]
                    self._backward(cells, xs, done, piece.labels, batch.size, loss, hits)
        self._optimizer.step()

    def _backward(self, cells: Sequence[Cell], xs: list[Tensor], done: Any, labels: Tensor, size: int,
                  loss: dict[Cell, Tensor], hits: dict[Cell, Tensor]) -> None:
        stitched = [self.layers[c](xs[c[0]]) for c in cells]
        together = stitched[0] if len(cells) == 1 else torch.cat(stitched)
        logits = logits_of(self.target.tail(cells[0][1], together, done)).float()
        losses = F.cross_entropy(logits, labels.repeat(len(cells)), reduction="none").view(len(cells), -1)
        torch.autograd.backward(losses.sum() / size)
        with torch.no_grad():
            right = (logits.argmax(1).view(len(cells), -1) == labels).sum(1)
            for k, c in enumerate(cells):
                loss[c] += losses[k].sum()
                hits[c] += right[k]


def logits_of(output: Any) -> Tensor:
    """The logits (N, classes) in a network's output: ``output["logits"]``, or the first floating point tensor.

    Raises:
        SutureError: it is not (N, classes).
    """
    logits = main_output(output)
    if logits is None or logits.ndim != 2:
        got = type(output).__name__ if logits is None else tuple(logits.shape)
        raise SutureError(f"expected logits (N, classes) from the network, got {got}; wrap it so that it returns them")
    return logits


def check_labels(labels: Tensor, logits: Tensor) -> None:
    """Labels must be class numbers of the network.

    Raises:
        SutureError: a label below 0 or not below the number of classes.
    """
    if labels.is_floating_point() or labels.ndim != 1:
        raise SutureError(f"expected integer labels (N,), got {labels.dtype} of shape {tuple(labels.shape)}")
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]):
        bad = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise SutureError(f"expected labels from 0 to {logits.shape[1] - 1}, got {bad}; the network has "
                          f"{logits.shape[1]} outputs")
