"""Statistics of one representation alone, and their differences.

They are magnitude, concentricity, spectrum and dead features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from suture.indices.definition import ORTHOGONAL, SCALING, Index, Needs, expand_invariances
from suture.numbers import Pair, Side, Spectrum, UnitRowSums, find_varying_columns, make_index_measure


def magnitude(pair: Pair) -> float:
    """Compute | |mean x| - |mean y| |, the difference of the lengths of the mean rows (Wang et al. 2020)."""
    m = pair.moments
    return abs(float(m.x.mean.norm()) - float(m.y.mean.norm()))


def concentricity(pair: Pair) -> float:
    """Compute the difference of the mean cosines of the rows with the mean row (Wang et al. 2020)."""
    assert pair.unit is not None
    m = pair.moments
    return abs(_compute_concentricity(pair.unit[0], m.x) - _compute_concentricity(pair.unit[1], m.y))


def _compute_concentricity(unit: UnitRowSums, side: Side) -> float:
    return float(unit.total @ side.mean) / (unit.n * float(side.mean.norm()))


def explain_no_mean(pair: Pair) -> str:
    """Return the reason why rows have no cosines with their mean, or an empty string.

    These cosines need examples as rows, no row of zeros, and a mean that is not zero.
    """
    if pair.unit is None:
        return ("cosines with the mean compare examples, and the rows of these matrices are "
                "positions: ask for @pool")
    m = pair.moments
    for name, side, unit in (("source", m.x, pair.unit[0]), ("target", m.y, pair.unit[1])):
        size = float(side.mean.norm())
        if size <= 1e-12 * math.sqrt(float(side.gram.trace()) / side.n):
            return f"the mean row of the {name} is zero: no row has an angle with it"
        if unit.zeros:
            return f"rows of the {name} are zero: they have no angle with the mean row"
    return ""


@dataclass(frozen=True)
class SiteStatistics:
    """Statistics of one representation.

    Attributes:
        n: rows.
        width: columns.
        dead: columns that do not vary.
        spectrum: (rank,) eigenvalues of the covariance (n - 1 degrees of freedom) above the rank cut, largest
            first.
    """

    n: int
    width: int
    dead: int
    spectrum: Tensor

    @classmethod
    def of(cls, side: Side, precision: torch.dtype = torch.float64) -> SiteStatistics:
        """Compute the statistics from the sums of one side about its mean.

        Args:
            side: of a `Moments`.
            precision: dtype in which its products were computed.
        """
        values = Spectrum.of(side, precision).values
        return cls(side.n, len(side.shift), int((~find_varying_columns(side, precision)).sum()),
                   values / max(1, side.n - 1))

    @property
    def rank(self) -> int:
        """Number of directions above the rank cut."""
        return len(self.spectrum)

    @property
    def effective_rank(self) -> float:
        """Effective rank: exp of the entropy of the singular values at sum 1 (Roy and Vetterli 2007).

        Rows are centred. It is 0 if there are no singular values.
        """
        if not self.rank:
            return 0.0
        share = self.spectrum.sqrt() / self.spectrum.sqrt().sum()
        return float((-(share * share.log()).sum()).exp())

    @property
    def participation_ratio(self) -> float:
        """Participation ratio: (sum of eigenvalues)² / sum of their squares; 0 if there are none."""
        return float(self.spectrum.sum() ** 2 / self.spectrum.square().sum()) if self.rank else 0.0


SITE_COLUMNS = ("side", "site", "rows", "width", "rank", "effective_rank", "participation_ratio", "dead")


def tabulate_statistics(arrays: Mapping[str, NDArray[Any]], sources: Sequence[str],
                        targets: Sequence[str]) -> list[list[Any]]:
    """Tabulate `SITE_COLUMNS` for every site whose spectrum is in a comparison's arrays."""
    found: list[list[Any]] = []
    for side, sites in (("source", sources), ("target", targets)):
        for k, site in enumerate(sites):
            if f"{side}.spectrum/{k}" in arrays:
                n, width, dead = map(int, arrays[f"{side}.rows/{k}"])
                s = SiteStatistics(n, width, dead, torch.as_tensor(arrays[f"{side}.spectrum/{k}"]))
                found.append([side, site, s.n, s.width, s.rank, s.effective_rank,
                              s.participation_ratio, s.dead])
    return found


_ROTATED = expand_invariances(ORTHOGONAL)
ENTRIES = (
    Index(make_index_measure("magnitude", "difference of magnitudes",
                             "Difference of the lengths of the mean rows (Wang et al. 2020). No upper limit.",
                             larger=False, form="inverse", span=(0.0, math.inf), judged=False), magnitude,
          "| |mean x| - |mean y| |", "Wang et al. 2020", _ROTATED, _ROTATED, least=1, cost="p + q"),
    Index(make_index_measure("concentricity", "difference of concentricities",
                             "Difference of the mean cosine similarities of rows with their mean "
                             "(Wang et al. 2020).", larger=False, form="negative", span=(0.0, 2.0),
                             judged=False),
          concentricity, "| mean cos(x, mean x) - mean cos(y, mean y) |", "Wang et al. 2020",
          expand_invariances(SCALING, ORTHOGONAL), expand_invariances(SCALING, ORTHOGONAL), Needs.UNITS, 2,
          explain_no_mean, cost="p + q"),
)
