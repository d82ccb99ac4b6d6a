"""Which alignment finds the corresponding layers of independently trained networks best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from suture._base import SutureError, checked, expect, show_value
from suture.indices import STITCH
from suture.results import measure_correspondence
from suture.studies.network_study.inference import NetworkPairs, summarise_pairs
from suture.studies.network_study.result import Study

if TYPE_CHECKING:
    import pandas as pd

ALIGNMENT_COLUMNS = ("kind", "index", "alignment", "share", "low", "high", "chance", "layers", "networks",
                     "best", "reason")


@checked
def rank_alignments(studies: Any) -> pd.DataFrame:
    """Return how often each index in each alignment finds the corresponding layer of another network.

    >>> rank_alignments({"ResNet": study_of_resnets, "ViT": study_of_vits})

    Args:
        studies: of networks of one design each, by the kind of network.

    Returns:
        A row for each kind, index and alignment: the `share` of target layers whose corresponding source
        layer is their most similar one, the mean over pairs of different networks, with a bootstrap over
        networks (missing below three, with its reason); the share by `chance`; numbers of layers and
        networks; and `best`, True for the alignments with the largest share of an index.

    Raises:
        SutureError: a study without two different networks.
    """
    import pandas as pd

    expect(isinstance(studies, Mapping) and all(isinstance(s, Study) for s in studies.values()),
           "studies by the kind of network", show_value(studies), "write {'ResNet': study}")
    rows: list[dict[str, Any]] = []
    for kind, study in studies.items():
        pairs = [(a, b) for a, b in study.pairs if a != b]
        if not pairs:
            raise SutureError(f"expected comparisons of different networks of the kind {kind!r}, got none; "
                              "write pairs='all'")
        rows += [{"kind": kind, **_describe(study, measure)} for measure in study.measures]
    table = pd.DataFrame(rows, columns=list(ALIGNMENT_COLUMNS))
    largest = table.groupby(["kind", "index"], sort=False)["share"].transform("max")
    return table.assign(best=table["share"] == largest)


def _describe(study: Study, measure: str) -> dict[str, Any]:
    """Return the share of target layers whose corresponding source layer a measure finds."""
    import pandas as pd

    names = list(study.networks)
    shares = pd.DataFrame(np.full((len(names), len(names)), np.nan), index=names, columns=names)
    layers, chance = 0, list[float]()
    for a, b in study.pairs:
        if a == b:
            continue
        found = measure_correspondence(study.comparison(a, b), measure)
        if found.layers:
            shares.loc[a, b] = found.nearest / found.layers
            layers += found.layers
            chance.append(1 / (2 * found.chance - 1))
    index, _, alignment = measure.partition("@")
    row = {"index": index, "alignment": alignment or STITCH, "layers": layers,
           "chance": float(np.mean(chance)) if chance else math.nan}
    if not layers:
        return row | dict.fromkeys(("share", "low", "high"), math.nan) | {
            "networks": 0, "reason": "no corresponding layers have values without a mark"}
    found_all = summarise_pairs(NetworkPairs.of(shares), None, "", 0).iloc[0]
    return row | {"share": float(found_all["value"]), "low": float(found_all["low"]),
                  "high": float(found_all["high"]), "networks": int(found_all["networks"]),
                  "reason": str(found_all["reason"])}
