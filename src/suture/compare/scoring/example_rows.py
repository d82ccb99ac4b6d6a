"""Distances of stitched from native representations, paired by example: how natural, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from suture.compare.records import Findings, Fitted, FittedMap, ScoreRow, stack_cells
from suture.compare.setup import Setup
from suture.data import Batch
from suture.networks import disable_gradients
from suture.numbers import (
    Estimate,
    InformationalResidual,
    estimate_informational_residual,
    find_class_places,
    make_missing_estimate,
)
from suture.ood import NaturalRange, Outcome, RangeSearch, gather_nothing, measure_outcome
from suture.representations import Alignment, Cell, Masks, Shape, pick_rows

MOST_ROWS = 32
"""Largest number of positions or tokens of each example that distances are made of."""
CLASS_EXAMPLES = 1000
"""Fitting examples for the class means."""
FEWEST_OF_CLASS = 3
"""Smallest number of fitting examples of a class whose mean is used."""
_ALIGNED_AT_ONCE = 16
_RELU = "a layer that ends with a ReLU has no class means in closed form"
_Key = tuple[int, Shape]


class _Means(NamedTuple):
    """Class means (K, L, width), and the place of each test example's class among them, -1 without a mean."""

    of: dict[_Key | int, Tensor]
    places: Tensor


@dataclass(eq=False)
class ExampleRows:
    """The rows of a few test examples at all sites, and class means of fitting examples.

    Attributes:
        setup: of the comparison.
        known: record of an earlier natural range of the same comparison; None to find it.
    """

    setup: Setup
    known: Mapping[str, Any] | None = None

    @cached_property
    def search(self) -> RangeSearch:
        setup, of = self.setup, self.setup.settings.detection
        assert of is not None
        return RangeSearch(setup.target, setup.task, setup.data.test.spread(of.range_examples), setup.pieces,
                           setup.settings.torch_device, MOST_ROWS, of.thresholds.works, setup.settings.seed,
                           self._align_own if setup.source is setup.target else gather_nothing)

    @cached_property
    def range(self) -> NaturalRange:
        """The natural range of the target network."""
        of = self.setup.settings.detection
        assert of is not None
        if self.known is not None:
            return NaturalRange.from_record(self.known)
        return self.search.find(of.shifts, self.setup.settings.tell_progress, self.setup.keeper)

    @cached_property
    def classes_from(self) -> str:
        """Where classes are from: "labels", "predictions", or "" where all examples make one class."""
        return self._classes[1]

    @cached_property
    def _classes(self) -> tuple[Tensor, str]:
        return self.search.classes

    def measure(self, method: str, fitted: Fitted) -> tuple[list[ScoreRow], Findings]:
        """Return the distances and residuals of all cells of a method, and their arrays."""
        rows: list[ScoreRow] = []
        distances: dict[Cell, Any] = {}
        nulls: dict[str, dict[Cell, float]] = {"residual_null": {}, "residual_p": {}}
        for cell in self.setup.cells:
            reason = fitted.failed.get(cell, "")
            distance, residual = (self._measure_cell(cell, fitted.maps[cell]) if not reason
                                  else (make_missing_estimate(reason), _make_missing(reason)))
            distances[cell] = distance.value, distance.low, distance.high
            nulls["residual_null"][cell], nulls["residual_p"][cell] = residual.null, residual.p
            for name, value in (("natural_distance", self.scale(distance, cell[1])),
                                ("informational_residual", residual.free),
                                ("strict_residual", residual.strict)):
                rows.append(ScoreRow(*cell, f"{method}.{name}", value, self.search.examples))
        shape = self.setup.shape
        arrays = {f"{method}.{name}": stack_cells(of, shape) for name, of in nulls.items()}
        arrays[f"{method}.distance"] = stack_cells(distances, (*shape, 3))
        return rows, Findings(arrays=arrays, ood=self._describe())

    def _describe(self) -> dict[str, Any]:
        of = self.setup.settings.detection
        assert of is not None
        return {"range": self.range.as_record(), "classes": self.classes_from,
                "thresholds": asdict(of.thresholds)}

    def scale(self, distance: Estimate, j: int) -> Estimate:
        """Return a distance in units of the outer radius of its site."""
        outer = self.range.find_outer(j)[0]
        if distance.reason or outer.reason:
            return make_missing_estimate(distance.reason or f"no natural range: {outer.reason}")
        if outer.value <= 0:
            return make_missing_estimate("no natural range: no shift moves the representations of this site")
        return Estimate(distance.value / outer.value, distance.low / outer.value, distance.high / outer.value)

    def _measure_cell(self, cell: Cell, fitted: FittedMap) -> tuple[Estimate, InformationalResidual]:
        j = cell[1]
        key, relu = self._get_key(cell), self.setup.settings.relu
        # In one layout, or sums round otherwise in a run that goes on from saved maps.
        weight, bias = (t.to(self.rows[key]).contiguous() for t in fitted)
        stitched = F.linear(self.rows[key], weight, bias)
        stitched = F.relu(stitched) if relu else stitched
        if not bool(torch.isfinite(stitched).all()):
            reason = "the stitched representation is not finite on the test data"
            return make_missing_estimate(reason), _make_missing(reason)
        distance = self.search.measure(j, stitched)
        if relu or self.means is None:
            return distance, _make_missing(_RELU if relu else self._explain_no_means())
        of, places = self.means
        return distance, estimate_informational_residual(
            stitched, self.search.natives[j], F.linear(of[key], weight, bias), of[j], places,
            self.setup.settings.seed)

    def _explain_no_means(self) -> str:
        return (f"no class has {FEWEST_OF_CLASS} of the {self._fit_examples} fitting examples that class "
                "means are made of")

    def _get_key(self, cell: Cell) -> _Key:
        """Return the key of a cell's source rows: equal positions of targets have the same ones."""
        return cell[0], replace(self.setup.target.shapes[cell[1]], width=0)

    @cached_property
    def _alignments(self) -> dict[_Key, Alignment]:
        setup = self.setup
        return {self._get_key((i, j)): Alignment(setup.source.shapes[i], setup.target.shapes[j],
                                                 setup.settings.alignment)
                for i, j in setup.cells if (i, j) not in setup.unfit}

    @cached_property
    def rows(self) -> dict[_Key, Tensor]:
        """Rows (n, L, p) of each source site, aligned with the positions of target sites."""
        setup, parts = self.setup, self.search.gathered
        if setup.source is not setup.target:
            parts = [of for batch in self.search.batches
                     for _, of in setup.pieces.map(batch, setup.settings.torch_device, self._run_source)]
        return {key: torch.cat([of[key] for of in parts]) for key in self._alignments}

    @disable_gradients()
    def _run_source(self, piece: Batch) -> dict[_Key, Tensor]:
        xs = self.setup.source.front(piece.source)
        return self._align(xs, self.setup.source.find_masks(piece.source),
                           self.setup.target.find_masks(piece.target))

    def _align_own(self, piece: Batch, natives: Sequence[Tensor]) -> dict[_Key, Tensor]:
        """Align the representations of one network with itself."""
        masks = self.setup.target.find_masks(piece.target)
        return self._align(natives, masks, masks)

    def _align(self, xs: Sequence[Tensor], mine: Masks, theirs: Masks) -> dict[_Key, Tensor]:
        found = {}
        for (i, shape), alignment in self._alignments.items():
            parts = []
            for start in range(0, len(xs[i]), _ALIGNED_AT_ONCE):
                few = slice(start, start + _ALIGNED_AT_ONCE)
                aligned = alignment.apply(xs[i][few].float(), None if mine is None else mine[few])
                parts.append(pick_rows(aligned, replace(shape, width=alignment.source.width),
                                       None if theirs is None else theirs[few], MOST_ROWS))
            found[i, shape] = torch.cat(parts)
        return found

    @cached_property
    def _fit_batches(self) -> list[Batch]:
        return self.setup.data.fit.spread(CLASS_EXAMPLES)

    @property
    def _fit_examples(self) -> int:
        return sum(batch.size for batch in self._fit_batches)

    @cached_property
    def means(self) -> _Means | None:
        """Class means of every key of `rows` and every target site; None if no class has enough examples."""
        device = self.setup.settings.torch_device
        parts = [part for batch in self._fit_batches
                 for _, part in self.setup.pieces.map(batch, device, self._average_classes)]
        grouping = _Grouping(*(torch.cat([getattr(of, name) for _, of in parts])
                               for name in ("classes", "counts")))
        known = grouping.total >= FEWEST_OF_CLASS
        places = find_class_places(self._classes[0], grouping.known[known])
        if not bool((places >= 0).any()):
            return None
        return _Means({key: grouping.average(torch.cat([rows[key] for rows, _ in parts]))[known]
                       for key in parts[0][0]}, places)

    @disable_gradients()
    def _average_classes(self, piece: Batch) -> tuple[dict[_Key | int, Tensor], _Grouping]:
        """Return the class means (K, L, width) of a piece for every key, and its classes."""
        setup = self.setup
        done, theirs = setup.target.run_full(piece.target), setup.target.find_masks(piece.target)
        natives = setup.target.pick_representations(done)
        outcome = measure_outcome(setup.task, done.output, setup.target.view_output(piece.target),
                                  piece.labels if self.classes_from != "predictions" else None)
        same = setup.source is setup.target
        xs = natives if same else setup.source.front(piece.source)
        mine, of = setup.source.find_masks(piece.source), _Grouping(_get_classes(outcome))
        # Rows are linear in representations where all examples have the same positions.
        first = mine is None and theirs is None and not any(
            shape.varies for shape in (*setup.source.shapes, *setup.target.shapes))
        if first:
            natives = [of.average(x) for x in natives]
            xs = natives if same else [of.average(x) for x in xs]
        rows = {j: pick_rows(x, shape, theirs, MOST_ROWS)
                for j, (x, shape) in enumerate(zip(natives, setup.target.shapes, strict=True))}
        found = rows | self._align(xs, mine, theirs)
        return (found if first else {key: of.average(x) for key, x in found.items()}), of.reduce()


