"""A record of grids, read for claims and figures: matrices over networks, contests, shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from suture.numbers import Bools, Floats, get_measure
from suture.results import adjust_holm
from suture.studies.experiments.claims import NetworkMean
from suture.studies.experiments.record import Record
from suture.studies.population.pairs import PairName

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05
_PAIR = ["source_network", "target_network"]


@dataclass(frozen=True, eq=False)
class Grids:
    """The grids of a record, or of those of its parts and pairs that are asked for.

    Cells `where` are (source sites, target sites), or (pairs, source sites, target sites).

    Attributes:
        record: with the tables of `collect_grids`.
        part: name of the part; None for all.
        own: True for networks with themselves, False for different ones, None for both.
    """

    record: Record
    part: str | None = None
    own: bool | None = None

    def _read(self, name: str) -> pd.DataFrame:
        table = self.record.read(name)
        if table.empty or not set(_PAIR) <= set(table.columns):
            return table
        kept = np.ones(len(table), bool)
        if self.part is not None:
            kept &= (table["part"].astype(object).fillna("") == self.part).to_numpy()
        if self.own is not None:
            kept &= ((table["source_network"] == table["target_network"]) == self.own).to_numpy()
        return table[kept]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Rows of ``cells``."""
        return self._read("cells")

    @cached_property
    def pairs(self) -> list[PairName]:
        """The pairs of networks."""
        if self.cells.empty:
            return []
        return [(str(a), str(b)) for a, b in self.cells[_PAIR].drop_duplicates().to_numpy()]

    @property
    def networks(self) -> int:
        """Number of different networks, or of different pairs, whose two directions are one, if fewer."""
        return min(len(self._names), len({frozenset(pair) for pair in self.pairs}))

    @property
    def _names(self) -> list[str]:
        return sorted({name for pair in self.pairs for name in pair})

    def summarise_shares(self, shares: Sequence[float], trials: int) -> NetworkMean:
        """Return the mean of a share of each pair, over pairs, with its interval over networks."""
        found = np.array(shares, dtype=float)
        without = [_mean(found[[name not in pair for pair in self.pairs]]) for name in self._names]
        known = tuple(found[~np.isnan(found)].tolist())
        return NetworkMean(known, self.networks, tuple(without), max(1, trials))

    @cached_property
    def sites(self) -> tuple[list[str], list[str]]:
        """Source and target sites in their order."""
        if self.cells.empty:
            return [], []
        return (list(self.cells["source"].drop_duplicates()), list(self.cells["target"].drop_duplicates()))

    def has(self, measure: str) -> bool:
        """Return True if there are cells of a measure."""
        return not self.cells.empty and bool((self.cells["measure"] == measure).any())

    def values(self, measure: str) -> Floats:
        """Return the values of a measure, (pairs, source sites, target sites); nan where there are none."""
        return self._stack(measure, "value", math.nan).astype(float)

    def marked(self, measure: str) -> Bools:
        """Return where cells are marked, shaped as `values`."""
        found: Bools = self._stack(measure, "mark", "") != ""
        return found

    def _stack(self, measure: str, column: str, missing: Any) -> np.ndarray:
        sources, targets = self.sites
        found = np.full((len(self.pairs), len(sources), len(targets)), missing, dtype=object)
        if self.cells.empty:
            return found
        of = self.cells[self.cells["measure"] == measure]
        place = ({pair: k for k, pair in enumerate(self.pairs)}, {s: i for i, s in enumerate(sources)},
                 {t: j for j, t in enumerate(targets)})
        for a, b, s, t, v in of[[*_PAIR, "source", "target", column]].itertuples(index=False):
            found[place[0][a, b], place[1][s], place[2][t]] = missing if v is None or v != v else v
        return found

    def matrix(self, measure: str) -> pd.DataFrame:
        """Return the mean of a measure over pairs, source sites x target sites."""
        import pandas as pd

        values = self.values(measure)
        known = (~np.isnan(values)).sum(0)
        mean = np.where(known > 0, np.nansum(values, 0) / np.maximum(known, 1), np.nan)
        return pd.DataFrame(mean, self.sites[0], self.sites[1])

    def share_marked(self, measure: str, where: Bools | None = None) -> float:
        """Return the share of marked cells, of all or of those `where`."""
        marked = self.marked(measure)
        kept = marked if where is None else marked[np.broadcast_to(where, marked.shape)]
        return float(kept.mean()) if kept.size else 0.0

    def average(self, measure: str, where: Bools) -> NetworkMean:
        """Return the mean of each pair's cells `where`, over pairs."""
        values = self.values(measure)
        return NetworkMean.of([_mean(v[w]) for v, w in zip(values, np.broadcast_to(where, values.shape),
                                                           strict=True)], self.networks,
                              limits=get_measure(measure).native)

    def subtract(self, one: str, other: str, where: Bools) -> NetworkMean:
        """Return the mean difference of two measures at the cells `where`, over pairs."""
        return NetworkMean.of([_mean((a - b)[where]) for a, b in
                               zip(self.values(one), self.values(other), strict=True)], self.networks)

    @property
    def off_diagonal(self) -> Bools:
        """Cells of sites that do not correspond, (source sites, target sites)."""
        sources, targets = self.sites
        found = np.array([[s != t for t in targets] for s in sources], bool)
        return found.reshape(len(sources), len(targets))

    @property
    def own_layers(self) -> Bools:
        """Cells of a network's layer with itself, which tell nothing, (pairs, source sites, target sites)."""
        own = np.array([a == b for a, b in self.pairs], bool).reshape(-1, 1, 1)
        found: Bools = own & ~self.off_diagonal
        return found

    @property
    def late_into_early(self) -> Bools:
        """Cells of the last third of the source sites into the first third of the target sites."""
        s, t = map(len, self.sites)
        found = np.zeros((s, t), bool)
        found[max(0, s - max(1, s // 3)):, :max(1, t // 3)] = True
        return found

    def list_nearest(self, measure: str) -> NetworkMean:
        """Return the share of target sites whose most similar source site corresponds, over pairs.

        A tie with another site is none. Sites without a value of their own are left out.
        """
        entry, (sources, targets) = get_measure(measure), self.sites
        shares = []
        for values in self.values(measure):
            common = values if entry.larger_is_more_similar else -values
            hits = []
            for j, target in enumerate(targets):
                own = sources.index(target) if target in sources else -1
                others = np.delete(common[:, j], own) if own >= 0 else common[:0, j]
                if own >= 0 and not np.isnan(common[own, j]) and not np.isnan(others).all():
                    hits.append(common[own, j] > np.nanmax(others))
            shares.append(float(np.mean(hits)) if hits else math.nan)
        return self.summarise_shares(shares, len(targets))

    def judge_contests(self, measure: str) -> list[Contests]:
        """Return how often another layer beats a layer itself, for each pair."""
        table = self._read("contests")
        found = []
        for a, b in self.pairs:
            of = table[(table["source_network"] == a) & (table["target_network"] == b)
                       & (table["measure"] == measure)]
            lost, marked = of["lost"].astype(bool).to_numpy(), of["marked"].astype(bool).to_numpy()
            p = adjust_holm(of["p"].to_numpy(float)[lost & ~marked])
            found.append(Contests(len(of), int(lost.sum()), int((p < LEVEL).sum()), int(marked.sum())))
        return found


@dataclass(frozen=True)
class Contests:
    """Layers of one network, and for how many another layer is more similar than the layer itself.

    Attributes:
        layers: that were judged.
        lost: to another layer.
        beyond: of those, beyond test-set noise and not on marked cells (Holm over layers, p < 0.05).
        marked: layers whose outcome rests on cells that have not converged.
    """

    layers: int
    lost: int
    beyond: int
    marked: int

    @property
    def violated(self) -> bool | None:
        """True if a layer is beaten beyond noise, False if none is and all are known, else None."""
        return True if self.beyond else False if not self.marked else None


def sum_contests(found: Sequence[Contests]) -> Contests:
    """Return the sums over networks."""
    names = ("layers", "lost", "beyond", "marked")
    return Contests(*(sum(getattr(c, name) for c in found) for name in names))


def _mean(values: Floats) -> float:
    return float(np.nanmean(values)) if values.size and not np.isnan(values).all() else math.nan
