"""One pass of a network over data: the sums of every site by fold, and the features of every example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from suture._base import (
    SutureError,
    check_free_memory,
    exact_products,
    expect,
    is_out_of_memory,
    summarise_error,
)
from suture.compare import Setup
from suture.data import Batch, Batches, move_batch
from suture.networks import disable_gradients
from suture.numbers import ShiftedSums, Side
from suture.representations import Masks, Shape, View, get_row_mask, to_grid
from suture.stitching import augment_batch, check_batch
from suture.studies.probes.principal_components import Basis, cut_representation, find_batch_basis
from suture.studies.probes.recipe import ProbeRecipe

Ranks = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class SiteExamples:
    """What a pass has collected, site by site; empty lists where it was not asked for.

    Attributes:
        sums: of the rows of each site by fold, which is the number of an example modulo the folds.
        pooled: (N, p) float32 means over the positions of each site.
        kept: (N,) booleans, False for examples of padding only.
        features: (N, p) float32 features of the probes, or (R, N, p) cut to every rank.
        labels: (N,); None without any.
    """

    sums: list[list[ShiftedSums]]
    pooled: list[Tensor]
    kept: Tensor
    features: list[Tensor]
    labels: Tensor | None

    def get_sides(self, j: int) -> list[Side]:
        """Return the sums about the mean of each fold of a site that has rows."""
        return [s.get_side() for s in self.sums[j] if s.n]

    def find_basis(self, j: int) -> Basis:
        """Return the principal components of a site."""
        first, *others = self.get_sides(j)
        return Basis.of(first.merge(*others) if others else first, self.sums[j][0].precision)


class SitePass:
    """A pass of a network over data; the networks and sites are those of a setup.

    Args:
        folds: number of folds with sums of their own; 0 for no sums.
        pools: collect the means over positions.
        recipe: of the probes whose features are collected; None for none.
        batch_ranks: ranks of every site to which the features are cut by the components of each batch. None:
            features as they are.
        add: gets each piece with its representations.
    """

    def __init__(self, setup: Setup, *, folds: int = 0, pools: bool = False,
                 recipe: ProbeRecipe | None = None, batch_ranks: Ranks | None = None,
                 add: Callable[[Batch, list[Tensor]], None] | None = None) -> None:
        self.setup, self.folds, self.pools, self.recipe = setup, folds, pools, recipe
        self.batch_ranks, self.add = batch_ranks, add

    def run(self, batches: Batches, stage: str, generator: torch.Generator | None = None) -> SiteExamples:
        """Pass all batches, with the recipe's crops and flips if there is a generator for them."""
        self._check_memory(batches)
        found, setup, device = _Collected(self), self.setup, self.setup.settings.torch_device
        with disable_gradients(), exact_products():
            for number, batch in enumerate(batches):
                run_front = partial(self._run_front, number=number)
                for piece, xs in setup.pieces.map(self._augment(batch, generator), device, run_front):
                    found.add(piece, xs, number)
                    if self.add is not None:
                        self.add(piece, xs)
                if setup.settings.tell_progress:
                    setup.settings.tell_progress(stage, number + 1, batches.count_batches())
        return found.join()

    def _check_memory(self, batches: Batches) -> None:
        n, needed = batches.count_examples() or 0, 0
        for j, shape in enumerate(self.setup.source.shapes):
            copies = 1 if self.batch_ranks is None else len(self.batch_ranks[j])
            needed += 4 * n * shape.width * (self.pools + copies * (self.recipe is not None))
        check_free_memory(needed, torch.device("cpu"), "the features of all examples",
                          "write examples=, or fewer sites")

    def _augment(self, batch: Batch, generator: torch.Generator | None) -> Batch:
        how = None if self.recipe is None else self.recipe.augmentation
        if how is None or generator is None:
            return batch
        check_batch(batch, how)
        return augment_batch(move_batch(batch, self.setup.settings.torch_device), how, generator)

    def _run_front(self, piece: Batch, number: int) -> list[Tensor]:
        try:
            return self.setup.source.front(piece.source)
        except (RuntimeError, IndexError) as e:
            if is_out_of_memory(e):
                raise
            raise SutureError(f"the network fails on batch {number} of the data: {summarise_error(e)}; give "
                              "batches of one input size") from e