class _Grouping:
    """Rows of n groups of examples: the class of each (n,), and its number of examples, 1 by default."""

    def __init__(self, classes: Tensor, counts: Tensor | None = None) -> None:
        self.classes, self.counts = classes, torch.ones_like(classes) if counts is None else counts
        self.known, self._places = torch.unique(classes, return_inverse=True)
        self.total = torch.zeros_like(self.known).index_add_(0, self._places, self.counts)

    def average(self, rows: Tensor) -> Tensor:
        """Return the mean (K, ...) over the examples of each of the K known classes."""
        shape, device = (-1, *[1] * (rows.ndim - 1)), rows.device
        sums = rows.new_zeros(len(self.known), *rows.shape[1:], dtype=torch.float64)
        sums.index_add_(0, self._places.to(device), rows.double() * self.counts.to(device).reshape(shape))
        return (sums / self.total.to(device).reshape(shape)).float()

    def reduce(self) -> _Grouping:
        """Return the grouping of the class means."""
        return _Grouping(self.known, self.total)


def _get_classes(outcome: Outcome) -> Tensor:
    return outcome.find_classes()[0]


def _make_missing(reason: str) -> InformationalResidual:
    return InformationalResidual(make_missing_estimate(reason), make_missing_estimate(reason), np.nan, np.nan)
