"""The result of a study: comparisons of pairs, tables and matrices over networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from suture._base import FilePath, Seed, SutureError, checked, make_unknown_error
from suture.results import Comparison, load
from suture.studies.network_study.geometry import Embedding, embed_networks, link_networks, to_distance
from suture.studies.network_study.inference import NetworkPairs, Trend, find_trend, summarise_pairs
from suture.studies.network_study.layers import Reduce, match_layers, reduce_layers
from suture.studies.population.pairs import PairName
from suture.studies.running.store import StudyStore
from suture.studies.running.tasks import PairTask

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_OPEN = 64
"""Comparisons that stay in memory after they were loaded."""


class KeptComparisons(Mapping[PairName, Comparison]):
    """Comparisons by pair, loaded from their folders when they are asked for."""

    def __init__(self, places: Mapping[PairName, Path]) -> None:
        self.places = dict(places)
        self._loaded: dict[PairName, Comparison] = {}

    def __getitem__(self, pair: PairName) -> Comparison:
        if pair not in self._loaded:
            self._loaded[pair] = load(self.places[pair])
            for old in list(self._loaded)[:-_OPEN]:
                del self._loaded[old]
        return self._loaded[pair]

    def __iter__(self) -> Iterator[PairName]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True, eq=False)
class Study:
    """Comparisons of many networks.

    Attributes:
        networks: names, in the order given.
        about: what the user says of each network, one row each.
        comparisons: by pair (source, target), loaded when they are asked for.
        failures: reasons why pairs have none.
        meta: settings, versions, notes.
    """

    networks: tuple[str, ...]
    about: pd.DataFrame
    comparisons: Mapping[PairName, Comparison]
    failures: Mapping[PairName, str]
    meta: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def make(cls, about: Mapping[str, Any], comparisons: Mapping[PairName, Comparison],
             failures: Mapping[PairName, str]) -> Study:
        """Make a study from its manifest; without any comparison it says why."""
        import pandas as pd

        if not comparisons:
            pair, reason = next(iter(failures.items()))
            raise SutureError(f"no pair could be compared; {' into '.join(pair)}: {reason}")
        words = pd.DataFrame.from_dict(dict(about["networks"]), orient="index")
        words.index.name = "network"
        return cls(tuple(about["networks"]), words, comparisons, dict(failures), about)

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"Study({len(self.networks)} networks, {len(self.comparisons)} pairs{failed})"

    @property
    def pairs(self) -> tuple[PairName, ...]:
        """The pairs that were compared."""
        return tuple(self.comparisons)

    @checked
    def comparison(self, a: str, b: str) -> Comparison:
        """Return the comparison of the source `a` and the target `b`.

        Raises:
            SutureError: it was not made, or failed; the message says why.
        """
        for name in (a, b):
            if name not in self.networks:
                raise make_unknown_error("network", name, self.networks)
        if (a, b) in self.failures:
            raise SutureError(f"{a} into {b} failed: {self.failures[a, b]}")
        if (a, b) not in self.comparisons:
            other = f"; {b} into {a} is there" if (b, a) in self.comparisons else ""
            raise SutureError(f"expected a pair of the study, got {a} into {b}{other}; write "
                              "pairs='directed'")
        return self.comparisons[a, b]

    @cached_property
    def table(self) -> pd.DataFrame:
        """The tables of all pairs, with ``source_network``, ``target_network`` and what is said of both.

        A pair that failed has one row with its reason.
        """
        import pandas as pd

        parts = [made.table.assign(source_network=a, target_network=b)
                 for (a, b), made in self.comparisons.items()]
        parts += [pd.DataFrame([{"source_network": a, "target_network": b, "reason": reason}])
                  for (a, b), reason in self.failures.items()]
        whole = pd.concat(parts, ignore_index=True)
        for side in ("source", "target"):
            words = self.about.add_prefix(f"{side}_")
            whole = whole.merge(words, left_on=f"{side}_network", right_index=True, how="left")
        first = ["source_network", "target_network"]
        return whole[[*first, *(name for name in whole.columns if name not in first)]]

    @checked
    def matrix(self, measure: str, reduce: Reduce = "diagonal", *, order: bool = False) -> pd.DataFrame:
        """Return one number for each pair of networks.

        Args:
            measure: a measure of the comparisons.
            reduce: how the cells of a pair become one number: ``"diagonal"`` is the mean over corresponding
                layers (by name in one architecture, else by order), ``"best"`` the mean over the layers of
                both networks of their most similar one, ``"transport"`` the mean over the layers matched by
                optimal transport.
            order: let matched layers keep their order, for ``"transport"``.

        Returns:
            A matrix (source networks, target networks). A pair in one direction stands for the other where
            the measure is symmetric. NaN where nothing was compared, or all cells are missing or marked.

        Raises:
            SutureError: no such measure.
        """
        return self._reduce(measure, reduce, order)

    def _reduce(self, measure: str, reduce: str, order: bool,
                change: Callable[[float], float] | None = None) -> pd.DataFrame:
        import pandas as pd

        names = list(self.networks)
        found = np.full((len(names), len(names)), np.nan)
        for (a, b) in self.comparisons:
            value, symmetric = reduce_layers(self.comparisons[a, b], measure, reduce, order, change)
            i, j = names.index(a), names.index(b)
            found[i, j] = value
            if symmetric and (b, a) not in self.comparisons:
                found[j, i] = value
        return pd.DataFrame(found, index=pd.Index(names, name="source"),
                            columns=pd.Index(names, name="target"))

    @checked
    def layers(self, a: str, b: str, measure: str, *, order: bool = False) -> pd.DataFrame:
        """Match the layers of two networks by optimal transport over the cells of their comparison.

        Returns:
            Shares of a plan (source sites, target sites) that sum to one: each layer of the deeper network
            has an equal share, each of the other at least such a one, and more where several layers do what
            it does; with `order`, cells of a path share equally. The largest share of a layer is its match.
        """
        return match_layers(self.comparison(a, b), measure, order)

    @checked
    def summary(self, measure: str, reduce: Reduce = "diagonal", by: str | None = None, seed: Seed = 0
                ) -> pd.DataFrame:
        """Return the mean of a measure over the pairs of different networks, with an interval over networks.

        Args:
            measure: a measure of the comparisons.
            reduce: as for `matrix`.
            by: a column of `about`. Pairs of equal and unequal entries then have a row each.
            seed: of the bootstrap.

        Returns:
            Columns ``group``, ``value``, ``low``, ``high`` (a bootstrap over networks, never over pairs),
            ``networks``, ``pairs`` and ``reason`` for a missing interval.
        """
        labels = None if by is None else list(self._find_words(by))
        return summarise_pairs(NetworkPairs.of(self.matrix(measure, reduce)), labels, by or "", seed)

    @checked
    def trend(self, measure: str, along: str, reduce: Reduce = "diagonal", seed: Seed = 0) -> Trend:
        """Return how a measure changes with the difference of two networks in `along`, such as "epoch".

        Args:
            measure: a measure of the comparisons.
            along: a column of numbers in `about`.
            reduce: as for `matrix`.
            seed: of bootstrap and permutations.

        Raises:
            SutureError: no such column or no numbers in it, fewer than three pairs, or nothing that varies.
        """
        words = self._find_words(along)
        try:
            numbers = words.to_numpy(dtype=float)
        except (TypeError, ValueError) as error:
            raise SutureError(f"expected numbers as {along!r} of the networks, got {list(words)[:3]}"
                              ) from error
        return find_trend(self.matrix(measure, reduce), numbers, along, measure, seed)

    def _find_words(self, column: str) -> pd.Series[Any]:
        if column not in self.about:
            raise make_unknown_error("column of about", column, map(str, self.about.columns))
        return self.about[column].reindex(list(self.networks))

    @checked
    def distances(self, measure: str) -> pd.DataFrame:
        """Return distances of networks that are a metric: the mean over corresponding layers.

        Values become metrics as in Williams et al. (2021): the arc cosine of CKA, the root of the squared
        Procrustes distance.

        Raises:
            SutureError: the measure is no metric after any function known.
        """
        change = to_distance(measure)
        return self._reduce(measure, "diagonal", False, change)

    @checked
    def embed(self, measure: str = "cka") -> Embedding:
        """Return the networks as points in a plane (metric multidimensional scaling of `distances`)."""
        return embed_networks(self.distances(measure), measure)

    @checked
    def dendrogram(self, measure: str = "cka", ax: Axes | None = None) -> Axes:
        """Draw the tree of the networks, average linkage of `distances`."""
        from matplotlib import pyplot as plt
        from scipy.cluster.hierarchy import dendrogram

        links = link_networks(self.distances(measure))
        ax = plt.subplots(layout="constrained")[1] if ax is None else ax
        dendrogram(links, labels=list(self.networks), ax=ax, orientation="right")
        return ax

    @checked
    def save(self, folder: FilePath) -> Path:
        """Write all comparisons and the manifest into a folder, which `Study.load` reads."""
        store = StudyStore.open(folder)
        for task in read_tasks(self.meta):
            if task.pair in self.comparisons:
                self.comparisons[task.pair].save(store.get_place(task))
                store.finish(task)
            else:
                store.finish(task, self.failures[task.pair])
        store.write_manifest({**self.meta, "folder": str(folder)})
        return store.folder

    @classmethod
    @checked
    def load(cls, folder: FilePath) -> Study:
        """Load a study from its folder; a pair that is not finished yet counts as failed, for that reason.

        Raises:
            SutureError: the folder holds no study, or no finished pair.
        """
        store = StudyStore(Path(folder))
        about = store.read_manifest()
        places, failures = dict[PairName, Path](), dict(list_broken(about))
        for task in read_tasks(about):
            record = store.find(task)
            if record is None or record.reason:
                failures[task.pair] = "not finished" if record is None else record.reason
            else:
                places[task.pair] = store.get_place(task)
        return cls.make(about, KeptComparisons(places), failures)


def list_broken(about: Mapping[str, Any]) -> Iterator[tuple[PairName, str]]:
    """Yield the pairs of networks that cannot be built, with the reason, from the manifest of a study."""
    failed = about["failed"]
    for a, b in about["pairs"]:
        broken = next((name for name in (a, b) if name in failed), None)
        if broken is not None:
            yield (a, b), f"{broken} cannot be built: {failed[broken]}"


def read_tasks(about: Mapping[str, Any]) -> list[PairTask]:
    """Return the tasks that a manifest names."""
    return [PairTask((task["pair"][0], task["pair"][1]), task["key"]) for task in about["tasks"]]
