"""The record of what an index says by chance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from suture.numbers import Floats, Null


@dataclass(frozen=True)
class NullTest:
    """Value of an index against its null: the values with the rows of one side permuted.

    Attributes:
        value: the tested value, that of the kept rows where the null comes from draws.
        mean, std: of the null.
        p: share of permutations that are at least as similar.
        calibrated: 0 at the null's 95 % point, 1 at the largest similarity; nan if that is unknown.
        n: rows of the tested value.
        method: ``"closed form"``, or how many permutations of what.
        reason: why there is no null; "" if there is one.
        z: tested value less the mean of drawn permutations, over their deviation, larger for more similar;
            nan without draws.
        draws: the same of each permutation, for the null of a maximum over cells; None without draws.
    """

    value: float = math.nan
    mean: float = math.nan
    std: float = math.nan
    p: float = math.nan
    calibrated: float = math.nan
    n: int = 0
    method: str = ""
    reason: str = ""
    z: float = math.nan
    draws: Floats | None = field(default=None, compare=False, repr=False)

    @classmethod
    def missing(cls, reason: str) -> NullTest:
        """Make a test without a null."""
        return cls(reason=reason)

    @classmethod
    def of(cls, value: float, null: Null, best: float, larger: bool, n: int, method: str) -> NullTest:
        """Test a value whose `null` is of it, or of its negative where smaller is more similar.

        `best` is the value of identical data, nan or infinite if unknown.
        """
        sign = 1.0 if larger else -1.0
        return cls(value, sign * null.mean, null.std, null.compute_p_value(sign * value),
                   null.calibrate(sign * value, sign * best), n, method)
