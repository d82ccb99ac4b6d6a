"""Rows of one cell about the means of their classes, and what indices within classes need of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture.indices.definition import Value, require
from suture.indices.nulls.held_out import FOLDS, FoldedRows
from suture.indices.sample import Sample
from suture.numbers import (
    FEWEST_ROWS,
    GramSums,
    Ints,
    MomentBlock,
    Pair,
    StrataSums,
)

_ROWS_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class ClassedRows:
    """Rows x (n, p) and y (n, q) of one cell, with the class (n,) of each from 0; made by `of`.

    `left_out` rows are of classes with fewer than `FEWEST_ROWS`. `precision` is the dtype in which rows were
    computed.
    """

    x: Tensor
    y: Tensor
    classes: Tensor
    left_out: int = 0
    precision: torch.dtype = torch.float64

    @classmethod
    def of(cls, x: Tensor, y: Tensor, labels: Ints,
           precision: torch.dtype = torch.float64) -> ClassedRows:
        """Take the rows of all classes that are large enough, in order.

        Raises:
            UndefinedError: there are fewer than two such classes.
        """
        kept, classes = choose_classes(labels)
        rows = torch.from_numpy(kept)
        return cls(x[rows].double(), y[rows].double(), torch.from_numpy(classes), len(labels) - len(kept),
                   precision)

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.x)

    @cached_property
    def counts(self) -> Tensor:
        """Number of rows of each class, (K,)."""
        return torch.bincount(self.classes)

    @property
    def constant(self) -> tuple[str, ...]:
        return self.pair.constant

    @cached_property
    def centred(self) -> tuple[Tensor, Tensor]:
        """Rows of both sides about the means of their classes."""
        return self._centre(self.x), self._centre(self.y)

    def _centre(self, rows: Tensor) -> Tensor:
        totals = rows.new_zeros(len(self.counts), rows.shape[1]).index_add(0, self.classes, rows)
        return rows - (totals / self.counts[:, None])[self.classes]

    @cached_property
    def pair(self) -> Pair:
        """Moments of the rows about class means, with as many degrees of freedom as these leave."""
        pair = Pair.of_block(MomentBlock.of(*self.centred, units=True))
        return replace(pair, moments=replace(pair.moments, precision=self.precision),
                       share=(self.n - len(self.counts) + 1) / self.n)

    @cached_property
    def sample(self) -> Sample:
        """The rows about class means, for indices of rows."""
        return Sample.of(*self.centred)

    @cached_property
    def grams(self) -> tuple[StrataSums, StrataSums]:
        """Gram sums by class of source and target."""
        x, y = (self._sum_grams(side) for side in self.centred)
        return x, y

    def _sum_grams(self, rows: Tensor) -> StrataSums:
        """Compute the sums from Gram matrices, whose size does not grow with the columns."""
        count = len(self.counts)
        products = torch.zeros(count, count, dtype=torch.float64)
        split = (torch.split(of, _ROWS_AT_ONCE) for of in (rows, self.classes))
        for part, classes in zip(*split, strict=True):
            squares = (part @ rows.T).square()
            by_class = squares.new_zeros(count, self.n).index_add(0, classes, squares)
            products += by_class.new_zeros(count, count).index_add(1, self.classes, by_class)
        lengths = rows.square().sum(1)
        traces, quartic = (torch.zeros(count, dtype=torch.float64).index_add(0, self.classes, of)
                           for of in (lengths, lengths.square()))
        parts = zip(self.counts.tolist(), traces.tolist(), products.diagonal().tolist(), quartic.tolist(),
                    strict=True)
        return StrataSums([GramSums(*part) for part in parts], products)

    @property
    def unbiased_products(self) -> float:
        """Square norm of the cross scatter within classes: each class without bias, two classes as they are.

        The products of two classes have mean zero over permutations within classes.
        """
        x, y = self.centred
        lengths = x.square().sum(1), y.square().sum(1)
        total = float((x.T @ y).square().sum())
        for k, n in enumerate(self.counts.tolist()):
            a, b = (of[self.classes == k] for of in lengths)
            total += float(a.sum() * b.sum()) / ((n - 1) * (n - 2)) - float(a @ b) * (1 + 2 / (n - 2))
        return total

    @cached_property
    def folded(self) -> FoldedRows:
        """The rows in folds, each with its share of every class."""
        numbers = torch.zeros_like(self.classes)
        for k, n in enumerate(self.counts.tolist()):
            numbers[self.classes == k] = torch.arange(n)
        return FoldedRows.of(self.x, self.y, self.classes, numbers % FOLDS, self.precision)

    def mark(self, value: Value) -> Value:
        """Return a value with a mark if examples were left out."""
        if value.reason or not self.left_out:
            return value
        why = (f"{self.left_out} of {self.n + self.left_out} examples are in classes of fewer than "
               f"{FEWEST_ROWS} and left out")
        return replace(value, mark="; ".join(filter(None, (value.mark, why))))

    def select(self, rows: Tensor) -> ClassedRows:
        """Return some of the rows, or the same object for all of them in order."""
        if len(rows) == self.n:
            return self
        return replace(self, x=self.x[rows], y=self.y[rows], classes=self.classes[rows])

    def reorder(self, order: Tensor) -> ClassedRows:
        """Return the same rows with those of the target in another order, each within its class.

        What is known of both sides is carried over: only their products change.
        """
        made = replace(self, y=self.y[order])
        known: dict[str, Any] = {name: self.__dict__[name] for name in ("counts", "grams")
                                 if name in self.__dict__}
        made.__dict__.update(known, centred=(self.centred[0], self.centred[1][order]))
        if "folded" in self.__dict__:
            made.__dict__["folded"] = self.folded.reorder(order)
        return made


def choose_classes(labels: Ints) -> tuple[Ints, Ints]:
    """Return the rows of classes with at least `FEWEST_ROWS`, and their classes from 0; -1 is no class.

    Raises:
        UndefinedError: there are fewer than two such classes.
    """
    found, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    large = (counts >= FEWEST_ROWS) & (found != -1)
    require(bool((found != -1).any()), "no example has a class")
    require(len(found[found != -1]) > 1, "there is one class only, and within it an index is the one without "
                                         "@within")
    require(large.sum() > 1, f"fewer than two classes have {FEWEST_ROWS} examples")
    kept = np.flatnonzero(large[classes])
    return kept, np.unique(classes[kept], return_inverse=True)[1]
