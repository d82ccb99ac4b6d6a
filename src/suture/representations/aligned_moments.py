"""Moments of every cell of a comparison, accumulated in one pass for representations of any kinds.

An alignment matches rows of the source with rows of the target, in one or two parts (patches, prefix tokens).
A `PairMoments` accumulates the moments of each part. The moments of a cell are merged from its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import reduce
from itertools import product

import torch
from torch import Tensor

from suture._base import SutureError
from suture.numbers import Moments, NonFiniteError, Pair, PairMoments, Resizing, Side, Spectrum, merge_blocks
from suture.representations.alignment import DEFAULT_RULE, Alignment, AlignmentRule
from suture.representations.shapes import Kind, Shape
from suture.representations.views import View, describe_positions, get_row_mask, to_grid

SiteView = tuple[int, View]
_ONE_TOKENIZER = "use one tokenizer and one padding for both networks"


class AlignedMoments:
    """Moments of every cell, accumulated batch by batch.

    Args:
        sources, targets: shapes of the representations at the sites of each side.
        rule: how positions are matched.
        same: both sides are the same representations (self-stitching). Shared products are then computed
            once.
        precision, higher: see `PairMoments`.
        folds: number of disjoint parts of the examples whose moments are kept apart, for cross-validation.
            The number of an example in the stream decides its fold, whatever the batches.

    Raises:
        SutureError: two shapes cannot be aligned.
    """

    def __init__(self, sources: Sequence[Shape], targets: Sequence[Shape], rule: AlignmentRule = DEFAULT_RULE,
                 *, same: bool = False, precision: torch.dtype = torch.float32, higher: bool = True,
                 folds: int = 1) -> None:
        self.sources, self.targets, self.precision, self._same = list(sources), list(targets), precision, same
        self.alignments = {(i, j): Alignment(x, y, rule)
                           for (i, x), (j, y) in product(enumerate(sources), enumerate(targets))}
        self._entries_x: list[SiteView] = []
        self._entries_y: list[SiteView] = []
        resizings: dict[tuple[tuple[str, int, int], tuple[str, int, int]], Resizing] = {}
        for (i, j), a in self.alignments.items():
            for part in a.parts:
                self._entries_x.append((i, part.source))
                self._entries_y.append((j, part.target))
                at = describe_positions(sources[i], part.source), describe_positions(targets[j], part.target)
                resizings[at] = part.resizing
        if same:
            self._entries_x = self._entries_y = [*self._entries_x, *self._entries_y]
            for i, v in self._entries_x:
                kind, h, w = describe_positions(sources[i], v)
                resizings.setdefault(((kind, h, w), (kind, h, w)), Resizing((h, w), (h, w), rule.resize))
        self._entries_x, self._entries_y = (sorted(set(e), key=lambda e: (e[0], e[1].value))
                                            for e in (self._entries_x, self._entries_y))
        self._grids_x = [describe_positions(sources[i], v) for i, v in self._entries_x]
        self._grids_y = [describe_positions(targets[j], v) for j, v in self._entries_y]
        self._folds = [PairMoments(self._grids_x, [sources[i].width for i, _ in self._entries_x],
                                   self._grids_y, [targets[j].width for j, _ in self._entries_y], resizings,
                                   same=same, precision=precision, higher=higher) for _ in range(folds)]
        self._has_tokens_on_both = all(any(s.kind is Kind.TOKENS and s.grid is None for s in side)
                                       for side in (sources, targets))
        self._spectra: dict[Hashable, Spectrum] = {}
        self._last: tuple[tuple[int, int], list[Moments], Moments] | None = None

    @property
    def examples(self) -> int:
        """Number of examples added so far."""
        return sum(f.examples for f in self._folds)

    @property
    def nbytes(self) -> int:
        """Number of bytes of the sums. It does not depend on the number of examples."""
        return sum(f.nbytes for f in self._folds)

    @property
    def nbytes_planned(self) -> int:
        """Number of bytes that the sums will need, known before the first batch."""
        return sum(f.nbytes_planned for f in self._folds)

    @torch.no_grad()
    def update(self, xs: Sequence[Tensor], ys: Sequence[Tensor], mask_x: Tensor | None = None,
               mask_y: Tensor | None = None) -> None:
        """Add one batch: the representations of the same examples at the sites of each side.

        Args:
            xs, ys: one tensor for each site. In self-stitching both are the same tensors.
            mask_x, mask_y: (N, T) booleans for tokens, False at padding tokens. Where tokens are matched with
                tokens, a side without a mask uses the other side's.

        Raises:
            NonFiniteError: a tensor holds NaN or inf; it names the side and the position in `xs` or `ys`.
            SutureError: two sides whose tokens are matched differ in the number of tokens or in the mask.
        """
        self._spectra.clear()
        self._last = None
        start, k, n = self.examples, len(self._folds), len(xs[0])
        if self._has_tokens_on_both and not self._same:
            self._check_tokens(xs, ys, mask_x, mask_y)
        for fold, moments in enumerate(self._folds):
            rows = slice(None) if k == 1 else slice((fold - start) % k, None, k)
            if len(range(n)[rows]):
                self._add(moments, [x[rows] for x in xs], [y[rows] for y in ys],
                          *(None if m is None else m[rows] for m in (mask_x, mask_y)))

    def _check_tokens(self, xs: Sequence[Tensor], ys: Sequence[Tensor], mask_x: Tensor | None,
                      mask_y: Tensor | None) -> None:
        """Raise an error where the two sides differ in the number of tokens or in the mask.

        Position k is the same word for both networks only if one tokenizer and one padding made both inputs.
        """
        lengths = [{x.shape[1] for x, shape in zip(tensors, shapes, strict=True) if shape.varies}
                   for tensors, shapes in ((xs, self.sources), (ys, self.targets))]
        masks = [m for m in (mask_x, mask_y) if m is not None]
        if len(masks) == 2:
            lengths = [found | {m.shape[1]} for found, m in zip(lengths, masks, strict=True)]
        if all(lengths) and lengths[0] != lengths[1]:
            source, target = (" or ".join(map(str, sorted(found))) for found in lengths)
            raise SutureError(f"expected as many tokens on both sides, got {source} for the source and "
                              f"{target} for the target; {_ONE_TOKENIZER}")
        if len(masks) == 2 and masks[0] is not masks[1] and not torch.equal(*masks):
            row = int((masks[0] != masks[1]).any(1).int().argmax())
            counts = [int(m[row].sum()) for m in masks]
            raise SutureError(f"expected one attention mask on both sides, got {counts[0]} tokens that count "
                              f"for the source and {counts[1]} for the target in example {row} of a batch; "
                              f"{_ONE_TOKENIZER}")

    def _add(self, moments: PairMoments, xs: list[Tensor], ys: list[Tensor], mask_x: Tensor | None,
             mask_y: Tensor | None) -> None:
        masks: dict[object, Tensor] = {}
        views: list[list[Tensor]] = []
        for entries, grids, shapes, tensors, mask in (
                (self._entries_x, self._grids_x, self.sources, xs, mask_x),
                (self._entries_y, self._grids_y, self.targets, ys, mask_y))[:1 if self._same else 2]:
            # Means and sums are computed in the precision of the products.
            views.append([to_grid(tensors[i] if v in (View.ALL, View.GRID) else tensors[i].to(self.precision),
                                  shapes[i], v, mask) for i, v in entries])
            found = {grid: get_row_mask(shapes[i], v, mask)
                     for (i, v), grid in zip(entries, grids, strict=True)}
            masks |= {grid: m for grid, m in found.items() if m is not None}
        try:
            moments.update(views[0], views[-1], masks)
        except NonFiniteError as e:
            entries = self._entries_x if e.side == "source" else self._entries_y
            raise NonFiniteError(e.side, entries[e.index][0]) from None

    def _merge_parts(self, fold: PairMoments, i: int, j: int) -> Moments:
        parts = [fold.get_moments(self._entries_x.index((i, p.source)), self._entries_y.index((j, p.target)))
                 for p in self.alignments[i, j].parts]
        return reduce(Moments.merge, [p for p in parts if p.n] or parts[:1])

    def get_folds(self, i: int, j: int, most: int | None = None) -> list[Moments]:
        """Return the centred moments of one cell in each fold that has examples.

        Args:
            i, j: source and target.
            most: number of folds to merge into: fold b goes into number b modulo `most`.

        Raises:
            SutureError: nothing was added yet.
        """
        if not self.examples:
            raise SutureError("expected at least one batch, got none; call update first")
        if self._last is None or self._last[0] != (i, j):
            found = [m for f in self._folds if f.examples and (m := self._merge_parts(f, i, j)).n]
            self._last = ((i, j), found,
                          reduce(Moments.merge, found) if found else self._merge_parts(self._folds[0], i, j))
        found = self._last[1]
        return found if most is None else merge_blocks(found, most)

    def get_moments(self, i: int, j: int) -> Moments:
        """Return the centred moments of one cell.

        Raises:
            SutureError: nothing was added yet.
        """
        self.get_folds(i, j)
        assert self._last is not None
        return self._last[2]

    def get_pair(self, i: int, j: int) -> Pair:
        """Return the moments of one cell with the spectra of both sides.

        A matrix that several cells share is factored once.
        """
        m, a = self.get_moments(i, j), self.alignments[i, j]
        if self._same and self.alignments[i, i].source_rows == a.source_rows:
            x = self._get_spectrum(lambda: self.get_moments(i, i).y, "target", i,
                                   self.alignments[i, i].target_rows)
        else:
            x = self._get_spectrum(lambda: m.x, "source", i, a.source_rows)
        return Pair(m, x, self._get_spectrum(lambda: m.y, "target", j, a.target_rows))

    def _get_spectrum(self, side: Callable[[], Side], *key: Hashable) -> Spectrum:
        if key not in self._spectra:
            self._spectra[key] = Spectrum.of(side(), self.precision)
        return self._spectra[key]
