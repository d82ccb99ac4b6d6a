"""One pass over the data for many comparisons: every network runs once on each batch, for all its pairs.

Each comparison gets the same pieces of the batches, in the same order, as in a pass of its own, so that its
numbers are the same bit for bit. What it has so far is kept in its own folder, as by a pass of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from torch import Tensor

from suture._base import FOREIGN, Progress, is_out_of_memory
from suture.compare.fitting.filling import Filling
from suture.compare.fitting.group_checkpoints import PASS, GroupCheckpoints, Places
from suture.compare.setup import Setup
from suture.data import Batch, Batches, MicroBatch, Paired, Prepared, move_batch
from suture.networks import SitedNetwork, disable_gradients
from suture.numbers import SharedWork

Fronts = dict[Hashable, list[Tensor]]


@disable_gradients()
def collect_together(setups: Sequence[Setup], data: Any, places: Places | None = None,
                     progress: Progress | None = None) -> list[Setup]:
    """Run one pass over the fitting data of comparisons that have the same data and settings.

    Args:
        data: as all the comparisons got them.
        places: where what was collected is kept, about every minute, at an interruption, and at the end.

    Returns:
        Those setups that share the pass, with what it has collected. What fails is left out, and so are
        comparisons whose networks get inputs of their own: they say why in a pass of their own, or need one.
    """
    setups = _choose_alike(setups, data)
    if len(setups) < 2:
        return []
    group = _Group(setups)
    try:
        with GroupCheckpoints(group.fillings, group.batches, places) as kept:
            for k, batch in kept.read():
                group.add(batch)
                kept.step(k + 1)
                if progress is not None:
                    progress(PASS, k + 1, group.batches.count_batches())
            kept.finish()
        return group.finish()
    except FOREIGN:
        return []


def _choose_alike(setups: Sequence[Setup], data: Any) -> list[Setup]:
    """Return the setups whose networks get the examples as they are."""
    if isinstance(data, Prepared | Paired) or not setups:
        return []
    batches = _read_raw(setups[0])
    first = move_batch(next(iter(batches)), setups[0].settings.torch_device)
    return [s for s in setups
            if s.data.fit.complete is None or s.data.fit.complete(first) is first]


def _read_raw(setup: Setup) -> Batches:
    """Return the fitting data of a comparison without what its networks add to them."""
    batches = copy(setup.data.fit)
    batches.complete = None
    return batches


class _Group:
    """The comparisons that share a pass; those that fail in it leave it."""

    def __init__(self, setups: Sequence[Setup]) -> None:
        self.batches = _read_raw(setups[0])
        self._shared = SharedWork()
        self._device = setups[0].settings.torch_device
        self.fillings = [Filling.of(s) for s in setups]
        # Comparisons with other pieces would have other rounding.
        self._pieces = {s.micro_batch: MicroBatch(s.micro_batch) for s in setups}

    def add(self, batch: Batch) -> None:
        alike: dict[int, list[Filling]] = {}
        for filling in self.fillings:
            alike.setdefault(min(filling.setup.pieces.most, batch.size), []).append(filling)
        for fillings in alike.values():
            self._add(batch, self._pieces[min(f.setup.pieces.most for f in fillings)], fillings)

    def _add(self, batch: Batch, pieces: MicroBatch, alike: list[Filling]) -> None:
        def run_fronts(piece: Batch) -> Fronts:
            found: Fronts = {}
            for filling in alike:
                for side in (filling.setup.source, filling.setup.target):
                    key = _name_front(side, piece.source)
                    if key not in found:
                        found[key] = self._run_front(side, piece.source)
            return found

        for piece, fronts in pieces.map(batch, self._device, run_fronts):
            self._shared.clear()
            for filling in alike:
                if filling in self.fillings:
                    self._fill(filling, piece, fronts)

    @staticmethod
    def _run_front(side: Any, inputs: Any) -> list[Tensor]:
        """Return the representations at the sites of a network; none if it fails."""
        try:
            return side.front(inputs)  # type: ignore[no-any-return]
        except FOREIGN as error:
            if is_out_of_memory(error):
                raise
            return []

    def _fill(self, filling: Filling, piece: Batch, fronts: Fronts) -> None:
        xs, ys = (fronts[_name_front(side, piece.source)]
                  for side in (filling.setup.source, filling.setup.target))
        try:
            if not (xs and ys):
                raise ValueError("a network failed")
            filling.add(piece, xs, xs if filling.setup.source is filling.setup.target else ys,
                        self._shared)
        except FOREIGN as error:
            if is_out_of_memory(error):
                raise
            self.fillings.remove(filling)

    def finish(self) -> list[Setup]:
        """Return the setups of all comparisons that are left."""
        made = []
        for filling in self.fillings:
            setup = filling.setup
            assert isinstance(setup, Setup)
            setup.pieces.take_over(self._pieces[setup.micro_batch])
            setup.data.fit.take_over(self.batches)
            if filling.rows[0]:
                made.append(replace(setup, collected=filling))
        return made


def _name_front(side: Any, inputs: Any) -> Hashable:
    """Return a key of a network and its sites, equal for both roles of a network that has no masks."""
    assert isinstance(side, SitedNetwork)
    return (id(side.network), side.sites) if isinstance(inputs, Tensor) else id(side)
