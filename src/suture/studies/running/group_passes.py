"""Passes over the data that many pairs share: which pairs, and what becomes of the moments."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from suture._base import FOREIGN, LockedError, Progress
from suture.compare import Setup, collect_together
from suture.studies.population.pairs import PairName
from suture.studies.running.store import StudyStore
from suture.studies.running.tasks import PairTask, Work

_COPIES = 3
"""Copies of its representations that a network needs in a pass, beside its weights."""
_TRIES, _WAIT = 20, 0.05
"""Times that a pair is tried which another process looks at, and the seconds in between."""


@dataclass(frozen=True)
class Need:
    """Bytes that a pass needs for the sums of a pair, and for each of its networks by name."""

    pair: int
    networks: Mapping[str, int]

    @classmethod
    def of(cls, task: PairTask, setup: Setup) -> Need:
        sides = dict(zip(task.pair, (setup.source, setup.target), strict=False))
        return cls(setup.make_accumulators().nbytes_planned, {
            name: 4 * (_COPIES * setup.micro_batch * sum(s.width * max(1, s.rows) for s in side.shapes)
                       + sum(p.numel() for p in side.network.parameters())) for name, side in sides.items()})


def order_by_blocks(tasks: Sequence[PairTask], names: Sequence[str]) -> list[PairTask]:
    """Return tasks in an order of which every stretch has few networks: along a Z curve (Morton 1966)."""
    number = {name: k for k, name in enumerate(names)}

    def interleave(task: PairTask) -> int:
        a, b = (number[name] for name in task.pair)
        return sum((a >> k & 1) << 2 * k + 1 | (b >> k & 1) << 2 * k for k in range(len(names).bit_length()))

    return sorted(tasks, key=interleave)


def plan_groups(work: Work, tasks: Sequence[PairTask]) -> list[tuple[PairTask, ...]]:
    """Group the tasks that gain by a shared pass, by what the first of them would need."""
    counts = Counter(name for task in tasks for name in set(task.pair))
    shared = [task for task in tasks if any(counts[name] > 1 for name in task.pair)]
    for task in shared if work.memory else ():
        try:
            need = Need.of(task, work.set_up(task))
        except FOREIGN:
            continue
        each, pair = max(need.networks.values()), max(1, need.pair)
        # A square of r x r pairs has 2 r networks: pair r² + 2 each r = memory.
        r = (math.sqrt(each**2 + pair * work.memory) - each) / pair
        size = max(2, int(r * r))
        ordered = shared if size >= len(shared) else order_by_blocks(shared, list(work.members))
        return [tuple(ordered[k:k + size]) for k in range(0, len(ordered), size)]
    return []


def make_ready(work: Work, store: StudyStore | None, task: PairTask, progress: Progress | None) -> None:
    """Run the pass that a task shares with others, unless its moments are there.

    Raises:
        LockedError: another process runs it.
    """
    group = work.find_group(task)
    if not group or task.pair in work.collected or task in work.tried or _has_moments(store, task):
        return
    if store is None:
        _run_pass(work, store, task, group, progress)
        return
    with store.claim_pass(group):
        if not _has_moments(store, task):
            _run_pass(work, store, task, group, progress)


def is_passing(work: Work, store: StudyStore, task: PairTask) -> bool:
    """Return True while a process runs the pass that a task shares with others."""
    group = work.find_group(task)
    return bool(group) and not store.has_moments(task) and store.is_passing(group)


def _has_moments(store: StudyStore | None, task: PairTask) -> bool:
    return store is not None and store.has_moments(task)


def _run_pass(work: Work, store: StudyStore | None, task: PairTask, group: Sequence[PairTask],
              progress: Progress | None) -> None:
    start = group.index(task)
    waiting = [t for t in (*group[start:], *group[:start]) if t not in work.tried
               and not _has_moments(store, t)]
    work.hold(name for t in waiting for name in t.pair)
    with work.hold_still():
        setups = _set_up(work, waiting)
    places = None if store is None else _Places(store, {t.pair: t for t in waiting})
    work.collected |= {made.names: made for made in collect_together(setups, work.data, places, progress)}


def _set_up(work: Work, tasks: Sequence[PairTask]) -> list[Setup]:
    """Set up pairs as far as the memory of a pass reaches; what fails says why in its own comparison."""
    found, networks, pairs = list[Setup](), dict[str, int](), 0
    for task in tasks:
        try:
            setup = work.set_up(task)
        except FOREIGN:
            work.tried.add(task)
            continue
        need = Need.of(task, setup)
        together = {**networks, **need.networks}
        if len(found) > 1 and pairs + need.pair + sum(together.values()) > work.memory:
            break
        work.tried.add(task)
        found.append(setup)
        networks, pairs = together, pairs + need.pair
    return found


@dataclass(frozen=True)
class _Places:
    """The folders of pairs, which are claimed while something is written there."""

    store: StudyStore
    tasks: Mapping[PairName, PairTask]

    def find(self, setup: Setup) -> Path:
        return self.store.get_place(self.tasks[setup.names])

    @contextmanager
    def hold(self, setup: Setup) -> Iterator[None]:
        task = self.tasks[setup.names]
        with ExitStack() as block:
            for left in reversed(range(_TRIES)):
                try:
                    block.enter_context(self.store.claim(task))
                    break
                except LockedError:  # perhaps another process has just seen that there are no moments yet
                    if not left:
                        raise
                    time.sleep(_WAIT)
            block.enter_context(self.store.open_place(task))
            if self.store.has_moments(task):
                raise LockedError(f"another process has collected {' into '.join(task.pair)}")
            yield
