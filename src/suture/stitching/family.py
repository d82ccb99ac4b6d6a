"""The base class of families of affine maps, and the family of all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from suture._base import SutureError, checked, expect, list_options, make_unknown_error, options
from suture.numbers import Moments, Pair, compute_squared_error, solve_least_squares

RIGID = frozenset({"translation", "scaling", "permutation", "orthogonal"})
LINEAR = RIGID | {"linear"}
"""Invariances of the fits of many families; see `Family`."""


class Family:
    """A family of affine maps x -> W x + b from p source to q target channels (docs/families.md).

    A smaller family changes the source's geometry less, so a good fit says more. A new family is a frozen
    dataclass, whose fields are its options, and one line in `suture.stitching.families.FAMILIES`. The methods
    of this class are those of a free W without penalty.

    Attributes:
        name, examples: the name in the text that `parse` reads, and examples of such texts.
        invariances: transformations of the source's and of the target's channels that leave the R² of the
            fitted map unchanged, on fitting and on held-out data: "translation", "scaling" (isotropic),
            "permutation", "orthogonal" and "linear" (any invertible map). All others change R².
        shift: False if b = 0.
        square: True if source and target must have equally many channels.
        trainable: False if no parameters can be trained.
        penalised: True if W is penalised. Another map of the family may then have a smaller error.
        constants: names of the parts that training does not change.
    """

    name: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]
    invariances: tuple[frozenset[str], frozenset[str]]
    shift: bool = True
    square: ClassVar[bool] = False
    trainable: ClassVar[bool] = True
    penalised: ClassVar[bool] = False
    constants: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, *given: object, **options: object) -> None:
        raise SutureError("Family itself has no maps; write Family.parse('rank:8')")

    @staticmethod
    @checked
    def parse(text: str) -> Family:
        """Return the family that `text` names, or raise a `SutureError`; ``str(family)`` is the inverse.

        Options follow a colon: ``full``, ``ridge:0.1``, ``ridge:cv``, ``rank:8``, ``diagonal``,
        ``orthogonal:noscale,noshift``, ``permutation``, ``identity``, ``sparse:0.01``.
        """
        from suture.stitching.families import FAMILIES  # the table holds subclasses of this class

        name, *words = re.split("[:,]", text)
        if name not in FAMILIES:
            raise make_unknown_error("family", name, FAMILIES)
        family, listed = FAMILIES[name], list_options(FAMILIES[name])
        flags = {f"no{o.name}": o.name for o in listed if o.type is bool}
        values = [o.name for o in listed if o.type is not bool]
        given = [_read_number(word) for word in words if word not in flags]
        instead = f"write {' or '.join(family.examples)}"
        if len(given) != len(values):
            raise SutureError(f"cannot read the options of the family {text!r}; {instead}")
        try:
            return family(**dict(zip(values, given, strict=True)),
                          **{flags[word]: False for word in words if word in flags})
        except SutureError as error:
            raise SutureError(f"{error}; {instead}") from error

    def __str__(self) -> str:
        listed = list_options(type(self))
        words = [f"{getattr(self, o.name)}".removesuffix(".0") for o in listed if o.type is not bool]
        words += [f"no{o.name}" for o in listed if o.type is bool and not getattr(self, o.name)]
        return f"{self.name}:{','.join(words)}" if words else self.name

    def check(self, p: int, q: int) -> None:
        """Raise a `SutureError` if the family has no map from `p` to `q` channels."""
        expect(p == q or not self.square, f"as many source as target channels for {self}", f"{p} into {q}",
               "use full, or orthogonal" if p < q else "use full")

    @property
    def needs_folds(self) -> bool:
        """True if `choose` needs the moments of folds of the data."""
        return False

    def choose(self, folds: Sequence[Moments] | None, pair: Pair | None = None) -> Family:
        """Return the family, with the options that are chosen on held-out folds of the cell `pair`."""
        return self

    def solve(self, pair: Pair) -> Tensor:
        """Return the W (q, p) in float64 that minimises `compute_loss`."""
        return solve_least_squares(pair.x, pair.moments)

    def find_shift(self, weight: Tensor, moments: Moments) -> Tensor:
        """Return the best b (q,) for W: mean y - W mean x, or 0 where the family has no shift."""
        return moments.y.mean - weight @ moments.x.mean if self.shift else torch.zeros_like(moments.y.mean)

    def compute_loss(self, weight: Tensor, pair: Pair) -> Tensor:
        """Return the loss of the closed form: sum |W x + b - y|² with the best b, plus the penalty.

        It can be computed for any W (q, p) in float64, and has a gradient.
        """
        return compute_squared_error(weight, self.find_shift(weight, pair.moments), pair.moments)

    def count_parameters(self, weight: Tensor, pair: Pair) -> float:
        """Return the number of fitted parameters per target channel, without the shift."""
        return float(pair.x.rank) if self.trainable else 0.0

    def make_identity(self, p: int, q: int) -> Tensor:
        """Return the identity (q, p), rectangular where the widths differ."""
        return torch.eye(q, p)

    def draw(self, p: int, q: int, generator: torch.Generator) -> Tensor:
        """Draw a random W (q, p): uniform in ±1/sqrt(p), as in `torch.nn.Linear`."""
        return draw_weights((q, p), p**-0.5, generator)

    def split(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the parts, by name, of the map of the family that is nearest to W (q, p)."""
        return {"weight": weight}

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the W (q, p) that has these parts."""
        return parts["weight"]

    def check_training(self) -> None:
        """Raise a `SutureError` if task loss matching cannot fit the family."""
        expect(self.trainable, "a family with parameters to train on the task loss", str(self),
               "write methods=['dm'] or another family")

    def penalty(self, weight: Tensor) -> Tensor | None:
        """Return the penalty on W that is added to the task loss, or None."""
        return None

    def shrink(self, weight: Tensor, lr: float) -> Tensor:
        """Return W after the proximal step that follows an optimiser step of learning rate `lr`."""
        return weight


@options
class Full(Family):
    """Every affine map: W = Syx Sxx^+ (Balogh and Jelasity 2025; Csiszarik et al. 2021, section 3.2).

    The pseudo-inverse drops directions below `suture.numbers.spectra.compute_rank_cut`, so W has the least
    norm.
    """

    name, examples, invariances = "full", ("full",), (LINEAR, RIGID)


FULL = Full()


def draw_weights(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _read_number(word: str) -> Any:
    """Return a word as a number if it is one, else unchanged."""
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
