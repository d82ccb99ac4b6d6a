"""The result of linear probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from suture.numbers import Bools, estimate_proportion, mcnemar
from suture.results import adjust_holm

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("site", "rank", "width", "accuracy", "low", "high", "train_accuracy", "change", "p", "p_holm", "n",
           "features")


@dataclass(frozen=True, eq=False)
class Probes:
    """Linear probes of the sites of one network at several ranks.

    Attributes:
        table: a row for each site and rank: test accuracy with its Wilson interval, accuracy on the fitting
            data, the `change` from the probe of the whole width, p of that change (exact McNemar test on the
            same test examples) alone and adjusted over the ranks of the site (Holm 1979), number of test
            examples, and what the features are.
        hits: (N,) True where the probe of a site and a rank predicts the label of a test example.
        chance: share of the most frequent label of the test examples.
        notes: sentences for the reader.
    """

    table: pd.DataFrame
    hits: Mapping[tuple[str, int], Bools]
    chance: float
    notes: tuple[str, ...] = ()


def tabulate_site(site: str, ranks: Sequence[int], hits: Bools, fitted: Bools, features: str
                  ) -> list[dict[str, Any]]:
    """Return the rows of one site; the first of the ranks is its whole width.

    `hits` (R, N) are those on test data, `fitted` those on the fitting data.
    """
    rows: list[dict[str, Any]] = []
    full = hits[0]
    ps = [float("nan"), *(mcnemar(full, of) for of in hits[1:])]
    for k, (rank, p, holm) in enumerate(zip(ranks, ps, adjust_holm(np.array(ps)).tolist(), strict=True)):
        e = estimate_proportion(hits[k])
        rows.append({"site": site, "rank": rank, "width": ranks[0], "accuracy": e.value, "low": e.low,
                     "high": e.high, "train_accuracy": float(fitted[k].mean()),
                     "change": float(np.mean(hits[k]) - np.mean(full)), "p": p, "p_holm": holm,
                     "n": len(full), "features": features})
    return rows
