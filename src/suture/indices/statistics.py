"""Statistics of one representation alone: its spectrum and its dead features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from suture.numbers import Side, Spectrum, find_varying_columns


@dataclass(frozen=True)
class SiteStatistics:
    """Statistics of one representation of `n` rows and `width` columns, `dead` of which do not vary.

    `spectrum` (rank,) has the eigenvalues of the covariance (divisor n - 1) above the rank cut, largest
    first.
    """

    n: int
    width: int
    dead: int
    spectrum: Tensor

    @classmethod
    def of(cls, side: Side, precision: torch.dtype = torch.float64) -> SiteStatistics:
        """Compute the statistics from sums about the mean; `precision` is the dtype of their products."""
        values = Spectrum.of(side, precision).values
        return cls(side.n, len(side.shift), int((~find_varying_columns(side, precision)).sum()),
                   values / max(1, side.n - 1))

    @property
    def rank(self) -> int:
        """Number of directions above the rank cut."""
        return len(self.spectrum)

    @property
    def effective_rank(self) -> float:
        """Exp of the entropy of the singular values at sum 1 (Roy and Vetterli 2007); 0 if there are none."""
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
