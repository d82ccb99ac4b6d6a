"""One task of a study: a pair of networks to compare, known by its content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from suture import specs
from suture._base import Progress, clean_file_name, get_time, hash_parts
from suture.compare import DryRun, compare, dry_run
from suture.results import Comparison
from suture.studies.population.members import Member
from suture.studies.population.pairs import PairName

_KEPT = 4
"""Networks made by functions and specs that stay in memory between the tasks of one worker."""


@dataclass(frozen=True)
class PairTask:
    """A pair of networks to compare.

    Attributes:
        pair: source and target.
        key: 16 hex digits of networks, data, settings and versions.
    """

    pair: PairName
    key: str

    @property
    def slug(self) -> str:
        """Name of its files: those of the networks, and the key."""
        names = "--".join(clean_file_name(name)[:60] for name in self.pair)
        return f"{names}-{hash_parts({'pair': list(self.pair)})[:6]}-{self.key}"


@dataclass(frozen=True)
class TaskRecord:
    """How a task ended.

    Attributes:
        pair, key: of the task.
        reason: why it failed, in one line; "" for one that is done.
        digest: of the file of its result.
        computed: when it ended, as text.
        seconds: that it took.
    """

    pair: PairName
    key: str
    reason: str = ""
    digest: str = ""
    computed: str = field(default_factory=get_time)
    seconds: float = 0.0


@dataclass(eq=False)
class Work:
    """What every task of a study needs; a worker of an engine has one.

    Attributes:
        members: the networks by name.
        data, test: as `suture.compare` takes them.
        settings: keyword arguments of `suture.compare`.
    """

    members: Mapping[str, Member]
    data: Any
    test: Any
    settings: Mapping[str, Any]
    _opened: dict[str, specs.LoadedNetwork] = field(default_factory=dict)

    def open(self, name: str) -> specs.LoadedNetwork:
        """Return a network, built anew unless it was among the last ones."""
        if name not in self._opened:
            self._opened[name] = self.members[name].open(self.data)
            for old in list(self._opened)[:-_KEPT]:
                del self._opened[old]
        self._opened[name] = self._opened.pop(name)
        return self._opened[name]

    def compare(self, pair: PairName, folder: Path | None = None, restart: bool = False,
                progress: Progress | None = None, **more: Any) -> Comparison:
        """Compare the two networks of a pair, each with the preprocessing that it asks for."""
        return compare(**self._prepare(pair), save_to=folder, restart=restart,
                       progress=prefix_progress(progress, pair), **{**self.settings, **more})

    def estimate(self, pair: PairName) -> DryRun:
        """Return the estimate of a pair's comparison."""
        return dry_run(**self._prepare(pair), **self.settings)

    def _prepare(self, pair: PairName) -> dict[str, Any]:
        """Return networks, data and names of a pair as arguments of a comparison."""
        one, other = (self.open(name) for name in pair)
        same = pair[0] == pair[1]
        theirs = one.preprocessing if same else other.preprocessing
        prepared = one.preprocessing is not None or theirs is not None
        data, test = (None if given is None else
                      specs.prepare_data(given, one.preprocessing, theirs, always=prepared)
                      for given in (self.data, self.test))
        return {"source": one.network, "target": None if same else other.network, "data": data, "test": test,
                "names": pair}

    def replace(self, **changes: Any) -> Work:
        return replace(self, _opened={}, **changes)


def prefix_progress(progress: Progress | None, pair: PairName) -> Progress | None:
    """Return a progress function whose stages name the pair."""
    if progress is None:
        return None
    tell = progress
    return lambda stage, done, total: tell(f"{pair[0]} into {pair[1]}: {stage}", done, total)
