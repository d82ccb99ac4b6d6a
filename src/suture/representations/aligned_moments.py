"""Moments of every cell, of aligned positions, accumulated in one pass."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import product

import torch
from torch import Tensor

from suture._base import SutureError, expect
from suture.numbers import (
    Moments,
    NonFiniteError,
    Pair,
    PairMoments,
    Resizing,
    SharedWork,
    Side,
    Spectra,
    sum_crosses,
)
from suture.representations.alignment import DEFAULT_RULE, Alignment, AlignmentError, AlignmentRule
from suture.representations.shapes import Shape
from suture.representations.token_masks import Masks, select_mask
from suture.representations.views import View, describe_positions, get_row_mask, to_grid

Cell = tuple[int, int]
SiteView = tuple[int, View]
Key = tuple[Hashable, ...]
_ONE_TOKENIZER = "use one tokenizer and one padding for both networks"


class _SiteViews:
    """Views of one side's sites whose moments are accumulated."""

    def __init__(self, shapes: Sequence[Shape], views: Iterable[SiteView]) -> None:
        self.shapes, self.views = shapes, sorted(set(views), key=lambda v: (v[0], v[1].value))
        self.grids = [describe_positions(shapes[i], v) for i, v in self.views]
        self.widths = [shapes[i].width for i, _ in self.views]

    def read(self, tensors: Sequence[Tensor], mask: Masks,
             precision: torch.dtype) -> tuple[list[Tensor], dict[Hashable, Tensor]]:
        """Return the grids of one batch, and the row masks of those that have padding."""
        # Means are computed in the precision of the products.
        grids = [to_grid(tensors[i] if v in (View.ALL, View.GRID) else tensors[i].to(precision),
                         self.shapes[i], v, mask) for i, v in self.views]
        masks = ((grid, get_row_mask(self.shapes[i], v, mask))
                 for (i, v), grid in zip(self.views, self.grids, strict=True))
        return grids, {grid: m for grid, m in masks if m is not None}


def align_cells(sources: Sequence[Shape], targets: Sequence[Shape],
                rule: AlignmentRule) -> tuple[dict[Cell, Alignment], dict[Cell, str]]:
    """Return the alignments of the cells, and the reason for each cell that cannot be aligned.

    Raises:
        SutureError: no cell can be aligned.
    """
    found: dict[Cell, Alignment] = {}
    failed: dict[Cell, str] = {}
    for (i, x), (j, y) in product(enumerate(sources), enumerate(targets)):
        try:
            found[i, j] = Alignment(x, y, rule)
        except SutureError as e:
            failed[i, j] = str(e)
    if failed and not found:
        raise AlignmentError(next(iter(failed.values())))
    return found, failed


def find_shared_sequences(*sides: Sequence[Shape]) -> list[int]:
    """Return the numbers of the input sequences that have sites on both sides."""
    first, second = ({s.sequence for s in side if s.is_sequence} for side in sides)
    return sorted(first & second)


def _check_masks(first: Tensor, second: Tensor) -> None:
    """Raise `SutureError` if two masks (N, T) of tokens that are matched one by one differ."""
    if first is second or torch.equal(first, second):
        return
    row = int((first != second).any(1).int().argmax())
    raise SutureError(f"the attention masks differ: {int(first[row].sum())} unpadded tokens for the "
                      f"source and {int(second[row].sum())} for the target in example {row}; "
                      f"{_ONE_TOKENIZER}")


