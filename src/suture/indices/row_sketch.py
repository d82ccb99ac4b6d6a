"""Small sketches of the rows of two matrices, by which two files are found to share rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Hashes = npt.NDArray[np.uint64]
RUNS = (1, 8)
"""Lengths of the runs of rows that are sketched: rows in any order, and successive rows."""
KEPT = 1024
SHARED = 0.01
"""Share of common runs from which two files overlap. Less is what a corpus holds twice."""


@dataclass(frozen=True)
class RowSketch:
    """The `KEPT` smallest hashes of all runs of `length` different rows, in order (Broder 1997).

    Attributes:
        length: number of successive rows in a run.
        hashes: of the runs.
        counts: how often each run was seen.
    """

    length: int
    hashes: Hashes
    counts: npt.NDArray[np.int64]

    @classmethod
    def from_tensor(cls, length: int, stored: Tensor) -> RowSketch:
        """Return the sketch that `as_tensor` wrote."""
        hashes, counts = stored.numpy()
        return cls(length, hashes.view(np.uint64), counts)

    def as_tensor(self) -> Tensor:
        """Return hashes and counts as integers (2, runs)."""
        return torch.from_numpy(np.stack([self.hashes.view(np.int64), self.counts]))

    @property
    def largest(self) -> int:
        """Hash up to which all runs are kept."""
        return int(self.hashes[-1]) if len(self.hashes) == KEPT else 2**64 - 1

    def find_telling(self) -> Hashes:
        """Return the runs by which their rows are known: those that were seen once.

        Runs that repeat are templates or constants, which many files have. If single rows repeat, such as
        tokens, none is telling.
        """
        once = self.counts == 1
        found: Hashes = self.hashes[once & (self.length > 1 or once.mean() >= 1 - SHARED)]
        return found


class RowSketcher:
    """The sketch of the runs of one length in rows that are added piece by piece."""

    def __init__(self, length: int) -> None:
        self._last = np.zeros(0, np.uint64)
        self.sketch = RowSketch(length, self._last, np.zeros(0, np.int64))

    def update(self, x: Any, y: Any) -> None:
        """Add rows of both matrices, arrays or tensors (n, columns)."""
        before = self.sketch
        both = np.concatenate([torch.as_tensor(m).detach().cpu().double().numpy() for m in (x, y)], axis=1)
        # Adding zero makes -0.0 equal to 0.0.
        rows = np.concatenate([self._last, _hash_rows((both + 0.0).view(np.uint64))])
        self._last = rows[len(rows) - min(before.length - 1, len(rows)):]
        if len(rows) < before.length:
            return
        runs = np.lib.stride_tricks.sliding_window_view(rows, before.length)
        different = (np.diff(np.sort(runs, axis=1), axis=1) != 0).all(1)
        found = np.concatenate([before.hashes, _hash_rows(runs[different])])
        hashes, places = np.unique(found, return_inverse=True)
        counts = np.zeros(len(hashes), np.int64)
        np.add.at(counts, places, np.concatenate([before.counts, np.ones(int(different.sum()), np.int64)]))
        self.sketch = RowSketch(before.length, hashes[:KEPT], counts[:KEPT])


def find_overlap(sketches: Sequence[RowSketch]) -> tuple[int, int] | None:
    """Return the positions of two sketches of one length that share rows; None if there are none."""
    runs = [sketch.find_telling() for sketch in sketches]
    owners: dict[int, list[int]] = {}
    for k, of in enumerate(runs):
        for value in of.tolist():
            owners.setdefault(value, []).append(k)
    common = Counter(pair for found in owners.values() for pair in combinations(found, 2))
    for (a, b), n in common.items():
        most = np.uint64(min(sketches[k].largest for k in (a, b)))
        if n >= SHARED * min(int((runs[k] <= most).sum()) for k in (a, b)):
            return a, b
    return None


def _hash_rows(numbers: Hashes) -> Hashes:
    """Hash each row of 64-bit numbers (n, columns), by random odd factors and the mixer of SplitMix64."""
    factors = np.random.default_rng(0).integers(2**63, size=numbers.shape[1], dtype=np.uint64)
    factors = factors * np.uint64(2) + np.uint64(1)
    h = ((numbers ^ (numbers >> np.uint64(32))) * factors).sum(1, dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        h = (h ^ (h >> np.uint64(shift))) * np.uint64(factor)
    mixed: Hashes = h ^ (h >> np.uint64(31))
    return mixed
