"""Rows of one cell about the means of their classes, and what indices within classes need of them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture.indices.definition import Value, require
from suture.indices.sample import Sample
from suture.numbers import (
    FEWEST_ROWS,
    GramSums,
    Ints,
    MomentBlock,
    Moments,
    Pair,
    Spectrum,
    StrataSums,
    compute_squared_error,
    solve_least_squares,
)

_ROWS_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class ClassedRows:
    """Rows x (n, p) and y (n, q) of one cell, with the class (n,) of each from 0; made by `of`.

    `left_out` rows are of classes with fewer than `FEWEST_ROWS`. `precision` is the dtype in which rows were
    computed. `of_x` holds what is known of the source, for all orders of the target's rows.
    """

    x: Tensor
    y: Tensor
    classes: Tensor
    left_out: int = 0
    precision: torch.dtype = torch.float64
    of_x: dict[Hashable, Any] = field(default_factory=dict, repr=False)

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

    def _centre(self, rows: Tensor, known: Tensor | None = None) -> Tensor:
        """Subtract class means, those of the `known` (n,) rows if given."""
        weights = torch.ones(self.n) if known is None else known
        totals = rows.new_zeros(len(self.counts), rows.shape[1]).index_add(
            0, self.classes, rows * weights.to(rows)[:, None])
        counts = rows.new_zeros(len(self.counts)).index_add(0, self.classes, weights.to(rows))
        return rows - (totals / counts[:, None])[self.classes]

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
        if "grams" not in self.of_x:
            self.of_x["grams"] = self._sum_grams(self.centred[0])
        return self.of_x["grams"], self._sum_grams(self.centred[1])

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

    def compute_held_out(self, folds: int) -> tuple[float, float]:
        """Compute the squared error of the target's rows that were held out in turn, by an affine map of the
        source and by class means alone. Both come from the other folds.

        Every fold has its share of each class.
        """
        numbers = torch.zeros(self.n, dtype=torch.int64)
        for k, n in enumerate(self.counts.tolist()):
            numbers[self.classes == k] = torch.arange(n)
        error = total = 0.0
        for fold in range(folds):
            held = numbers % folds == fold
            if not bool(held.any()):
                continue
            x, y = (self._centre(side, ~held) for side in (self.x, self.y))
            fitted, tested = (Moments.of(x[rows], y[rows]) for rows in (~held, held))
            spectrum = self._find_spectrum(fold, fitted)
            weight = solve_least_squares(spectrum, fitted)
            error += float(compute_squared_error(weight, weight.new_zeros(len(weight)), tested))
            total += float(y[held].square().sum())
        return error, total

    def _find_spectrum(self, fold: int, fitted: Moments) -> Spectrum:
        if fold not in self.of_x:
            self.of_x[fold] = Spectrum.of(fitted.x, self.precision)
        found: Spectrum = self.of_x[fold]
        left = fitted.n - len(self.counts)
        require(found.rank < left, f"{left} rows outside of a fold, class means taken out, for rank "
                                   f"{found.rank}: the regression fits anything")
        return found

    def mark(self, value: Value) -> Value:
        """Return a value with a mark if examples were left out."""
        if value.reason or not self.left_out:
            return value
        why = (f"{self.left_out} of {self.n + self.left_out} examples are in classes of fewer than "
               f"{FEWEST_ROWS} and left out")
        return replace(value, mark="; ".join(filter(None, (value.mark, why))))

    def reorder(self, order: Tensor) -> ClassedRows:
        """Return the same rows with those of the target in another order, each within its class."""
        return replace(self, y=self.y[order])


def choose_classes(labels: Ints) -> tuple[Ints, Ints]:
    """Return the rows of classes with at least `FEWEST_ROWS`, and their classes from 0; -1 is no class.

    Raises:
        UndefinedError: there are fewer than two such classes.
    """
    found, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    large = (counts >= FEWEST_ROWS) & (found != -1)
    require(len(found[found != -1]) > 1, "there is one class only, and within it an index is the one without "
                                         "@within")
    require(large.sum() > 1, f"fewer than two classes have {FEWEST_ROWS} examples")
    kept = np.flatnonzero(large[classes])
    return kept, np.unique(classes[kept], return_inverse=True)[1]
