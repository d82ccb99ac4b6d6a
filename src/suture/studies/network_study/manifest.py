"""What a folder of a study says of it, and the comparisons in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from suture.results import Comparison, load
from suture.studies.population.pairs import PairName
from suture.studies.running.tasks import PairTask

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
