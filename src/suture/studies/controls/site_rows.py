"""All rows of a network's representations of some examples, as alterations see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from suture.compare import MOST_ROWS, Setup
from suture.data import Batch
from suture.networks import RecordedPass, disable_gradients
from suture.ood import Outcome, measure_outcome
from suture.representations import Masks, Shape, View, get_row_mask, pick_rows


@dataclass(frozen=True)
class SiteRows:
    """Rows of all examples at one site.

    Attributes:
        rows: (N, L, C) float32; shorter texts are padded with zeros.
        kept: (N, L) booleans, False at padding; None without any.
        classes: (N,) class of each example.
        shape: of one example.
    """

    rows: Tensor
    kept: Tensor | None
    classes: Tensor
    shape: Shape

    @cached_property
    def weights(self) -> Tensor:
        """(N, L, 1): 1 at rows that count, 0 at padding."""
        n, length = self.rows.shape[:2]
        return self.rows.new_ones(n, length, 1) if self.kept is None else self.kept[..., None].to(self.rows)

    @cached_property
    def mean(self) -> Tensor:
        """Mean of all rows (C,)."""
        return (self.rows * self.weights).sum((0, 1)) / self.weights.sum()

    @cached_property
    def spread(self) -> Tensor:
        """Standard deviation of every channel over all rows (C,)."""
        return (((self.rows - self.mean) * self.weights).square().sum((0, 1)) / self.weights.sum()).sqrt()

    def find_means(self, known: Tensor) -> Tensor:
        """Return the means of the classes `known`, (K, L, C); of texts over all positions, (K, 1, C)."""
        over = (0,) if self.kept is None and not self.shape.varies else (0, 1)
        found = self.rows.new_zeros(len(known), *self.rows.shape[len(over):])
        for k, c in enumerate(known.tolist()):
            mine = self.classes == c
            x, w = self.rows[mine], self.weights[mine]
            found[k] = (x * w).sum(over) / w.sum(over).clamp(min=1)
        return found if len(over) == 1 else found[:, None]


class PassedBatch(NamedTuple):
    """One batch with the pass of the network over it."""

    batch: Batch
    done: RecordedPass
    masks: Masks


class PassedExamples:
    """Batches of examples with their passes through the target network, which stay in memory.

    Args:
        setup: of a comparison of the network with itself.
        batches: the examples.
        labelled: False to take predictions for classes.
    """

    @disable_gradients()
    def __init__(self, setup: Setup, batches: Sequence[Batch], labelled: bool = True) -> None:
        self.setup, self.passes = setup, list[PassedBatch]()
        parts = list[Outcome]()
        for batch in batches:
            for piece, done in setup.pieces.map(batch, setup.settings.torch_device,
                                                lambda b: setup.target.run_full(b.target)):
                self.passes.append(PassedBatch(piece, done, setup.target.find_masks(piece.target)))
                parts.append(self.measure(len(parts), done.output, labelled))
        self.outcome = Outcome.join(parts)

    @property
    def size(self) -> int:
        return sum(p.batch.size for p in self.passes)

    def measure(self, k: int, output: Any, labelled: bool = True) -> Outcome:
        """Measure the outcome of pass number `k`, from another output for it."""
        batch = self.passes[k].batch
        return measure_outcome(self.setup.task, output, self.setup.target.view_output(batch.target),
                               batch.labels if labelled else None)

    def get_representations(self, j: int) -> list[Tensor]:
        """Return the native representation of every pass at a site."""
        return [self.setup.target.pick_representations(p.done)[j] for p in self.passes]

    def read_rows(self, j: int) -> SiteRows:
        """Return all rows at a site."""
        shape, parts, kept = self.setup.target.shapes[j], list[Tensor](), list[Tensor]()
        for p, x in zip(self.passes, self.get_representations(j), strict=True):
            parts.append(to_rows(x.float(), shape))
            mask = get_row_mask(shape, View.ALL, p.masks)
            kept.append(torch.ones(parts[-1].shape[:2], dtype=torch.bool) if mask is None
                        else mask.flatten(1))
        longest = max(x.shape[1] for x in parts)
        rows = torch.cat([F.pad(x, (0, 0, 0, longest - x.shape[1])) for x in parts])
        where = torch.cat([F.pad(m, (0, longest - m.shape[1])) for m in kept])
        return SiteRows(rows, None if bool(where.all()) else where, self.outcome.find_classes()[0], shape)

    def split(self, rows: Tensor, j: int) -> list[Tensor]:
        """Return the representations (n, ...) of every pass from rows (N, L, C) at a site."""
        natives = self.get_representations(j)
        parts = torch.split(rows, [len(x) for x in natives])
        return [from_rows(r, x, self.setup.target.shapes[j]) for r, x in zip(parts, natives, strict=True)]

    @disable_gradients()
    def run_tail(self, j: int, xs: Sequence[Tensor]) -> Outcome:
        """Run the rest of the network after a site on other representations."""
        return Outcome.join([self.measure(k, self.setup.target.tail(j, x, p.done))
                             for k, (x, p) in enumerate(zip(xs, self.passes, strict=True))])

    def pick(self, j: int, xs: Sequence[Tensor], chosen: Tensor) -> Tensor:
        """Return a few rows (n, L, C) of the chosen examples, as distances are made of."""
        parts, start = list[Tensor](), 0
        for x, p in zip(xs, self.passes, strict=True):
            mine = chosen[(chosen >= start) & (chosen < start + len(x))] - start
            start += len(x)
            masks = None if p.masks is None else p.masks[mine]
            if len(mine):
                parts.append(pick_rows(x[mine].float(), self.setup.target.shapes[j], masks, MOST_ROWS))
        return torch.cat(parts)


def to_rows(x: Tensor, shape: Shape) -> Tensor:
    """Return the rows (N, L, C) of a batch of representations, prefix tokens included."""
    if x.ndim == 2:
        return x[:, None]
    return x.flatten(2).transpose(1, 2) if shape.channels_first else x.flatten(1, -2)


def from_rows(rows: Tensor, like: Tensor, shape: Shape) -> Tensor:
    """Return a batch of representations from its rows; longer padding is cut."""
    if shape.channels_first and like.ndim > 2:
        return rows[:, :like[0, 0].numel()].transpose(1, 2).reshape(like.shape)
    length = 1 if like.ndim == 2 else like[0].numel() // like.shape[-1]
    return rows[:, :length].reshape(like.shape)
