"""Networks as points: distances that are metrics, their embedding and their tree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from suture._base import SutureError
from suture.numbers import MEASURES, Floats, eigh, get_measure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

def check_metric(measure: str) -> None:
    """Check that a function is known which makes values of a measure a metric.

    Raises:
        SutureError: there is none.
    """
    if not get_measure(measure).metric:
        known = ", ".join(name for name, entry in MEASURES.items() if entry.metric)
        raise SutureError(f"{measure} is no metric, so distances of networks by it say nothing; choose "
                          f"{known}")


def check_distances(distances: pd.DataFrame) -> Floats:
    """Return the distances (n, n), symmetric and complete, or say which pair is missing."""
    found = distances.to_numpy(copy=True)
    np.fill_diagonal(found, 0.0)
    missing = np.argwhere(np.isnan(found))
    if len(missing):
        i, j = missing[0]
        names = distances.index
        raise SutureError(f"expected a distance of every pair of networks, got none of {names[i]} and "
                          f"{names[j]}; write pairs='all', or leave networks out")
    return np.asarray((found + found.T) / 2)


def keep_complete(distances: pd.DataFrame) -> pd.DataFrame:
    """Return the distances of networks of which none is missing; who lacks most is left out first."""
    found = distances.copy()
    while True:
        missing = found.isna().to_numpy() & ~np.eye(len(found), dtype=bool)
        if not missing.any():
            return found
        worst = found.index[int(np.argmax(missing.sum(0) + missing.sum(1)))]
        found = found.drop(index=worst, columns=worst)


@dataclass(frozen=True, eq=False)
class Embedding:
    """Networks as points in a plane, by metric multidimensional scaling.

    Attributes:
        points: one row for each network, ``x`` and ``y``.
        stress: normalised (Kruskal's stress 1): 0 is perfect, above 0.2 is poor.
        measure: what the distances are of.
    """

    points: pd.DataFrame
    stress: float
    measure: str

    def plot(self, ax: Axes) -> Axes:
        """Draw the points with their names."""
        from suture.results import embed_fonts, make_printable, resolve_points

        embed_fonts(ax.get_figure(root=True))
        ax.plot(self.points["x"], self.points["y"], "o")
        for name, row in self.points.iterrows():
            ax.annotate(make_printable(str(name)), (row["x"], row["y"]), xytext=(3, 3),
                        textcoords="offset points", fontsize=resolve_points("font.size", 0.8),
                        parse_math=False)
        ax.set_aspect("equal", "datalim")
        ax.set_title(f"{get_measure(self.measure).label}, stress {self.stress:.2f}")
        return ax


def embed_networks(distances: pd.DataFrame, measure: str, seed: int = 0) -> Embedding:
    """Embed networks in a plane: classical scaling, then SMACOF from there (de Leeuw 1977)."""
    import pandas as pd

    d = check_distances(distances)
    n = len(d)
    if n < 3:
        raise SutureError(f"expected at least 3 networks to embed, got {n}")
    centre = np.eye(n) - 1 / n
    values, vectors = (t.numpy() for t in eigh(torch.from_numpy(-0.5 * centre @ d**2 @ centre)))
    start = vectors[:, -2:][:, ::-1] * np.sqrt(np.clip(values[-2:][::-1], 0, None))
    points = _majorise(d, start)
    away = np.linalg.norm(points[:, None] - points[None], axis=2)
    scale = float((d**2).sum())
    stress = math.sqrt(float(((d - away)**2).sum()) / scale) if scale else 0.0
    return Embedding(pd.DataFrame(points, index=distances.index, columns=["x", "y"]), stress, measure)


def _majorise(d: Floats, start: Floats) -> Floats:
    from sklearn.manifold import smacof

    found, _ = smacof(d, metric=True, n_components=2, init=start, n_init=1, max_iter=500, eps=1e-9)
    return np.asarray(found)


def link_networks(distances: pd.DataFrame) -> Floats:
    """Return SciPy's linkage of the networks, average linkage in optimal order."""
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    if len(distances) < 2:
        raise SutureError(f"expected at least 2 networks for a tree, got {len(distances)}")
    found: Floats = linkage(squareform(check_distances(distances), checks=False), "average",
                            optimal_ordering=True)
    return found
