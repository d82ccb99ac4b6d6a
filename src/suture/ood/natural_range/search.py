"""The search for the natural range: shifted inputs of a network, with severities found by bisection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from suture._base import NO_KEEPER, Keeper, Progress, SutureError, summarise_error
from suture.data import Batch, MicroBatch
from suture.networks import SitedNetwork, disable_gradients
from suture.numbers import (
    Estimate,
    NumericalError,
    RowMoments,
    estimate_frechet,
    make_missing_estimate,
)
from suture.ood.auxiliary import join_batches
from suture.ood.natural_range.outcomes import Outcome, compare_outcomes, measure_outcome
from suture.ood.natural_range.radii import NaturalRange, ShiftRange
from suture.ood.natural_range.shifts import VERSION, Shift, apply_shift, list_shifts
from suture.representations import pick_rows
from suture.stitching import Task

STEPS = 4
"""Halvings of the range of severities; between those tried, accuracies and distances are interpolated."""
FEWEST_EXAMPLES = 10
"""Smallest number of examples of a natural range: the interval of a distance between fewer says nothing."""
NO_SHIFT = "no built-in shift knows such inputs; pass ood=OOD(shifts={name: function})"


def count_shifted_examples(target: SitedNetwork, inputs: Any, task: Task, own: Mapping[str, Shift],
                           examples: int) -> int:
    """Return the largest number of examples that pass the target network in a search."""
    # Once without a shift; of each kind at severity 1 and at every halving.
    built_in = list_shifts(inputs, task.of_tokens, target.find_text)
    return examples * (1 + (STEPS + 1) * len({**built_in, **own}))


def gather_nothing(piece: Batch, xs: Sequence[Tensor]) -> None:
    """Gather nothing of a piece."""


class _Point(NamedTuple):
    """Relative accuracy under a shift of some severity, and the distance of each site."""

    severity: float
    works: Estimate
    distances: tuple[Estimate, ...]


@dataclass(eq=False)
class RangeSearch:
    """Search for the natural range of a network on a few examples.

    Args:
        target: the network at its sites.
        task: of its output.
        batches: the examples.
        pieces: examples per pass of the network.
        device: of the network.
        most: largest number of rows of each example.
        works: relative accuracy from which on it works.
        seed: of random draws.
        also: function of each piece of the examples and its native representations, so that these need no
            second pass.

    Attributes:
        natives: native rows (n, L, q) of each site.
        gathered: what `also` returned for each piece.
    """

    target: SitedNetwork
    task: Task
    batches: Sequence[Batch]
    pieces: MicroBatch
    device: torch.device
    most: int
    works: float
    seed: int
    also: Callable[[Batch, Sequence[Tensor]], Any] = gather_nothing
    natives: list[Tensor] = field(init=False)
    gathered: list[Any] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        # In one batch, because a shift's random draws are those of a batch.
        self._together = join_batches(self.batches)
        self.natives, self._native = self._run(None, "", 0.0)
        self._too_few = (f"{self.examples} test examples are too few: it takes {FEWEST_EXAMPLES}"
                         if self.examples < FEWEST_EXAMPLES else "")
        self._moments = [self._too_few or _try_moments(rows) for rows in self.natives]

    @property
    def examples(self) -> int:
        """Number of examples."""
        return sum(batch.size for batch in self.batches)

    @property
    def classes(self) -> tuple[Tensor, str]:
        """Class of each example (n,), and where it is from: "labels", "predictions" or "" for one class."""
        return self._native.find_classes()

    def find(self, own: Mapping[str, Shift], progress: Progress | None = None,
             keeper: Keeper = NO_KEEPER) -> NaturalRange:
        """Find the natural range with the built-in shifts, and that of the user's `own` shifts."""
        built_in = list_shifts(self._together[0].target, self.task.of_tokens, self.target.find_text)
        shifts, records = {} if self._too_few else {**built_in, **own}, list[dict[str, Any]]()
        with keeper.keep("natural range", {"kinds": records}) as kept:
            kept.fill_unless_changed()
            for k, (name, shift) in enumerate(shifts.items()):
                if k >= kept.before:
                    found = self._find_kind(name, shift) if name in own else self._try_kind(name, shift)
                    records.append(found.as_record())
                    kept.step(k + 1)
                if progress:
                    progress("natural range", k + 1, len(shifts))
            kept.finish(len(shifts))
        kinds = tuple(map(ShiftRange.from_record, records))
        return NaturalRange(VERSION, self.examples, self.works, self.most, kinds[:len(built_in)],
                            kinds[len(built_in):], self._too_few or ("" if built_in else NO_SHIFT))

    def _try_kind(self, name: str, shift: Shift) -> ShiftRange:
        """Find the range of a built-in shift, which a sound network may not accept: numbers of categories."""
        try:
            return self._find_kind(name, shift)
        except SutureError:
            raise
        except Exception as e:
            return self._make_missing(name, f"the network fails under {name}: {type(e).__name__}: "
                                      f"{summarise_error(e)}")

    def _make_missing(self, name: str, reason: str) -> ShiftRange:
        missing = make_missing_estimate(reason)
        return ShiftRange(name, missing, True, (missing,) * len(self.natives))

    def _find_kind(self, name: str, shift: Shift) -> ShiftRange:
        native = _Point(0.0, Estimate(1.0, 1.0, 1.0), (Estimate(0.0, 0.0, 0.0),) * len(self.natives))
        low, high = points = [native, self._try(shift, name, 1.0)]
        if high.works.reason:
            return self._make_missing(name, high.works.reason)
        if high.works.value >= self.works:
            return ShiftRange(name, native.works, False, high.distances)
        for _ in range(STEPS):
            middle = self._try(shift, name, (low.severity + high.severity) / 2)
            low, high = (middle, high) if middle.works.value >= self.works else (low, middle)
            points.append(middle)
        points.sort()
        worst, found, best = (self._find_crossing(points, part) for part in ("low", "value", "high"))
        breaking = Estimate(found, min(worst, found), max(best, found))
        return ShiftRange(name, breaking, True, tuple(
            _interpolate([p.severity for p in points], [p.distances[j] for p in points], breaking)
            for j in range(len(self.natives))))

    def _find_crossing(self, points: Sequence[_Point], part: str) -> float:
        """Return the severity at which a curve through the points falls below the threshold."""
        for one, other in pairwise(points):
            above, below = (float(getattr(p.works, part)) - self.works for p in (one, other))
            if below < 0:
                return one.severity + above / (above - below) * (other.severity - one.severity)
        return points[-1].severity

    def _try(self, shift: Shift, name: str, severity: float) -> _Point:
        rows, outcome = self._run(shift, name, severity)
        return _Point(severity, compare_outcomes(outcome, self._native, self.seed),
                      tuple(self.measure(j, x) for j, x in enumerate(rows)))

    def measure(self, j: int, rows: Tensor) -> Estimate:
        """Return the distance of other rows (n, L, q) of the same examples from the native ones of a site."""
        native = self._moments[j]
        if isinstance(native, str):
            return make_missing_estimate(native)
        try:
            return estimate_frechet(native, RowMoments.of(rows))
        except NumericalError as e:
            return make_missing_estimate(str(e))

    @disable_gradients()
    def _run(self, shift: Shift | None, name: str, severity: float) -> tuple[list[Tensor], Outcome]:
        """Return the rows of each site and the outcomes of all examples."""
        found: list[list[Tensor]] = []
        outcomes: list[Outcome] = []

        def work(piece: Batch) -> tuple[list[Tensor], Outcome, Any]:
            done = self.target.run_full(piece.target)
            masks, xs = self.target.find_masks(piece.target), self.target.pick_representations(done)
            rows = [pick_rows(x, shape, masks, self.most)
                    for x, shape in zip(xs, self.target.shapes, strict=True)]
            return rows, measure_outcome(self.task, done.output, self.target.view_output(piece.source),
                                         piece.labels), self.also(piece, xs) if shift is None else None

        for k, batch in enumerate(self._together):
            inputs = batch.target if shift is None else apply_shift(shift, name, batch.target, severity,
                                                                    self.seed, k)
            for _, (rows, outcome, more) in self.pieces.map(Batch(batch.target, inputs, batch.labels),
                                                            self.device, work):
                found.append(rows)
                outcomes.append(outcome)
                if shift is None:
                    self.gathered.append(more)
        return [torch.cat(parts) for parts in zip(*found, strict=True)], Outcome.join(outcomes)


def _interpolate(severities: Sequence[float], distances: Sequence[Estimate], at: Estimate) -> Estimate:
    """Return the distance at the value of a severity, in an interval over its whole interval.

    Roots are interpolated, because a small shift of representations moves a squared distance by its square.
    Where representations are not finite, the distance is that at the largest severity before.
    """
    known = [(s, d) for s, d in zip(severities, distances, strict=True) if not d.reason]
    if len(known) < 2:  # the first is the one without a shift
        return make_missing_estimate(distances[-1].reason)
    value, low, high = (
        float(np.interp(severity, [s for s, _ in known], [getattr(d, part)**0.5 for _, d in known])**2)
        for part, severity in (("value", at.value), ("low", at.low), ("high", at.high)))
    return Estimate(value, min(low, value), max(high, value))


def _try_moments(rows: Tensor) -> RowMoments | str:
    try:
        return RowMoments.of(rows)
    except NumericalError as e:
        return str(e)
