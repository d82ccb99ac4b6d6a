"""A law: a claim about one object, and its check."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


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


def verify(laws: Iterable[Law]) -> None:
    """Check all laws; raise an AssertionError that lists the broken ones, one line each."""
    broken = []
    for law in laws:
        try:
            law()
        except AssertionError as found:
            broken.append(" ".join(str(found).split()))
    assert not broken, "\n".join(broken)
