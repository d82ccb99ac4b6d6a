"""Are the target network's predictions above chance: counts of classes, and a first look at labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from suture.data import Batch
from suture.networks import disable_gradients
from suture.numbers import CHANCE_LEVEL, is_above_chance

if TYPE_CHECKING:
    from suture.compare.records import Evaluation
    from suture.compare.setup import Setup

CHANCE = ("scored", "hits", "label", "prediction")
"""Counts of the target network's scored test examples or tokens, its hits, and the most frequent label and
prediction among them."""
UNLEARNED = ("the target network is at chance on the first labels of the data, and task loss matching trains "
             "on them: check these labels")


class ClassCounts:
    """Counts of labels and predictions by class, added up piece by piece: a tensor for each kind."""

    def __init__(self) -> None:
        self.counts: dict[str, Tensor] = {}

    def add(self, kind: str, classes: Tensor, width: int) -> None:
        """Add class numbers below `width`, negative ones left out."""
        added = torch.bincount(classes[classes >= 0], minlength=width)
        self.counts[kind] = added + self.counts.get(kind, 0)

    def find_most(self) -> dict[str, int]:
        """Return how often the most frequent class of each kind occurs."""
        return {kind: int(counts.max()) for kind, counts in self.counts.items()}


def count_scored(found: Evaluation) -> int:
    """Return the number of scored examples or tokens."""
    return found.examples if found.tokens is None else int(found.tokens.sum())


def count_predictions(found: Evaluation) -> dict[str, int]:
    """Return the counts of `CHANCE`, without hits and labels where there are none; {} without predictions."""
    if not found.most:
        return {}
    counts = {"scored": count_scored(found), **found.most}
    if found.own_correct is not None:
        counts["hits"] = round(float(found.own_correct.sum(dtype=np.float64)))
    return counts


def describe_counts(counts: Mapping[str, int], of_tokens: bool) -> dict[str, Any]:
    """Return the counts of `CHANCE` for a result's meta, with their unit; {} without predictions."""
    found: dict[str, Any] = {name: counts[name] for name in CHANCE if name in counts}
    return found | {"unit": "tokens" if of_tokens else "examples"} if found else {}


def check_training_labels(setup: Setup, first: Batch) -> str:
    """Return a warning if the target network is not above chance on the labels that layers are trained on.

    Only the first batch of the data is looked at. One that holds mostly one class, as sorted data do, tells
    nothing.
    """
    settings, task = setup.settings, setup.task
    if "tlm" not in settings.method_names or not settings.recipe.needs_labels:
        return ""
    labels: Counter[int] = Counter()
    hits = 0

    @disable_gradients()
    def compute_logits(piece: Batch) -> Tensor:
        return task.extract_logits(setup.target.run_full(piece.target).output)

    for piece, found in setup.pieces.map(first, settings.torch_device, compute_logits):
        rows = task.find_rows(piece.target, piece.labels)
        if rows.labels is None:
            return ""
        logits = rows.select(found)
        hits += int((logits.argmax(1) == rows.labels).sum())
        labels.update(rows.labels.tolist())
    n, most = labels.total(), max(labels.values(), default=0)
    tells = 2 * most < n and (most / n)**n < CHANCE_LEVEL
    return UNLEARNED if tells and not is_above_chance(hits, n, most) else ""
