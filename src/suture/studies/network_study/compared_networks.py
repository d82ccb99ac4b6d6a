"""Numbers over networks: matrices, means, trends, groups and distances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from suture._base import Seed, SutureError, checked, make_unknown_error
from suture.results import Comparison
from suture.studies.network_study.geometry import Embedding, check_metric, embed_networks
from suture.studies.network_study.group_contrast import GroupContrast, contrast_groups
from suture.studies.network_study.inference import NetworkPairs, Trend, find_trend, summarise_pairs
from suture.studies.network_study.layers import Reduce, Reduced, match_layers, reduce_layers
from suture.studies.population.pairs import PairName

if TYPE_CHECKING:
    import pandas as pd

@dataclass(frozen=True, eq=False)
class ComparedNetworks:
    """Numbers of many networks that were compared pair by pair; `Study` describes what else it has.

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

    @property
    def pairs(self) -> tuple[PairName, ...]:
        """The pairs that were compared."""
        return tuple(self.comparisons)

    @property
    def measures(self) -> list[str]:
        """The measures of the comparisons, which share their settings; empty without any."""
        return next(iter(self.comparisons.values())).measures if self.comparisons else []

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

    @checked
    def matrix(self, measure: str, reduce: Reduce = "diagonal", *, order: bool = False) -> pd.DataFrame:
        """Return one number for each pair of networks.

        Args:
            measure: a measure of the comparisons.
            reduce: how the cells of a pair become one number: ``"diagonal"`` is the mean over corresponding
                layers (by name in one architecture, else each layer of the deeper network with that of the
                same relative depth), ``"best"`` the mean over the layers of both networks of their most
                similar one, ``"transport"`` the mean over the layers matched by optimal transport.
            order: let matched layers keep their order, for ``"transport"``.

        Returns:
            A matrix (source networks, target networks). A pair in one direction stands for the other where
            the measure is symmetric. NaN where nothing was compared, or all cells are missing or marked.

        Raises:
            SutureError: no such measure.
        """
        return self._arrange({pair: (found.value, found.symmetric)
                              for pair, found in self.reduce(measure, reduce, order).items()})

    def reduce(self, measure: str, reduce: Reduce = "diagonal", order: bool = False
               ) -> Mapping[PairName, Reduced]:
        """Return the number of each pair that was compared, and how many cells it rests on."""
        key = measure, reduce, order
        if key not in self._reduced:
            self._reduced[key] = {pair: reduce_layers(self.comparisons[pair], measure, reduce, order)
                                  for pair in self.comparisons}
        return self._reduced[key]

    @cached_property
    def _reduced(self) -> dict[tuple[str, str, bool], dict[PairName, Reduced]]:
        return {}

    def _arrange(self, found: Mapping[PairName, tuple[float, bool]]) -> pd.DataFrame:
        """Return a matrix of values; symmetric ones stand for the other direction where that is missing."""
        import pandas as pd

        names = list(self.networks)
        place = {name: k for k, name in enumerate(names)}
        values = np.full((len(names), len(names)), np.nan)
        for (a, b), (value, symmetric) in found.items():
            values[place[a], place[b]] = value
            if symmetric and (b, a) not in found:
                values[place[b], place[a]] = value
        return pd.DataFrame(values, index=pd.Index(names, name="source"),
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
        labels = None if by is None else list(find_words(self, by))
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
        words = find_words(self, along)
        try:
            numbers = words.to_numpy(dtype=float)
        except (TypeError, ValueError) as error:
            raise SutureError(f"expected numbers as {along!r} of the networks, got {list(words)[:3]}"
                              ) from error
        return find_trend(self.matrix(measure, reduce), numbers, along, measure, seed)

    @checked
    def contrast(self, measure: str, by: str, reduce: Reduce = "diagonal", seed: Seed = 0) -> GroupContrast:
        """Return if networks with the same entry in a column of `about` are nearer to each other.

        Args:
            measure: a measure of the comparisons.
            by: a column of `about`.
            reduce: as for `matrix`.
            seed: of bootstrap and permutations.

        Raises:
            SutureError: no such column, or no pair within or across its groups.
        """
        return contrast_groups(self.matrix(measure, reduce), list(find_words(self, by)), by, measure, seed)

    @checked
    def distances(self, measure: str) -> pd.DataFrame:
        """Return distances of networks that are a metric: the mean over corresponding layers.

        Values become metrics as in Williams et al. (2021): the arc cosine of CKA, the root of the squared
        Procrustes distance.

        Raises:
            SutureError: the measure is no metric after any function known.
        """
        check_metric(measure)
        return self._arrange({pair: (found.distance, found.symmetric)
                              for pair, found in self.reduce(measure).items()})

    @checked
    def embed(self, measure: str = "cka") -> Embedding:
        """Return the networks as points in a plane (metric multidimensional scaling of `distances`)."""
        return embed_networks(self.distances(measure), measure)


def find_words(study: ComparedNetworks, column: str) -> pd.Series[Any]:
    """Return what is said of each network in a column of `about`."""
    if column not in study.about:
        raise make_unknown_error("column of about", column, map(str, study.about.columns))
    return study.about[column].reindex(list(study.networks))
