"""The state of a training of stitching layers, all of which a checkpoint holds, and its learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from suture.data import EpochPosition
from suture.stitching.grouped_pass import BatchSums, LayerKey


@dataclass(frozen=True)
class Curves:
    """Learning curves per layer and epoch: means over examples or scored tokens, until it stops or fails.

    Attributes:
        loss: training objective of each epoch, with penalty, measured before each step.
        accuracy: training accuracy, measured likewise; nan without labels and for "match".
        held_out: held-out objective after each epoch, without penalty; empty without early stopping.
        failed: layers whose loss became nan or inf, with the reason; they are not usable.
        stopped: layers that stopped early, with their number of epochs.
        notes: a sentence if memory ran out.
    """

    loss: dict[LayerKey, list[float]]
    accuracy: dict[LayerKey, list[float]]
    held_out: dict[LayerKey, list[float]] = field(default_factory=dict)
    failed: dict[LayerKey, str] = field(default_factory=dict)
    stopped: dict[LayerKey, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Best:
    """The best held-out objective of a layer, with the number of epochs and the weights there."""

    value: float
    epochs: int
    weights: list[Tensor]


@dataclass(kw_only=True)
class TrainingState(EpochPosition):
    """All that training changes beside the layers and the optimiser.

    Attributes:
        curves: learning curves so far.
        generator: of the augmentation.
        active: layers that are still trained, in order.
        best: best weights of early stopping.
        steps: number of steps of all epochs.
        length: number of batches of an epoch, as the data told it before this one; None where it is unknown.
        sums: of the batches of this epoch.
    """

    curves: Curves
    generator: torch.Generator
    active: list[LayerKey]
    best: dict[LayerKey, Best] = field(default_factory=dict)
    steps: int = 0
    length: int | None = None
    sums: list[BatchSums] = field(default_factory=list)

    def drop(self, those: Mapping[LayerKey, object]) -> None:
        self.active = [c for c in self.active if c not in those]
