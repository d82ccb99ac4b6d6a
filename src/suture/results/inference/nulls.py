"""Nulls of the indices of a comparison: tables, and which cells are not above chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from suture._base import expect, make_unknown_error
from suture.numbers import Floats
from suture.results.measured import Measured

if TYPE_CHECKING:
    import pandas as pd

NULL_FIELDS = ("value", "mean", "std", "p", "calibrated", "n", "z")
"""Fields of `suture.indices.NullTest` in the arrays of a comparison."""
NULL_COLUMNS = ("source", "target", "value", "null_mean", "null_std", "p", "p_holm", "p_max", "calibrated",
                "n", "method", "reason")
LEVEL = 0.05
"""Level of the p-values, adjusted for all cells of a measure, from which a cell is above chance."""


def adjust_holm(p: Floats) -> Floats:
    """Adjust the p-values of several tests (Holm 1979); nan is no test."""
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted


def _adjust_by_maximum(z: Floats, maxima: Floats | None) -> Floats:
    """Compare values with the largest of all cells in each permutation (Westfall and Young 1993)."""
    if maxima is None:
        return np.full(z.shape, np.nan)
    # The rounding of a value that permutations do not change must not decide.
    above = (maxima[None] >= z[:, None] - 1e-9).sum(1)
    return np.where(np.isnan(z), np.nan, (1 + above) / (1 + len(maxima)))


def find_chance(measured: Measured, measure: str) -> npt.NDArray[np.bool_]:
    """Return True for cells, (S, T), that are not above chance at `LEVEL`; False without a null.

    p-values are adjusted for all cells, by the maximum where permutations were drawn: Holm's adjustment needs
    more of them than cells / `LEVEL`.
    """
    tests = measured.arrays.get(f"null.tests/{measure}")
    shape = len(measured.sources), len(measured.targets)
    if tests is None:
        return np.zeros(shape, bool)
    by_maximum = _adjust_by_maximum(tests[NULL_FIELDS.index("z")].ravel(),
                                    measured.arrays.get(f"null.maxima/{measure}"))
    adjusted = np.where(np.isnan(by_maximum), adjust_holm(tests[NULL_FIELDS.index("p")].ravel()), by_maximum)
    return np.asarray(adjusted > LEVEL).reshape(shape)


def count_above_chance(measured: Measured, measure: str) -> tuple[int, int]:
    """Return how many cells are above chance at `LEVEL` (`find_chance`), and how many were tested."""
    tested = ~np.isnan(measured.arrays[f"null.tests/{measure}"][NULL_FIELDS.index("p")])
    return int((tested & ~find_chance(measured, measure)).sum()), int(tested.sum())


def tabulate_nulls(measured: Measured, measure: str) -> pd.DataFrame:
    """Return the nulls of one measure; see `Comparison.null`."""
    import pandas as pd

    if measure not in measured.measures:
        raise make_unknown_error("measure", measure, measured.measures)
    about: Any = measured.meta.get("nulls", {}).get(measure)
    expect(about is not None, "an index with a null, of this version",
           f"{measure!r} without one", "compare again, or ask for another measure")
    shape = len(measured.sources), len(measured.targets)
    tests = measured.arrays.get(f"null.tests/{measure}", np.full((len(NULL_FIELDS), *shape), np.nan))
    found = {name: tests[k].ravel() for k, name in enumerate(NULL_FIELDS)}
    reasons, methods = (_spread_words(about[kind], shape) for kind in ("reasons", "methods"))
    return pd.DataFrame({
        "source": np.repeat(measured.sources, shape[1]), "target": np.tile(measured.targets, shape[0]),
        "value": found["value"], "null_mean": found["mean"], "null_std": found["std"], "p": found["p"],
        "p_holm": adjust_holm(found["p"]),
        "p_max": _adjust_by_maximum(found["z"], measured.arrays.get(f"null.maxima/{measure}")),
        "calibrated": found["calibrated"], "n": np.nan_to_num(found["n"]).astype(np.int64),
        "method": methods, "reason": reasons}, columns=list(NULL_COLUMNS))


def _spread_words(about: dict[str, Any], shape: tuple[int, int]) -> list[str]:
    texts = np.full(shape, "", object)
    for text, cells in about.items():
        if cells == "all":
            texts[:] = text
        for i, j in () if cells == "all" else cells:
            texts[i, j] = text
    return [str(t) for t in texts.ravel()]
