"""One task of a study: a pair of networks to compare, known by its content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from suture import specs
from suture._base import Progress, SutureError, clean_file_name, fingerprint_network, get_time, hash_parts
from suture.compare import CompareOptions, DryRun, PreparedNetworks, Setup, dry_run, set_up
from suture.compare import compare_prepared as compare
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
        weights: fingerprints of the weights of both networks; "" for a module, which nobody builds again.
    """

    pair: PairName
    key: str
    weights: tuple[str, str] = field(default=("", ""), compare=False)

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
        groups: tasks that share passes over the data, each task in one group at most.
        memory: bytes that the sums of a shared pass may need.
        collected: setups of pairs with what a shared pass of this process has collected for them.
        tried: tasks that this process has run a shared pass for.
    """

    members: Mapping[str, Member]
    data: Any
    test: Any
    settings: Mapping[str, Any]
    groups: Sequence[Sequence[PairTask]] = ()
    memory: int = 0
    collected: dict[PairName, Setup] = field(default_factory=dict)
    tried: set[PairTask] = field(default_factory=set)
    _opened: dict[str, specs.LoadedNetwork] = field(default_factory=dict)
    _held: frozenset[str] = frozenset()
    _networks: PreparedNetworks = field(default_factory=lambda: PreparedNetworks(shared=True))

    def open(self, name: str, anew: bool = False) -> specs.LoadedNetwork:
        """Return a network, built anew unless it was among the last ones."""
        if anew or name not in self._opened:
            self._opened[name] = self.members[name].open(self.data)
            self._networks.read_again()
            old = [other for other in self._opened if other not in self._held | {name}][:-_KEPT]
            if old:
                self._opened = {other: one for other, one in self._opened.items() if other not in old}
                self._networks = PreparedNetworks(shared=True)
        self._opened[name] = self._opened.pop(name)
        return self._opened[name]

    def find_group(self, task: PairTask) -> Sequence[PairTask]:
        """Return the tasks that share a pass with a task; none if it has its own."""
        return next((group for group in self.groups if task in group), ())

    def hold(self, names: Iterable[str]) -> None:
        """Keep these networks in memory until others are held, and forget what was collected for others."""
        self._held = frozenset(names)
        self.collected.clear()

    def hold_still(self) -> AbstractContextManager[None]:
        """Return a block in which nothing changes a network but what builds one."""
        return self._networks.hold_still()

    def _open_pair(self, task: PairTask) -> list[specs.LoadedNetwork]:
        """Return both networks, found to have the weights that the key of the task was made from."""
        changed: list[str] = []
        for anew in (False, True):  # networks that share a module overwrite each other in memory
            loaded = [self.open(name, anew) for name in dict.fromkeys(task.pair)]
            changed = [name for name, one, known in zip(task.pair, loaded, task.weights, strict=False)
                       if known and fingerprint_network(one.network) != known]
            if not changed:
                return [loaded[0], loaded[-1]]
        raise SutureError(f"the function of {changed[0]!r} builds a network with other weights than before; "
                          "set a seed in it, and build a new module each time")

    def compare(self, task: PairTask, folder: Path | None = None, restart: bool = False,
                progress: Progress | None = None, **more: Any) -> Comparison:
        """Compare the two networks of a pair, each with the preprocessing that it asks for.

        Raises:
            SutureError: as `suture.compare`; a function builds another network than for the key of the task.
        """
        given = self._prepare(task)
        return compare(setup=self.collected.pop(task.pair, None), known=self._networks, **given,
                       save_to=folder, restart=restart, progress=prefix_progress(progress, task.pair),
                       **{**self.settings, **more})

    def set_up(self, task: PairTask) -> Setup:
        """Return the setup of a pair's comparison.

        Raises:
            SutureError: as `compare`.
        """
        return set_up(CompareOptions(**self._prepare(task), **self.settings), self._networks)

    def estimate(self, task: PairTask) -> DryRun:
        """Return the estimate of a pair's comparison."""
        return dry_run(**self._prepare(task), **self.settings)

    def _prepare(self, task: PairTask) -> dict[str, Any]:
        """Return networks, data and names of a pair as arguments of a comparison."""
        pair = task.pair
        one, other = self._open_pair(task)
        same = pair[0] == pair[1]
        theirs = one.preprocessing if same else other.preprocessing
        prepared = one.preprocessing is not None or theirs is not None
        data, test = (None if given is None else
                      specs.prepare_data(given, one.preprocessing, theirs, always=prepared)
                      for given in (self.data, self.test))
        return {"source": one.network, "target": None if same else other.network, "data": data, "test": test,
                "names": pair}

    def replace(self, **changes: Any) -> Work:
        return replace(self, _opened={}, collected={}, tried=set(),
                       _networks=PreparedNetworks(shared=True), **changes)


def prefix_progress(progress: Progress | None, pair: PairName) -> Progress | None:
    """Return a progress function whose stages name the pair."""
    if progress is None:
        return None
    tell = progress
    return lambda stage, done, total: tell(f"{pair[0]} into {pair[1]}: {stage}", done, total)
