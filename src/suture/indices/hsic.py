"""HSIC of one cell, from which CKA is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from suture.indices.definition import LEAST_EXAMPLES
from suture.numbers import GramSums

T = TypeVar("T", float, Tensor)


@dataclass(frozen=True)
class Hsic:
    """HSIC of one cell, up to a factor: of source and target (`xy`), and of each with itself (`xx`, `yy`).

    Unbiased `xx` and `yy` up to `floor_x` and `floor_y` may be rounding alone.
    """

    xy: float
    xx: float
    yy: float
    floor_x: float = 0.0
    floor_y: float = 0.0


@dataclass(frozen=True)
class Kernels:
    """HSIC of the flattened examples of one cell, from which CKA is computed.

    Attributes:
        n: number of examples.
        constant: the sides ("source", "target") that do not vary.
        biased, unbiased: HSIC of all examples at once or summed over minibatches. `unbiased` is nan for fewer
            than `LEAST_EXAMPLES`.
        grams: sums of the Gram matrices of both sides, if all examples are in one.
    """

    n: int
    constant: tuple[str, ...]
    biased: Hsic
    unbiased: Hsic
    grams: tuple[GramSums, ...] = ()

    @property
    def independent(self) -> int:
        return self.n

    @property
    def freedom(self) -> int:
        """Number of examples less one for the mean, at least 1."""
        return max(1, self.n - 1)

    @property
    def participation(self) -> tuple[float, float]:
        """Participation ratios of source and target, as if all examples were equally far from the mean."""
        return self._solve(self.biased.xx, self.unbiased.xx), self._solve(self.biased.yy, self.unbiased.yy)

    def _solve(self, biased: float, unbiased: float) -> float:
        """Solve `estimate_hsic` of one side with itself for the traces, where joint = traces / n."""
        n = self.n
        if n < LEAST_EXAMPLES:
            return math.nan
        weight = 1 / n + 2 / (n * (n - 2)) - 1 / ((n - 1) * (n - 2))
        return (biased - n * (n - 3) * unbiased) / weight / biased


def estimate_hsic(n: int, products: T, joint: T, traces: T) -> T:
    """Estimate HSIC without bias (Song et al. 2012) from centred Gram matrices K and L of n examples.

    Their rows sum to zero, so without the diagonals k and l they sum to -k and -l. The estimator then needs
    only tr(KL) (`products`), sum kl (`joint`) and sum k sum l (`traces`).
    """
    return (products - joint + traces / ((n - 1) * (n - 2)) - 2 * joint / (n - 2)) / (n * (n - 3))