class AlignedMoments:
    """Moments of every cell that can be aligned: accumulated batch by batch for each part, and then merged.

    Args:
        same: True in self-stitching, where both sides are the same; shared products are computed once.
        precision, higher: see `PairMoments`.
        closed: nulls in closed form are wanted. They need the sums of higher order, and hold only where each
            example has one row.
        folds: number of parts of the examples whose moments are kept apart, for cross-validation. Example
            number k belongs to fold k modulo `folds`, whatever the batches.
    """

    scratch = ("sources", "targets", "precision", "alignments", "unaligned", "_x", "_y", "spectra")
    """Attributes that a checkpoint need not hold."""

    def __init__(self, sources: Sequence[Shape], targets: Sequence[Shape], rule: AlignmentRule = DEFAULT_RULE,
                 *, same: bool = False, precision: torch.dtype = torch.float32, higher: bool = True,
                 closed: bool = False, folds: int = 1) -> None:
        self.sources, self.targets, self.precision, self._same = list(sources), list(targets), precision, same
        self.alignments, self.unaligned = align_cells(sources, targets, rule)
        parts = [(i, j, p) for (i, j), a in self.alignments.items() for p in a.parts]
        higher = higher or (closed and any(a.has_example_rows for a in self.alignments.values()))
        used_x, used_y = [(i, p.source) for i, _, p in parts], [(j, p.target) for _, j, p in parts]
        self._x = _SiteViews(self.sources, used_x + used_y if same else used_x)
        self._y = self._x if same else _SiteViews(self.targets, used_y)
        resizings = {(describe_positions(sources[i], p.source), describe_positions(targets[j], p.target)):
                     p.resizing for i, j, p in parts}
        for grid in self._x.grids if same else ():
            resizings.setdefault((grid, grid), Resizing(grid[1:], grid[1:], rule.resize))
        self._folds = [PairMoments(self._x.grids, self._x.widths, self._y.grids, self._y.widths, resizings,
                                   same=same, precision=precision, higher=higher) for _ in range(folds)]
        self.spectra = Spectra()
        self._more: list[list[PairMoments]] = [[] for _ in range(folds)]
        self.start = 0

    @property
    def examples(self) -> int:
        return sum(f.examples for k in self.folds for f in self._list_sums(k))

    @property
    def number(self) -> int:
        """Number of the next example in the data."""
        return self.start + self.examples

    @property
    def has_shifts(self) -> bool:
        return all(f.examples for f in self._folds)

    def start_at(self, number: int) -> None:
        """Begin with an example in the middle of the data."""
        self.start = number

    def take_shifts(self, other: AlignedMoments) -> None:
        """Take the sums about the same points as others, before the first batch."""
        for mine, theirs in zip(self._folds, other._folds, strict=True):
            mine.take_shifts(theirs)

    def absorb(self, *others: AlignedMoments) -> None:
        """Add the moments of other examples; those about other points are merged when they are asked for."""
        self.spectra = Spectra()
        for k, mine in enumerate(self._folds):
            theirs = [f for other in others for f in other._list_sums(k)]
            self._more[k] += [f for f in theirs if not mine.absorb(f)]

    def _list_sums(self, fold: int) -> list[PairMoments]:
        """Return the sums of a fold, each about points of its own."""
        return [self._folds[fold], *self._more[fold]]

    @property
    def nbytes_planned(self) -> int:
        """Number of bytes that the sums will need, whatever the number of examples."""
        return sum(f.nbytes_planned for f in self._folds)

    @torch.no_grad()
    def update(self, xs: Sequence[Tensor], ys: Sequence[Tensor], mask_x: Masks = None,
               mask_y: Masks = None, shared: SharedWork | None = None) -> None:
        """Add one batch: the representations of the same examples at the sites of each side.

        Masks are (N, T) booleans, False at padding tokens. Where tokens are matched with tokens, a side
        without a mask uses the other side's. A `NonFiniteError` names the side and the site of NaN or inf.
        Work on the same tensors for other pairs of networks is `shared` (`PairMoments.update`).
        """
        self.spectra = Spectra()
        start, k, n = self.number, len(self._folds), len(xs[0])
        for sequence in () if self._same else find_shared_sequences(self.sources, self.targets):
            self._check_tokens(sequence, xs, ys, mask_x, mask_y)
        for fold, moments in enumerate(self._folds):
            rows = slice(None) if k == 1 else slice((fold - start) % k, None, k)
            if len(range(n)[rows]):
                first, second = (None if m is None else m[rows] for m in (mask_x, mask_y))
                self._add(moments, [x[rows] for x in xs], [y[rows] for y in ys], first, second, shared)

    def _check_tokens(self, sequence: int, xs: Sequence[Tensor], ys: Sequence[Tensor], *masks: Masks) -> None:
        """Check that one tokenizer and one padding made both sides: position k is then the same word."""
        lengths = [{shape.get_size(x)[0] for x, shape in zip(tensors, shapes, strict=True)
                    if shape.varies and shape.sequence == sequence}
                   for tensors, shapes in ((xs, self.sources), (ys, self.targets))]
        first, second = (select_mask(m, sequence) for m in masks)
        if first is not None and second is not None:
            lengths = [lengths[0] | {first.shape[1]}, lengths[1] | {second.shape[1]}]
        if all(lengths) and lengths[0] != lengths[1]:
            source, target = (" or ".join(map(str, sorted(found))) for found in lengths)
            raise SutureError(f"expected as many tokens on both sides, got {source} for the source and "
                              f"{target} for the target; {_ONE_TOKENIZER}")
        if first is not None and second is not None:
            _check_masks(first, second)

    def _add(self, moments: PairMoments, xs: list[Tensor], ys: list[Tensor], mask_x: Masks,
             mask_y: Masks, shared: SharedWork | None) -> None:
        grids_x, masks = self._x.read(xs, mask_x, self.precision)
        grids_y, masks_y = (grids_x, masks) if self._same else self._y.read(ys, mask_y, self.precision)
        for grid in masks.keys() & masks_y.keys():
            _check_masks(masks[grid].flatten(1), masks_y[grid].flatten(1))
        try:
            moments.update(grids_x, grids_y, masks | masks_y, shared)
        except NonFiniteError as e:
            views = (self._x if e.side == "source" else self._y).views
            raise NonFiniteError(e.side, views[e.index][0]) from None

    @property
    def folds(self) -> range:
        """Numbers of the parts of the examples whose moments are kept apart."""
        return range(len(self._folds))

    def get_sums(self, i: int, j: int, folds: Iterable[int] | None = None) -> list[list[Moments]]:
        """Return one cell's sums in each of some folds (all) that has rows, one for each part of the rows.

        They have shifts of their own, and `join` merges them.
        """
        expect(self.examples > 0, "at least one batch", "none", "call update first")
        found = [[m for f in self._list_sums(k) if f.examples for m in self._get_parts(f, i, j)]
                 for k in (self.folds if folds is None else folds)]
        return [parts for parts in found if parts]

    def _get_parts(self, fold: PairMoments, i: int, j: int, *, empty: bool = False) -> list[Moments]:
        found = [fold.get_sums(x, y) for x, y in self._find_views(i, j)]
        return found[:1] if empty else [m for m in found if m.n]

    def _find_views(self, i: int, j: int) -> list[tuple[int, int]]:
        return [(self._x.views.index((i, p.source)), self._y.views.index((j, p.target)))
                for p in self.alignments[i, j].parts]

    def join(self, i: int, j: int, parts: Sequence[Moments], spectra: Spectra) -> Moments:
        """Merge sums of one cell into its moments; `spectra` holds the sides of the same rows."""
        x, y = self._join_sides(i, j, parts, spectra)
        return Moments(x, y, sum_crosses(parts, x.shift, y.shift), parts[0].precision)

    def _join_sides(self, i: int, j: int, parts: Sequence[Moments], spectra: Spectra) -> tuple[Side, Side]:
        x, y = (spectra.find_side(key, [getattr(p, side) for p in parts])
                for key, side in zip(self.find_keys(i, j), "xy", strict=True))
        return x, y

    def get_folds(self, i: int, j: int, most: int | None = None, without: int | None = None) -> list[Moments]:
        """Return one cell's centred moments in each fold that has rows.

        Args:
            most: merge fold b into b modulo `most`.
            without: number of a fold that is left out.
        """
        held = {k: found[0] for k in self.folds if (found := self.get_sums(i, j, [k]))}
        numbers = list(held)
        groups = [[k for k in numbers[first::most or len(self._folds)] if k != without]
                  for first in range(min(most or len(numbers), len(numbers)))]
        parts = ([part for k in group for part in held[k]] for group in groups)
        return [first.merge(*others) for first, *others in filter(None, parts)]

    def get_moments(self, i: int, j: int) -> Moments:
        """Return the centred moments of one cell."""
        return self.join(i, j, self._list_parts(i, j), self.spectra)

    def _list_parts(self, i: int, j: int) -> list[Moments]:
        parts = [part for fold in self.get_sums(i, j) for part in fold]
        return parts or self._get_parts(self._folds[0], i, j, empty=True)

    def find_ranks(self, i: int, j: int) -> tuple[int, int]:
        """Return the ranks of both sides of one cell, for which its cross sums are not needed."""
        parts = self._list_parts(i, j)
        x, y = (self.spectra.find(key, side, parts[0].precision).rank for key, side in
                zip(self.find_keys(i, j), self._join_sides(i, j, parts, self.spectra), strict=True))
        return x, y

    def count_independent(self, i: int, j: int) -> int:
        """Count the rows of one cell that are independent."""
        return round(self.count_rows(i, j) * self.alignments[i, j].independent_share)

    def count_rows(self, i: int, j: int) -> int:
        """Count the rows of one cell."""
        return sum(f.count_rows(y) for k in self.folds for f in self._list_sums(k)
                   for _, y in self._find_views(i, j))

    def find_keys(self, i: int, j: int) -> tuple[Key, Key]:
        """Return the keys of both sides of a cell, equal for cells that share the rows."""
        a = self.alignments[i, j]
        x: Key = ("source", i, a.source_rows)
        own = self.alignments.get((i, i)) if self._same else None
        if own is not None and own.source_rows == a.source_rows and own.takes_rows_as_they_are:
            x = ("target", i, own.target_rows)
        return x, ("target", j, a.target_rows)

    def are_turned(self, one: Cell, other: Cell) -> bool:
        """Return True if two cells have the same matrices in each other's place."""
        return one != other and self.find_keys(*one) == self.find_keys(*other)[::-1]

    def make_pair(self, i: int, j: int, moments: Moments, spectra: Spectra) -> Pair:
        """Make the pair of one cell; `spectra` are those of the rows of `moments`."""
        return Pair(moments, share=self.alignments[i, j].independent_share, spectra=spectra,
                    keys=self.find_keys(i, j))

    def get_pair(self, i: int, j: int) -> Pair:
        """Return the moments of one cell; the spectra of both sides are computed once for all cells."""
        return self.make_pair(i, j, self.get_moments(i, j), self.spectra)
