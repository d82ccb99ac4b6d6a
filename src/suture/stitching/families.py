"""Families of affine maps x -> W x + b from p source to q target channels.

A stitching layer is a map of one family. A smaller family keeps more of the source's geometry, so a good fit
says more. A `Family` serves both ways of fitting: `suture.stitching.direct_matching` solves it in closed form
from moments, and `suture.stitching.affine` trains it on the task loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from suture._base import SutureError, make_unknown_error

FamilyName = Literal["full", "ridge", "rank", "orthogonal", "diagonal", "permutation", "identity", "sparse"]


@dataclass(frozen=True)
class FamilyDescription:
    """The maps of a family, the invariances of its fit, and its purpose.

    Attributes:
        map: the maps that it allows.
        invariant_x, invariant_y: transformations of the source's / target's channels that leave the R² of the
            fitted map unchanged, on fitting and held-out data. The names are ``"translation"``, ``"scaling"``
            (isotropic), ``"permutation"``, ``"orthogonal"`` and ``"linear"`` (any invertible map). All others
            change R².
        use: the question that its fit answers.
    """

    map: str
    invariant_x: frozenset[str]
    invariant_y: frozenset[str]
    use: str


_AXES = frozenset({"translation", "scaling", "permutation"})
_RIGID = _AXES | {"orthogonal"}
_ALL = _RIGID | {"linear"}
_SCALE = frozenset({"translation", "scaling"})
_ORDER = frozenset({"translation", "permutation"})

FAMILIES: Mapping[str, FamilyDescription] = {
    "full": FamilyDescription("any W, any b", _ALL, _RIGID,
                        "the default: is the target's information in the source, linearly?"),
    "ridge": FamilyDescription("any W, its squared sum is penalised", _RIGID, _RIGID,
                         "the same with few rows for many channels, or with nearly collinear channels"),
    "rank": FamilyDescription("W of rank at most k", _ALL, _RIGID,
                        "how many directions does the fit need?"),
    "orthogonal": FamilyDescription("W = s Q, the columns of Q orthonormal", _RIGID, _RIGID,
                              "is the geometry the same up to rotation, scale and shift (Procrustes)?"),
    "diagonal": FamilyDescription("one factor per channel", _SCALE, _SCALE,
                            "are the channels the same up to shift and factor, as in two snapshots "
                            "of one training?"),
    "permutation": FamilyDescription("W permutes the channels", _ORDER, _ORDER,
                                     "are they the same units in another order (found by correlation)?"),
    "identity": FamilyDescription("W = I, b = 0", frozenset(), frozenset(),
                                  "are they the same units already, with nothing fitted?"),
    "sparse": FamilyDescription("any W, its absolute sum is penalised", _AXES, _AXES,
                                "is each target channel made of a few source channels?"),
}
"""Every family by name. The entry of orthogonal is for free scale and shift: see `Family.invariant_x`."""


@dataclass(frozen=True)
class Family:
    """One family with its options. ``Family.parse("rank:8")`` and ``str(family)`` are inverse to each other.

    `suture.stitching.direct_matching` and `suture.stitching.affine` say how the strength enters DM and TLM.

    Attributes:
        name: one of `FAMILIES`.
        strength: of the penalty. ridge: above 0, relative to the mean scatter of a source channel, or
            ``"cv"`` for cross-validation. sparse: between 0 and 1, relative to the penalty at which W becomes
            0. Others: None.
        rank: for rank only: the largest rank of W, at least 1.
        scale: for orthogonal only: True leaves the scale free, False fixes it at 1.
        shift: for orthogonal only: True leaves b free. False sets b = 0 and fits without subtracting the
            means. Of the other families, identity has no shift and the rest always have one.

    Raises:
        SutureError: an unknown name, or an option that is missing, out of range or of another family.
    """

    name: FamilyName = "full"
    strength: float | Literal["cv"] | None = None
    rank: int | None = None
    scale: bool = True
    shift: bool = True

    def __post_init__(self) -> None:
        if self.name not in FAMILIES:
            raise make_unknown_error("family", self.name, FAMILIES)
        self._check_strength()
        if self.name == "rank":
            if not isinstance(self.rank, int) or self.rank < 1:
                raise SutureError(f"expected rank to be a whole number of at least 1, got {self.rank!r}; "
                                  "write rank:8")
        elif self.rank is not None:
            raise SutureError(f"expected no rank for the family {self.name}, got {self.rank!r}; write "
                              f"rank:{self.rank}")
        if self.name != "orthogonal" and not (self.scale and self.shift):
            option = "shift" if self.scale else "scale"
            raise SutureError(f"expected {option}=False for orthogonal only, got it for {self.name}; "
                              f"write orthogonal:no{option} or leave it out")

    def _check_strength(self) -> None:
        s = self.strength
        if self.name == "ridge":
            if s != "cv" and not (isinstance(s, float | int) and 0 < s < math.inf):
                raise SutureError(f"expected a ridge strength above 0 or 'cv', got {s!r}; write ridge:0.1 or "
                                  "ridge:cv, or full for no penalty")
        elif self.name == "sparse":
            if not (isinstance(s, float | int) and 0 < s < 1):
                raise SutureError(f"expected a sparse strength between 0 and 1, got {s!r}; write "
                                  "sparse:0.01, or full for no penalty")
        elif s is not None:
            raise SutureError(f"expected no strength for the family {self.name}, got {s!r}; write ridge:{s}")

    @classmethod
    def parse(cls, text: str) -> Family:
        """Return the family that `text` names.

        Examples: ``full``, ``ridge:0.1``, ``ridge:cv``, ``rank:8``, ``orthogonal``,
        ``orthogonal:noscale,noshift``, ``diagonal``, ``permutation``, ``identity``, ``sparse:0.01``.

        Raises:
            SutureError: an unknown name or option, or a value that is missing, no number or out of range.
        """
        word, colon, rest = text.partition(":")
        if word not in FAMILIES:
            raise make_unknown_error("family", word, FAMILIES)
        name = cast(FamilyName, word)
        if name in ("ridge", "sparse"):
            return cls(name, strength=cast(float, _parse_number(float, rest)))
        if name == "rank":
            return cls(name, rank=cast(int, _parse_number(int, rest)))
        options = rest.split(",") if colon else []
        if name != "orthogonal" and options:
            raise SutureError(f"expected no option for the family {name}, got {rest!r}; write {name}")
        for o in options:
            if o not in ("noscale", "noshift"):
                raise make_unknown_error("option of the family orthogonal", o, ("noscale", "noshift"),
                                         "or write orthogonal")
        return cls(name, scale="noscale" not in options, shift="noshift" not in options)

    def __str__(self) -> str:
        options = [f"{v}".removesuffix(".0") for v in (self.strength, self.rank) if v is not None]
        options += [f"no{o}" for o in ("scale", "shift") if not getattr(self, o)]
        return f"{self.name}:{','.join(options)}" if options else self.name

    def check(self, p: int, q: int) -> None:
        """Raise if the family has no map from `p` to `q` channels.

        Raises:
            SutureError: orthogonal with p > q; diagonal, permutation, identity with p != q; a rank above
                min(p, q).
        """
        if self.name == "orthogonal" and p > q:
            raise SutureError(f"expected at most as many source as target channels for {self}, got {p} into "
                              f"{q}: the map cannot keep all directions; use rank:{q} or full, or swap "
                              "source and target")
        if self.name in ("diagonal", "permutation", "identity") and p != q:
            raise SutureError(f"expected as many source as target channels for {self}, got {p} into {q}; use "
                              f"full{', or orthogonal' if p < q else ''}")
        if self.rank is not None and self.rank > min(p, q):
            raise SutureError(f"expected a rank of at most {min(p, q)} for {p} into {q} channels, got "
                              f"{self.rank}; write full")

    @property
    def shifts(self) -> bool:
        """True if b may differ from 0."""
        return self.shift and self.name != "identity"

    @property
    def trainable(self) -> bool:
        """True if task loss matching has parameters to train: False for permutation and identity."""
        return self.name not in ("permutation", "identity")

    @property
    def invariant_x(self) -> frozenset[str]:
        """`FamilyDescription.invariant_x` for these options.

        A fixed scale removes the scaling on both sides, a fixed shift the translation.
        """
        return FAMILIES[self.name].invariant_x - self._fixed

    @property
    def invariant_y(self) -> frozenset[str]:
        """`FamilyDescription.invariant_y` for these options."""
        return FAMILIES[self.name].invariant_y - self._fixed

    @property
    def _fixed(self) -> set[str]:
        return {t for t, free in (("scaling", self.scale), ("translation", self.shift)) if not free}


def _parse_number(kind: Callable[[str], float], text: str) -> float | str | None:
    """Return `text` as a number.

    Other text is returned as it is, and empty text as None. `Family` accepts "cv" and refuses the rest.
    """
    try:
        return kind(text)
    except ValueError:
        return text or None


FULL = Family()
"""Every affine map: the default."""
