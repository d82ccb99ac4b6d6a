"""Choice of the splits for training and testing, and random draws of examples, the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from suture._base import SutureError

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "validation", "valid", "val", "dev", "eval")
"""Names of a test split, the preferred first."""
SPLIT_NAMES = (*TRAIN_NAMES, *TEST_NAMES)


def choose_split(splits: Mapping[str, Any], split: str, given: str, name: str) -> tuple[str, bool]:
    """Return the name of the requested split, and True where a test part must first be cut from it.

    Args:
        split: "train", "test", or the name of a split.
        given: splits for training and testing: "A/B", "A" to cut one split in two, or "" for the usual names.
    """
    named = split not in ("train", "test")
    train, _, test = given.partition("/")
    for one in (split,) if named else filter(None, (train, test)):
        if one not in splits:
            there = ", ".join(s for s in splits if s) or "none; write 'train' or 'test', cut from the whole"
            raise SutureError(f"{name} has no split {one!r}; splits: {there}")
    if named:
        return split, False
    if given:
        if train == test:
            raise SutureError(f"expected two splits of {name}, got {given!r}; write #{train} to cut it")
        return (test, False) if test and split == "test" else (train, not test)
    usual = next((t for t in TEST_NAMES if t in splits), None)
    if split == "test" and usual is not None:
        return usual, False
    first = next(iter(splits))
    own = next((t for t in TRAIN_NAMES if t in splits), first if len(splits) == 1 else usual)
    if own is None or own == usual:
        raise SutureError(f"{name} has no split 'train', only {', '.join(splits)}; write #A/B after the "
                          f"path, or #{first} to cut that one in two")
    return own, usual is None


def make_generator(seed: int) -> np.random.RandomState:
    """Make NumPy's old generator, the only one whose stream is frozen between versions (NEP 19).

    It takes seeds of 32 bits, so a larger one is given as two.
    """
    return np.random.RandomState(seed if seed < 2**32 else [seed % 2**32, seed // 2**32])


def draw_balanced_order(labels: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Draw a permutation of the rows: for every n, its first n hold the classes as evenly as possible.

    `labels` (N,) are class numbers. Only they and `seed` decide the draw.
    """
    order = make_generator(seed).permutation(len(labels)).astype(np.int64)
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels[order] == label)
        rank[mine] = np.arange(len(mine))
    return order[np.argsort(rank, kind="stable")]


def draw_order(n: int, labels: Tensor | None, seed: int) -> Tensor:
    """Draw a permutation (n,) of the rows: `draw_balanced_order` with `labels` (n,), else uniform."""
    known = np.zeros(n, dtype=np.int64) if labels is None else labels.cpu().numpy()
    return torch.from_numpy(draw_balanced_order(known, seed))


def split_off_fifth(n: int, labels: Tensor | None, seed: int, name: str) -> tuple[Tensor, Tensor]:
    """Split `n` examples into sorted rows (training, test).

    The test part is the first fifth of `draw_order`: at least one example of each class, at most half of all.
    """
    if n < 2:
        raise SutureError(f"expected at least two examples in {name}, to keep a part for testing, got {n}")
    order = draw_order(n, labels, seed)
    kinds = 1 if labels is None else len(torch.unique(labels))
    test = min(n // 2, max(round(n / 5), kinds))
    return order[test:].sort().values, order[:test].sort().values


def has_class_runs(labels: Tensor) -> bool:
    """Return True where the class changes between neighbours less than half as often as by chance."""
    counts = torch.unique(labels, return_counts=True)[1].double()
    chance = 1 - float((counts / len(labels)).square().sum())
    return int((labels[1:] != labels[:-1]).sum()) < chance * (len(labels) - 1) / 2


def renumber_classes(labels: Tensor | None, classes: Sequence[int], known: int | None, name: str
                     ) -> tuple[Tensor, Tensor]:
    """Return the rows (m,) of the examples of some classes, and their labels (m,) from 0 in the order given.

    Args:
        labels: (n,), from 0 to `known` - 1; None if the examples have none.
        name: of the data, for errors.

    Raises:
        SutureError: there are no labels, a class twice or none, or no such class.
    """
    if labels is None or known is None:
        raise SutureError(f"cannot select classes of {name}, which has no labels")
    fits = len(set(classes)) == len(classes) > 0 and all(0 <= k < known for k in classes)
    if not fits:
        raise SutureError(f"expected classes of {name} that differ, from 0 to {known - 1}, got "
                          f"{list(classes)}")
    new = torch.full((known,), -1, dtype=torch.int64)
    new[torch.tensor(list(classes))] = torch.arange(len(classes))
    found = new[labels.cpu()]
    rows = (found >= 0).nonzero()[:, 0]
    return rows, found[rows]