class _Collected:
    """What a pass has collected so far."""

    def __init__(self, of: SitePass) -> None:
        self.of, self.network = of, of.setup.source
        shapes, precision = self.network.shapes, getattr(torch, of.setup.settings.precision)
        self.sums = [[ShiftedSums(s.width, precision) for _ in range(of.folds)] for s in shapes]
        self.pooled, self.features = ([list[Tensor]() for _ in shapes] for _ in range(2))
        self.kept, self.labels, self.size = list[Tensor](), list[Tensor](), 0

    def add(self, piece: Batch, xs: list[Tensor], number: int) -> None:
        """Add a piece of batch `number` with its representations."""
        masks = self.network.find_masks(piece.source)
        for j, (x, shape) in enumerate(zip(xs, self.network.shapes, strict=True)):
            rows, kept = to_grid(x, shape, View.ALL).flatten(1, -2), get_row_mask(shape, View.ALL, masks)
            kept = None if kept is None else kept.flatten(1)
            self._check(rows if kept is None else rows[kept], j, number)
            self._add_sums(j, rows, kept)
            if self.of.pools:
                self.pooled[j].append(_pool(x, shape, masks))
            if self.of.recipe is not None:
                self.features[j].append(self._find_features(x, shape, masks, j))
        self.kept.append(_find_unpadded(self.network.shapes, xs, masks))
        if piece.labels is not None:
            self.labels.append(piece.labels.cpu())
        self.size += piece.size

    def _check(self, rows: Tensor, j: int, number: int) -> None:
        if not bool(torch.isfinite(rows.float().sum())):
            raise SutureError(f"NaN or inf at {self.network.name} site {str(self.network.sites[j])!r} in "
                              f"batch {number} of the data; check inputs and weights, or leave this site out")

    def _add_sums(self, j: int, rows: Tensor, kept: Tensor | None) -> None:
        k = self.of.folds
        for fold, mine in enumerate(self.sums[j]):
            some = slice(None) if k == 1 else slice((fold - self.size) % k, None, k)
            mine.update(rows[some], mask=None if kept is None else kept[some])

    def _find_features(self, x: Tensor, shape: Shape, masks: Masks, j: int) -> Tensor:
        assert self.of.recipe is not None
        read, ranks = _read_token if self.of.recipe.reads_token(shape) else _pool, self.of.batch_ranks
        if ranks is None:
            return read(x, shape, masks)
        basis = find_batch_basis(x, shape, masks)
        return torch.stack([read(cut_representation(x, shape, basis, r), shape, masks) for r in ranks[j]])

    def join(self) -> SiteExamples:
        return SiteExamples(self.sums, [torch.cat(of) for of in self.pooled if of], torch.cat(self.kept),
                            [torch.cat(of, dim=-2) for of in self.features if of],
                            torch.cat(self.labels) if self.labels else None)


def _pool(x: Tensor, shape: Shape, masks: Masks) -> Tensor:
    return to_grid(x.float(), shape, View.POOLED, masks)[:, 0, 0, 0].cpu()


def _read_token(x: Tensor, shape: Shape, masks: Masks) -> Tensor:
    return x[:, 0].float().cpu()


def _find_unpadded(shapes: Sequence[Shape], xs: Sequence[Tensor], masks: Masks) -> Tensor:
    """Return True for each example that has a token besides padding at every site."""
    found = [rows.flatten(1).any(1).cpu() for s in shapes
             if (rows := get_row_mask(s, View.GRID, masks)) is not None]
    return torch.stack(found).all(0) if found else torch.ones(len(xs[0]), dtype=torch.bool)


def check_features(recipe: ProbeRecipe, setup: Setup) -> None:
    """Check that the features that a recipe asks for by name are there at every site."""
    for site, shape in zip(setup.source.sites, setup.source.shapes, strict=True):
        expect(recipe.features != "token" or shape.prefix > 0, "a class token for features='token'",
               f"{shape} at site {str(site)!r}", "write features='auto'")
