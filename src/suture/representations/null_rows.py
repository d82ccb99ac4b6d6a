"""Examples that are kept for nulls by permutation, and for indices within classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from suture._base import SutureError, expect
from suture.indices import (
    GROUPED,
    STITCH,
    WITHIN,
    Needs,
    NullSource,
    PermutedRows,
    Request,
    check_count,
    keep_rows,
    number_labels,
    prepare_within,
)
from suture.numbers import ChosenRows, Ints, choose_groups
from suture.representations.accumulator_settings import AccumulatorSettings
from suture.representations.alignment import Alignment
from suture.representations.example_sample import ExampleSample
from suture.representations.row_sample import RowSample
from suture.representations.shapes import Shape
from suture.representations.token_masks import Masks

POSITIONS = "positions of one example are not independent"
"""Why closed forms do not hold where an example has several rows."""
_ONE_POSITION = "one random position of each example is a row, and neighbours share places; write @pool"
_FLAT = "flattened examples are not kept for permutations; write @pool"


class NullRows:
    """Kept rows of all cells, with the groups and classes of their examples.

    One row for each example is kept if indices within classes or permutations need it (`pools`), and whole
    examples if permutations of positions do.
    """

    scratch = ("_settings", "_alignments", "_shared")
    """Attributes that a checkpoint need not hold."""

    def __init__(self, shapes: Sequence[Sequence[Shape]], stitched: Mapping[tuple[int, int], Alignment],
                 pooled: Mapping[tuple[int, int], Alignment], settings: AccumulatorSettings,
                 shared: RowSample | None, *, same: bool) -> None:
        self._settings, self._alignments, self._shared = settings, stitched, None
        asked = {a: bool(settings.select_requests(a)) for a in (STITCH, "pool", WITHIN)}
        pooled_rows = [a.has_pooled_rows for a in stitched.values()]
        draws = settings.nulls > 0
        self.pools = asked[WITHIN] or (draws and (asked["pool"] or (asked[STITCH] and any(pooled_rows))))
        self._own: RowSample | None = None
        if self.pools and shared is not None and settings.groups is None:
            self._shared = shared
        elif self.pools:
            self._own = RowSample(pooled, stitched=False, most=settings.sample, seed=settings.seed,
                                  precision=settings.precision, chosen=self._choose(settings.sample))
        self._whole = (ExampleSample(shapes, stitched, settings, self._choose, same=same)
                       if draws and asked[STITCH] and not all(pooled_rows) else None)
        self._classed = asked[WITHIN]
        self._seen, self._start = 0, 0
        self._labels: list[Tensor] = []

    @property
    def wanted(self) -> bool:
        """True if any examples are kept."""
        return self.pools or self._whole is not None

    @property
    def offered(self) -> int | None:
        """Number of examples that rows were drawn from; None without kept rows."""
        part = self._own or self._whole
        return None if part is None else part.offered

    @property
    def nbytes_planned(self) -> int:
        """Number of bytes that will be needed, known before the first batch."""
        return sum(part.nbytes_planned for part in (self._own, self._whole) if part is not None)

    def _choose(self, most: int) -> ChosenRows | None:
        groups = self._settings.groups
        return None if groups is None else choose_groups(groups, most, self._settings.seed)

    def start_at(self, number: int) -> None:
        """Begin with an example in the middle of the data."""
        self._seen = self._start = number
        for part in (self._own, self._whole):
            if part is not None:
                part.start_at(number)

    def absorb(self, *others: NullRows) -> None:
        """Add the kept examples of the others, which follow in order, but for rows that are shared."""
        self._seen += sum(other._seen - other._start for other in others)
        self._labels += [labels for other in others for labels in other._labels]
        if self._own is not None:
            self._own.absorb(*(other._own for other in others if other._own is not None))
        if self._whole is not None:
            self._whole.absorb(*(other._whole for other in others if other._whole is not None))

    def note_labels(self, count: int, labels: Tensor | None) -> None:
        """Note the classes of the next examples; those given by the user come first."""
        for name in ("groups", "within"):
            given = getattr(self._settings, name)
            if given is not None and self._seen + count > len(given):
                raise SutureError(f"expected {name} with one label for each example, got {len(given)} labels "
                                  "and more examples; write one for each")
        if self._classed:
            found = self._settings.within
            now = (_read_classes(labels, count) if found is None
                   else torch.from_numpy(found[self._seen:self._seen + count]))
            self._labels.append(now)
        self._seen += count

    def check_labels(self) -> None:
        """Check after the pass that the user has given no more labels than examples."""
        for name in ("groups", "within"):
            check_count(getattr(self._settings, name), self._seen, name)

    def drop_labels(self, kept: Tensor) -> None:
        """Leave out examples of the last batch that are all padding."""
        expect(self._settings.groups is None, "examples with unpadded tokens, as there are groups",
               f"{int((~kept).sum())} without", "leave them out")
        if self._classed:
            self._labels[-1] = self._labels[-1][kept.cpu()]

    def update(self, xs: Sequence[Tensor], ys: Sequence[Tensor], mask_x: Masks, mask_y: Masks) -> None:
        """Keep whole examples of a batch."""
        if self._whole is not None:
            self._whole.update(xs, ys, mask_x, mask_y)

    def update_pooled(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> None:
        """Keep rows of a batch of pooled examples."""
        if self._own is not None:
            self._own.update(xs, ys, None, None)

    @property
    def _rows(self) -> RowSample:
        rows = self._own or self._shared
        assert rows is not None
        return rows

    def _get_groups(self, numbers: Ints) -> Ints | None:
        groups = self._settings.groups
        return None if groups is None else groups[numbers]

    def make_sources(self, i: int, j: int, requests: Sequence[Request]) -> dict[str, NullSource]:
        """Return what the nulls of one cell are made from, by alignment of the requests."""
        wanted = {r.alignment for r in requests}
        draws, seed = self._settings.nulls, self._settings.seed
        grouped = "" if self._settings.groups is None else GROUPED
        found = {"flatten": NullSource(draws, seed, grouped, _FLAT)} if "flatten" in wanted else {}
        pooled = STITCH in wanted and self._alignments[i, j].has_pooled_rows
        for alignment in wanted & ({"pool", STITCH} if pooled else {"pool"}):
            found[alignment] = NullSource(draws, seed, grouped, self._keep_pooled(i, j) if draws else "")
        if STITCH in wanted and not pooled:
            rows: PermutedRows | str = ""
            if self._whole is not None:
                rows = self._whole.keep_rows(i, j, self._get_groups)
            found[STITCH] = (NullSource(draws, seed, grouped, rows)
                             if self._alignments[i, j].has_example_rows else
                             NullSource(draws, seed, POSITIONS, rows, refused={Needs.ROWS: _ONE_POSITION}))
        if WITHIN in wanted:
            found[WITHIN] = NullSource()
        return found

    def count_permuted(self, i: int, j: int, alignment: str, examples: int) -> tuple[int, bool]:
        """Count the rows that permutations of a cell move, and say if each of them is an example."""
        if alignment != STITCH:
            return min(self._settings.sample, examples), True
        if (i, j) not in self._alignments:
            return 0, True
        of = self._alignments[i, j]
        if of.has_pooled_rows or self._whole is None:
            return min(self._settings.sample, examples), True
        return self._whole.count_rows(of.target, examples), of.has_example_rows

    def _keep_pooled(self, i: int, j: int) -> PermutedRows:
        sample = self._rows.get_sample(i, j)
        groups = self._get_groups(self._rows.numbers)
        x, y = (torch.from_numpy(side.values) for side in (sample.x, sample.y))
        return keep_rows(x, y, groups, sample=sample, precision=self._settings.precision)

    def prepare_within(self, i: int, j: int) -> tuple[dict[Needs, Any] | str, NullSource]:
        """Return the inputs of indices within classes, or why there are none, and what their null needs."""
        sample, numbers = self._rows.get_sample(i, j), self._rows.numbers
        x, y = (torch.from_numpy(side.values) for side in (sample.x, sample.y))
        labels = number_labels(torch.cat(self._labels))
        return prepare_within(x, y, None if labels is None or (labels == -1).all() else labels[numbers],
                              self._get_groups(numbers), self._settings.nulls, self._settings.seed,
                              self._settings.precision)

    def count_classed(self) -> int:
        """Count the kept examples for indices within classes."""
        return self._rows.examples if self._classed else 0


def _read_classes(labels: Tensor | None, count: int) -> Tensor:
    """Return class numbers of examples; -1 for labels that are no classes, such as those of tokens."""
    if labels is None or labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
        return torch.full((count,), -1, dtype=torch.int64)
    return labels.cpu().to(torch.int64)
