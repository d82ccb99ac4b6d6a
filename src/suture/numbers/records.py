"""Types of arrays, and records per example: numbers whose sums give the measure of a cell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suture._base import SutureError, make_unknown_error
from suture.numbers.measures import METHOD_NAMES

Floats = NDArray[np.float64]
Float32Array = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Arrays = Mapping[str, NDArray[Any]]
"""Arrays of a comparison by name."""


@dataclass(frozen=True)
class Record:
    """Parts of a cell's measure, which is ``top.sum() / bottom.sum()`` over its units, (N,) each.

    `top` is boolean for hits and misses, and a sum over tokens for examples of several tokens. With `batches`
    the units are test batches and `bottom` is one. With `exponential` the measure is exp of this ratio, with
    `root` its square root. `runs` are the values of the measure by several initialisations, whose mean is
    `top`; empty for one.
    """

    top: NDArray[Any]
    bottom: NDArray[Any]
    batches: bool = False
    exponential: bool = False
    root: bool = False
    runs: tuple[float, ...] = ()

    @property
    def value(self) -> float:
        """Value of the measure, the mean over initialisations."""
        if self.runs:
            return math.fsum(self.runs) / len(self.runs)
        return float(self.transform(self.top.sum(dtype=np.float64) / self.bottom.sum(dtype=np.float64)))

    def transform(self, ratio: Any) -> Any:
        """Return the measure for a ratio of sums, or for an array of them."""
        return np.exp(ratio) if self.exponential else np.sqrt(ratio) if self.root else ratio


def sum_by_batch(values: NDArray[Any], sizes: NDArray[Any]) -> Floats:
    """Sum `values` (..., N) over each test batch, of consecutive `sizes` (B,); the result is (..., B)."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums: Floats = np.add.reduceat(values.astype(np.float64), starts, axis=-1)
    return sums


RECORDS: Mapping[str, tuple[str, ...]] = {
    "accuracy": ("correct",),
    "relative_accuracy": ("correct", "correct"),
    "agreement": ("agree",),
    "kl": ("kl",),
    "ce_gap": ("ce", "ce"),
    "relative_perplexity": ("ce", "ce"),
    "residual": ("error", "scale"),
    "residual_batches": ("error", "scale", "batches"),
    "r2": ("error", "spread"),
    "output_r2": ("output_gap", "output_spread"),
    "output_error": ("output_gap", "output_scale"),
}
"""Arrays needed for a quantity: the method's, (sources, targets, N), then those of the target network."""


def name_runs(measure: str) -> str:
    """Return the name of the array (initialisations, S, T) of a measure's values by initialisation."""
    method, _, quantity = measure.rpartition(".")
    return f"{method}.runs.{quantity}"


def build_record(arrays: Arrays, name: str, i: int, j: int) -> Record:
    """Build the per-example record of measure `name`, such as ``"dm.kl"``, in cell (i, j).

    With ``target.tokens`` among the arrays the units are tokens, and an example has sums over its tokens.

    Raises:
        SutureError: the measure has no per-example record (structural indices), or the arrays lack it.
    """
    runs = arrays.get(name_runs(name))
    found = _build_parts(arrays, name, i, j)
    return found if runs is None else replace(found, runs=tuple(runs[:, i, j].tolist()))


def _build_parts(arrays: Arrays, name: str, i: int, j: int) -> Record:
    method, _, quantity = name.rpartition(".")
    if not method or quantity not in RECORDS:
        known = [f"{m}.{q}" for m in METHOD_NAMES for q in RECORDS]
        raise make_unknown_error("measure with a per-example record", name, known,
                                 "structural indices are functions of all examples at once")
    own, *target = RECORDS[quantity]
    needed = [f"{method}.{own}", *(f"target.{t}" for t in target)]
    for key in needed:
        if key not in arrays:
            raise SutureError(f"expected the per-example array {key!r} for {name!r}, this comparison has "
                              "none; compute it with this method and with labels in the test data")
    x, rest = arrays[needed[0]][i, j], [arrays[key] for key in needed[1:]]
    units = arrays["target.tokens"].astype(np.float64) if "target.tokens" in arrays else np.ones(len(x))
    if quantity == "relative_accuracy":
        return Record(x, rest[0].astype(np.float64))
    if own == "ce":
        return Record(x.astype(np.float64) - rest[0], units, exponential=quantity == "relative_perplexity")
    if own in ("error", "output_gap") and len(target) == 1:
        bottom = rest[0][j] if own == "error" else rest[0]
        top = bottom.astype(np.float64) - x if quantity.endswith("r2") else x
        return Record(top, bottom, root=quantity == "output_error")
    if quantity == "residual_batches":
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = sum_by_batch(x, rest[1]) / sum_by_batch(rest[0][j], rest[1])
        return Record(ratios, np.ones(len(ratios)), batches=True)
    return Record(x, units)
