"""The tables of a study of grids: cells, contests, verdicts, energies, detectors and networks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from suture._base import SutureError
from suture.numbers import METHOD_NAMES
from suture.results import Comparison, tabulate_contests
from suture.studies.experiments.record import Found
from suture.studies.network_study.result import Study

if TYPE_CHECKING:
    import pandas as pd

QUANTITIES = ("accuracy", "relative_accuracy", "agreement", "residual", "residual_batches",
              "natural_distance", "informational_residual", "auroc_energy", "ap_energy", "fpr95_energy",
              "ood_energy")
"""What is kept of each method's cells."""
_ENERGY = "energy"
CELLS = ("cells", "contests", "networks")
"""Tables that an experiment of grids keeps at least."""


def collect_grids(study: Study, kept: Collection[str] = CELLS) -> Found:
    """Collect tables of all comparisons of a study, each with the names of its two networks.

    - ``cells``: value, interval, n, reason and mark of each measure and cell, one row each.
    - ``contests``: of each target layer with the most similar other source layer (`tabulate_contests`).
    - ``verdicts``: word of each cell by each method.
    - ``energies``: densities of energies of native, auxiliary and stitched examples in bins, over the source
      sites.
    - ``detectors``: AUROC of each target site's detector on auxiliary and on unseen images.
    - ``networks``: accuracies on the test data.

    Args:
        kept: names of the tables.
    """
    import pandas as pd

    makers = {"cells": _list_cells, "contests": _list_contests, "verdicts": _list_verdicts,
              "energies": _list_energies, "detectors": _list_detectors}
    accuracies = dict[str, float]()
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in makers if name in kept}
    for (a, b), made in study.comparisons.items():
        for name, of in parts.items():
            table = makers[name](made)
            if not table.empty:
                table.insert(0, "source_network", a)
                table.insert(1, "target_network", b)
                of.append(table)
        accuracies[b] = float(made.meta.get("target_accuracy", np.nan))
    tables = {name: pd.concat(of, ignore_index=True) for name, of in parts.items() if of}
    tables["networks"] = pd.DataFrame({"network": list(accuracies), "accuracy": list(accuracies.values())})
    return Found(tables, describe_study(study))


def describe_study(study: Study) -> dict[str, Any]:
    """Return how a study was made, as JSON."""
    first = next(iter(study.comparisons.values()), None)
    meta: Mapping[str, Any] = {} if first is None else first.meta
    return {"networks": list(study.networks), "pairs": len(study.comparisons),
            "failures": {" into ".join(pair): why for pair, why in study.failures.items()},
            "n_fit": meta.get("n_fit"), "n_test": meta.get("n_test"),
            "settings": dict(meta.get("settings") or {}), "versions": dict(meta.get("versions") or {}),
            "data": meta.get("data", {}), "detectors": _describe_detectors(meta)}


def _describe_detectors(meta: Mapping[str, Any]) -> dict[str, str]:
    about = meta.get("ood") or {}
    return {name: str(about[name]) for name in ("positive", "auxiliary", "unseen") if name in about}


def list_measures(made: Comparison) -> list[str]:
    """Return the measures that are kept: `QUANTITIES` of each method, and all indices."""
    kept = {f"{method}.{quantity}" for method in METHOD_NAMES for quantity in QUANTITIES}
    return [name for name in made.measures if name in kept or "." not in name]


def _list_cells(made: Comparison) -> pd.DataFrame:
    table = made.table[made.table["measure"].isin(list_measures(made))]
    return table[["source", "target", "measure", "value", "low", "high", "n", "reason", "mark"]].copy()


def _list_contests(made: Comparison) -> pd.DataFrame:
    import pandas as pd

    if not made.corresponds:
        return pd.DataFrame()
    judged = [name for name in list_measures(made) if name.endswith(("relative_accuracy", "residual"))
              or "." not in name]
    return pd.concat([tabulate_contests(made, name).assign(measure=name) for name in judged],
                     ignore_index=True)


def _list_verdicts(made: Comparison) -> pd.DataFrame:
    import pandas as pd

    found = []
    for method in METHOD_NAMES:
        try:
            words = made.cells(method)
        except SutureError:  # without stitching or natural ranges there are none
            continue
        long = words.rename_axis(index="source", columns=None).reset_index().melt(
            "source", var_name="target", value_name="word")
        found.append(long.assign(method=method))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _list_energies(made: Comparison) -> pd.DataFrame:
    import pandas as pd

    from suture.results import choose_bins, collect_scores, compute_densities

    rows = list[dict[str, Any]]()
    for j, target in enumerate(made.targets if f"native.{_ENERGY}" in made.arrays else ()):
        scores = collect_scores(made, _ENERGY, j)
        bins = choose_bins(scores)
        rows += [{"target": target, "kind": kind, "low": low, "high": high, "density": height}
                 for kind, heights in compute_densities(scores, bins).items()
                 for low, high, height in zip(bins[:-1], bins[1:], heights, strict=True)]
    return pd.DataFrame(rows)


def _list_detectors(made: Comparison) -> pd.DataFrame:
    import pandas as pd

    found = ((made.meta.get("ood") or {}).get("quality") or {}).get(_ENERGY) or []
    return pd.DataFrame([{"target": target, **{kind: of.get(f"{kind}_one_sided") for kind in
                                               ("auxiliary", "unseen")}}
                         for target, of in zip(made.targets, found, strict=False)])
