"""Draws of examples, the same on every machine: as even over the classes as they allow, and a fifth for
testing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from suture._base import SutureError


def make_generator(seed: int) -> np.random.RandomState:
    """The old generator on purpose: NumPy freezes its stream (NEP 19), that of `default_rng` may change."""
    return np.random.RandomState(seed)


def draw_balanced_order(labels: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """A permutation of the rows each start of which holds the classes as evenly as possible.

    Args:
        labels: (N,) class numbers.
        seed: of the draw, which depends on it and on the labels alone.
    """
    order = make_generator(seed).permutation(len(labels)).astype(np.int64)
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels[order] == label)
        rank[mine] = np.arange(len(mine))
    return order[np.argsort(rank, kind="stable")]


def draw_order(n: int, labels: Tensor | None, seed: int) -> Tensor:
    """(n,) a permutation of the rows: `draw_balanced_order` where there are `labels` (n,), random
    otherwise."""
    if labels is not None:
        return torch.from_numpy(draw_balanced_order(labels.cpu().numpy(), seed))
    return torch.from_numpy(make_generator(seed).permutation(n).astype(np.int64))


def split_off_fifth(n: int, labels: Tensor | None, seed: int, name: str) -> tuple[Tensor, Tensor]:
    """Sorted rows (training, test) of `n` examples: the first fifth of `draw_order`, one of each class, but
    at most half.

    Raises:
        SutureError: fewer than two examples.
    """
    if n < 2:
        raise SutureError(f"expected at least two examples in {name}, to keep a part for testing, "
                          f"got {n}; give more")
    order = draw_order(n, labels, seed)
    kinds = 1 if labels is None else len(torch.unique(labels))
    test = min(n // 2, max(round(n / 5), kinds))
    return order[test:].sort().values, order[:test].sort().values


def has_class_runs(labels: Tensor) -> bool:
    """Whether neighbours share their class much more often than by chance: fewer than half the changes
    expected."""
    counts: Any = labels.bincount().double()
    chance = 1 - float((counts / len(labels)).square().sum())
    return int((labels[1:] != labels[:-1]).sum()) < chance * (len(labels) - 1) / 2
