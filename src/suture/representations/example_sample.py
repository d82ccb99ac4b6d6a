"""A sample of whole examples with all their positions, for permutations of examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from suture.indices import PermutedRows
from suture.numbers import ChosenRows, Exchange, Ints, Reservoir, merge_samples
from suture.representations.accumulator_settings import AccumulatorSettings
from suture.representations.alignment import Alignment
from suture.representations.row_sample import find_unpadded_rows
from suture.representations.shapes import Shape
from suture.representations.token_masks import Masks, TokenMasks
from suture.representations.views import to_grid

MOST_ROWS = 20_000
"""Number of rows of a site from which fewer examples are kept, because every permutation multiplies them."""
LEAST_KEPT = 100
"""Number of examples that are kept nevertheless."""
MOST_BYTES = 2**28


class _Example(NamedTuple):
    """One example, (1, ...), at the sites of both sides, with the masks of both."""

    xs: list[Tensor]
    ys: list[Tensor]
    mask_x: Masks
    mask_y: Masks


class ExampleSample:
    """Whole representations of some examples at all sites of both sides.

    As many examples are kept as `settings.sample` says, but no more than `MOST_BYTES` hold.
    """

    scratch = ("_alignments", "_precision", "_same")
    """Attributes that a checkpoint need not hold."""

    def __init__(self, shapes: Sequence[Sequence[Shape]], alignments: Mapping[tuple[int, int], Alignment],
                 settings: AccumulatorSettings, choose: Callable[[int], ChosenRows | None], *,
                 same: bool) -> None:
        self._alignments, self._precision, self._same = alignments, settings.precision, same
        sites = [s for side in shapes[:2 - same] for s in side]
        self._example_bytes = settings.precision.itemsize * sum(s.width * max(1, s.rows) for s in sites)
        longest = max(max(1, s.rows) for s in sites)
        most = max(1, min(settings.sample, max(LEAST_KEPT, MOST_ROWS // longest),
                          MOST_BYTES // self._example_bytes))
        self._sample = choose(most) or Reservoir(most, settings.seed)
        self._kept: dict[int, _Example] = {}

    @property
    def offered(self) -> int:
        """Number of examples that were drawn from."""
        return self._sample.seen

    @property
    def nbytes_planned(self) -> int:
        """Number of bytes that will be needed, for texts as long as in the dry run."""
        return self._sample.most * self._example_bytes

    def count_rows(self, shape: Shape, examples: int) -> int:
        """Return the number of rows of a target's shape that are kept of so many examples."""
        return min(self._sample.most, examples) * max(1, shape.rows)

    def update(self, xs: Sequence[Tensor], ys: Sequence[Tensor], mask_x: Masks, mask_y: Masks) -> None:
        """Draw from one batch. Copies are kept: a part of the batch would hold all of it in memory."""
        for row, slot in zip(*(part.tolist() for part in self._sample.offer(len(xs[0]))), strict=True):
            one = slice(row, row + 1)
            sides = [[x[one].detach().to("cpu", self._precision, copy=True) for x in of]
                     for of in ((xs,) if self._same else (xs, ys))]
            masks = [_copy_mask(m, one) for m in (mask_x, mask_y)]
            self._kept[slot] = _Example(sides[0], sides[-1], masks[0], masks[1])

    def start_at(self, number: int) -> None:
        """Begin with an example in the middle of the data."""
        self._sample.start_at(number)

    def absorb(self, *others: ExampleSample) -> None:
        """Become the sample of all examples; those of the others follow in order."""
        parts = (self, *others)
        made, places = merge_samples([part._sample for part in parts])
        self._kept = {slot: parts[k]._kept[there] for slot, (k, there) in enumerate(places)}
        self._sample = made

    def keep_rows(self, i: int, j: int, get_groups: Callable[[Ints], Ints | None]) -> PermutedRows | str:
        """Return the rows of a cell, or the reason why there are none.

        An example changes places with those of the same unpadded positions. Tokens of texts are numbered
        without their padding.
        """
        found: dict[object, list[int]] = {}
        for slot in sorted(self._kept):
            xs, ys, *masks = self._kept[slot]
            found.setdefault((xs[i].shape, ys[j].shape, *map(_describe_mask, masks)), []).append(slot)
        parts = [part for slots in found.values() for part in self._align(i, j, slots)]
        x, y, owners, places = (torch.cat(of) for of in zip(*parts, strict=True))
        order = torch.argsort(owners, stable=True)
        blocks, kinds = owners[order].numpy(), places[order].numpy()
        groups = get_groups(self._sample.numbers)
        exchange = Exchange.of(blocks if groups is None else groups[blocks], kinds)
        if groups is None and not exchange.blocks:
            return "no two of the kept examples have the same unpadded positions"
        return PermutedRows(x[order], y[order], exchange, "examples" if groups is None else "groups",
                        self._alignments[i, j].independent_share, self._precision, examples=blocks)

    def _align(self, i: int, j: int, slots: list[int]) -> list[tuple[Tensor, ...]]:
        """Return rows of both sides, with the slot and the place of each, of examples of one size."""
        a = self._alignments[i, j]
        examples = [self._kept[k] for k in slots]
        x, y = torch.cat([e.xs[i] for e in examples]), torch.cat([e.ys[j] for e in examples])
        masks = [_join_masks([e.mask_x for e in examples]), _join_masks([e.mask_y for e in examples])]
        found: list[tuple[Tensor, ...]] = []
        for number, p in enumerate(a.parts):
            rows = find_unpadded_rows(a, p, (x, y), masks)
            source = p.resizing.resize_grid(to_grid(x, a.source, p.source, masks[0])).flatten(1, -2)
            target = to_grid(y, a.target, p.target, masks[1]).flatten(1, -2)
            example, place = rows.nonzero(as_tuple=True)
            if a.target.varies:  # padding on the left moves the words of a text
                place = rows.cumsum(1)[rows] - 1
            found.append((source[rows], target[rows], torch.tensor(slots)[example],
                          place + number * 2**32))
        return found


def _copy_mask(mask: Masks, rows: slice) -> Masks:
    if isinstance(mask, TokenMasks):
        return mask[rows].map(lambda m: m.cpu().clone())
    return None if mask is None else mask[rows].cpu().clone()


def _describe_mask(mask: Masks) -> object:
    if isinstance(mask, TokenMasks):
        return tuple(None if m is None else m.shape for m in mask.masks)
    return None if mask is None else mask.shape


def _join_masks(masks: Sequence[Masks]) -> Masks:
    first = masks[0]
    if isinstance(first, TokenMasks):
        sides = zip(*(m.masks for m in masks if isinstance(m, TokenMasks)), strict=True)
        return TokenMasks(tuple(None if of[0] is None else torch.cat([m for m in of if m is not None])
                                for of in sides), first.output)
    return None if first is None else torch.cat([m for m in masks if isinstance(m, Tensor)])
