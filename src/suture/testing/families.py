"""Laws of a family of affine maps: the closed form is optimal, and its stated invariances hold."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from suture._base import Count, Seed, SutureError, checked
from suture.numbers import Floats, Moments, Pair
from suture.stitching import DirectMatch, Family, direct_match
from suture.testing.laws import Changes, Law, LawBook, draw_related, law

FOLDS, ROUNDING = 5, 1e-6
KINDS = ("translation", "scaling", "permutation", "orthogonal", "linear")
"""Transformations that a family may state as invariances; see `suture.indices.TRANSFORMATIONS`."""


@checked
def family_laws(family: Family | str, *,
                widths: tuple[Count, Count] = (4, 4), seed: Seed = 0) -> list[Law]:
    """Return the laws of a family of affine maps.

    Args:
        family: a family, or its text such as ``"rank:2"``.
        widths: numbers of source and target channels, which the family must allow.
        seed: seed of the matrices and of the random maps.
    """
    made = Family.parse(family) if isinstance(family, str) else family
    made.check(*widths)
    return _FamilyLaws(made, widths, seed).list_laws()


class _FamilyLaws(LawBook):
    def __init__(self, family: Family, widths: tuple[int, int], seed: int) -> None:
        super().__init__()
        self._family, self._widths, self._seed = family, widths, seed
        pairs = [draw_related(seed + k, *widths) for k in range(2)]
        self._data = x, y = _copy(*pairs[0])
        self._pair = Pair.of(Moments.of(x, y))
        changes = Changes(lambda *moved: self._match(*_copy(*moved)).residual, pairs, ROUNDING)
        for side, stated in zip(("source", "target"), family.invariances, strict=True):
            for how in KINDS:
                verb = "leaves" if how in stated else "does not leave"
                self.vary(f"{how} of the {side}", f"A {how} of the {side}'s channels {verb} the residual of "
                          "the fit unchanged.", changes.check, side, how, how in stated)
        if family.trainable:
            self.vary("training", "Training from the closed form does not improve its loss.",
                      self._check_training)

    @cached_property
    def _solution(self) -> DirectMatch:
        return self._match(*self._data)

    @cached_property
    def _parts(self) -> dict[str, Tensor]:
        return self._family.split(self._solution.weight)

    def _match(self, x: Tensor, y: Tensor) -> DirectMatch:
        return direct_match(Pair.of(Moments.of(x, y)), self._family, _cut_folds(x, y))

    @cached_property
    def _chosen(self) -> Family:
        return self._family.choose(_cut_folds(*self._data))

    def _compute_loss(self, weight: Tensor) -> Tensor:
        return self._chosen.compute_loss(weight, self._pair)

    @law("The closed form lies in the family.")
    def membership(self) -> None:
        weight, bias = self._solution.weight, self._solution.bias
        apart = float((self._family.join(self._parts) - weight).norm() / weight.norm().clamp(min=1e-30))
        assert apart < 1e-6, f"The nearest member is {apart} of its norm away."
        assert self._family.shift or not bias.any(), f"It has no shift, and b is {bias.tolist()}."

    @law("No other member of the family has a smaller loss.")
    def optimum(self) -> None:
        family, g = self._family, torch.Generator().manual_seed(self._seed)
        best = float(self._compute_loss(self._solution.weight))
        for k in range(100):
            parts = family.split(family.draw(*self._widths, g).double()) if k % 2 else {
                n: p if n in family.constants else p + 1e-2 * torch.randn(p.shape, dtype=p.dtype, generator=g)
                for n, p in self._parts.items()}
            loss = float(self._compute_loss(family.join(family.split(family.join(parts)))))
            assert loss >= best - 1e-9 * abs(best), f"A member has {loss}, the closed form {best}."

    @law("The residual is that of the map, row by row.")
    def residual(self) -> None:
        (x, y), found = self._data, self._solution
        error = (x @ found.weight.T + found.bias - y).square().sum() / (y - y.mean(0)).square().sum()
        assert abs(float(error) - found.residual) <= 1e-9, (
            f"Got {found.residual}, the rows give {float(error)}.")

    @law("The text of the family names the same family.")
    def text(self) -> None:
        again = Family.parse(str(self._family))
        assert again == self._family, f"{self._family!s} is read as {again!r}."

    @law("Widths without a map are refused in one line; others have a random map of that shape.")
    def widths(self) -> None:
        for p, q in ((1, 1), (2, 3), (3, 2), (8, 8)):
            try:
                self._family.check(p, q)
            except SutureError as error:
                lines = str(error).count("\n") + 1
            else:
                shape = tuple(self._family.draw(p, q, torch.Generator().manual_seed(0)).shape)
                assert shape == (q, p), f"{p} into {q} gives a map of shape {shape}."
                lines = 1
            assert lines == 1, f"{p} into {q} is refused in {lines} lines."

    def _check_training(self) -> None:
        parts = {n: p.clone().requires_grad_(n not in self._family.constants) for n, p in self._parts.items()}
        best = float(self._compute_loss(self._solution.weight))
        optimizer = torch.optim.Adam([p for p in parts.values() if p.requires_grad], lr=1e-3)
        losses = []
        for _ in range(50):
            optimizer.zero_grad()
            loss = self._compute_loss(self._family.join(parts))
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(float(loss.detach()))
            optimizer.step()
        assert min(losses) >= best - 1e-6 * abs(best), f"Training reaches {min(losses)} from {best}."


def _cut_folds(x: Tensor, y: Tensor) -> list[Moments]:
    return [Moments.of(x[k::FOLDS], y[k::FOLDS]) for k in range(FOLDS)]


def _copy(x: Floats, y: Floats) -> tuple[Tensor, Tensor]:
    return torch.tensor(x), torch.tensor(y)
