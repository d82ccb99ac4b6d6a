"""A law: a claim about one object, and its check; checks and data that several laws share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from suture._base import expect, keep_parts
from suture.indices import TRANSFORMATIONS
from suture.numbers import Floats

ROWS = 60
"""Number of rows of the matrices on which indices and families are checked."""


@dataclass(frozen=True)
class Law:
    """A claim that must hold for an object.

    Attributes:
        name: short name, such as a test's id.
        claim: one sentence.
        check: raises an AssertionError with the numbers that break the claim.
    """

    name: str
    claim: str
    check: Callable[[], None]

    def __call__(self) -> None:
        """Check the claim; raise an AssertionError with the claim and the numbers if it is broken."""
        try:
            self.check()
        except AssertionError as found:
            raise AssertionError(f"{self.name}: {self.claim} {found}") from None

    def __repr__(self) -> str:
        return self.name


def law(claim: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark a method of a `LawBook` as the check of a claim; its name is the name of the law."""
    def mark(check: Callable[..., None]) -> Callable[..., None]:
        vars(check)["claim"] = claim
        return check

    return mark


class LawBook:
    """Laws of one object: its methods marked by `law`, and those that `vary` adds."""

    def __init__(self) -> None:
        self._varied: list[Law] = []

    def vary(self, name: str, claim: str, check: Callable[..., None], *given: Any) -> None:
        """Add a law whose check is called with `given`."""
        self._varied.append(Law(name, claim, lambda: check(*given)))

    def list_laws(self) -> list[Law]:
        marked = [(name, of) for name, of in vars(type(self)).items() if hasattr(of, "claim")]
        return [*(Law(name.replace("_", " "), of.claim, getattr(self, name)) for name, of in marked),
                *self._varied]


class Changes:
    """Changes of a measure of matrices (n, p) and (n, q) where the columns of one are transformed."""

    def __init__(self, measure: Callable[[Floats, Floats], float], pairs: list[tuple[Floats, Floats]],
                 rounding: float) -> None:
        self._measure, self._pairs, self._rounding = measure, pairs, rounding

    @cached_property
    def _values(self) -> list[float]:
        return [self._measure(x, y) for x, y in self._pairs]

    def check(self, side: str, how: str, kept: bool) -> None:
        """Check that a transformation of the source's or the target's columns changes no value, or one."""
        changes = []
        for k, ((x, y), value) in enumerate(zip(self._pairs, self._values, strict=True)):
            rng, move = np.random.default_rng(k), TRANSFORMATIONS[how]
            moved = (move(x, rng), y) if side == "source" else (x, move(y, rng))
            changes.append(abs(self._measure(*moved) - value))
            if not kept and changes[-1] > self._rounding:
                return
        assert (max(changes) <= self._rounding) == kept, f"It changes by {max(changes)}."


def draw_related(seed: int, p: int, q: int) -> tuple[Floats, Floats]:
    """Draw matrices (60, p) and (60, q) with a common signal, uneven scales and nonzero means."""
    g = np.random.default_rng(seed)
    x = g.normal(size=(ROWS, p)) * np.linspace(1, 2, p)
    y = x @ g.normal(size=(p, q)) + 2 * g.normal(size=(ROWS, q)) + g.normal(size=q)
    return x + g.normal(size=p), y


def check_close(one: Tensor, other: Tensor, what: str, least: float = 1e-30) -> None:
    """Check that tensors differ by at most 1e-4 of the largest number, or of `least`."""
    apart, scale = float((one - other).abs().max()), float(one.abs().max().clamp(min=least))
    assert apart <= 1e-4 * scale, f"{what} differ by {apart:.3g}, the largest is {scale:.3g}."


def verify(laws: Iterable[Law]) -> None:
    """Check all laws; raise an AssertionError that lists the broken ones, one line each."""
    given = keep_parts(laws)
    expect(isinstance(given, tuple) and all(isinstance(law, Law) for law in given), "laws to check", laws,
           "write verify(suture.testing.index_laws(index))")
    broken = []
    for law in given:
        try:
            law()
        except AssertionError as found:
            broken.append(" ".join(str(found).split()))
    assert not broken, "\n".join(broken)
