"""The thresholds of the verdict on a stitched cell."""

from __future__ import annotations

from dataclasses import dataclass

from suture._base import SutureError


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the verdict on a stitched cell.

    Attributes:
        works: smallest relative accuracy of a stitched network that works, in (0, 1].
        out: smallest two-sided AUROC of representations that are out of distribution, in (0.5, 1]. An AUROC
            of 1 - `out` or less counts too.
        quality: smallest two-sided AUROC on auxiliary data of a detector whose verdict is proven, in [0.5,
            1].

    Raises:
        SutureError: a threshold that is no number, or outside of its range.
    """

    works: float = 0.8
    out: float = 0.8
    quality: float = 0.8

    def __post_init__(self) -> None:
        for name, least, open_ in (("works", 0.0, True), ("out", 0.5, True), ("quality", 0.5, False)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not least <= value <= 1 or (open_ and value == least):
                raise SutureError(f"expected a threshold {name!r} of {'more than' if open_ else 'at least'} "
                                  f"{least:g} and at most 1, got {value!r}; leave it out for 0.8")
