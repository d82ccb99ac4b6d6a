"""Definition of an index: one frozen entry with formula, source, range, invariances, needs and smallest n."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from suture._base import SutureError, summarise_error
from suture.numbers import Measure

TRANSLATION, SCALING, PERMUTATION, ORTHOGONAL, DIAGONAL, LINEAR = TRANSFORMATIONS = (
    "translation", "scaling", "permutation", "orthogonal", "diagonal", "linear")
"""Transformations of the columns of a matrix. Translation adds one vector to every row. Scaling multiplies
all columns by one positive number. Permutation reorders columns. Orthogonal rotates or reflects them.
Diagonal multiplies each column by its own positive number. Linear is any invertible map."""


def expand_invariances(*given: str) -> frozenset[str]:
    """Return the given transformations with all that they contain."""
    found = set(given)
    if LINEAR in found:
        found |= {SCALING, PERMUTATION, ORTHOGONAL, DIAGONAL}
    if ORTHOGONAL in found:
        found |= {PERMUTATION}
    if DIAGONAL in found:
        found |= {SCALING}
    return frozenset(found)


RIGID = expand_invariances(TRANSLATION, SCALING, ORTHOGONAL)
AFFINE = expand_invariances(TRANSLATION, LINEAR)


class Needs(Enum):
    """Kinds of data that an index is computed from."""

    MOMENTS = "second moments"
    HIGHER = "second moments and sums of third and fourth order"
    UNITS = "moments of rows at unit length"
    BLOCKS = "second moments of blocks of examples"
    ROWS = "a kept sample of rows"
    KERNELS = "Gram matrices of flattened examples"


@dataclass(frozen=True)
class Value:
    """A number, or the reason why there is none.

    Attributes:
        value: the number; nan where `reason` is not empty.
        reason: why it is missing; empty otherwise.
        low, high: 95 % interval, where blocks of examples were kept apart for one; else nan.
    """

    value: float
    reason: str = ""
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def missing(cls, reason: str) -> Value:
        """Make a value without a number."""
        return cls(math.nan, reason)


@dataclass(frozen=True)
class Argument:
    """The one number that an index may have, written after its name, as in ``"svcca:0.9"``.

    Attributes:
        name: as in formulas.
        default: value where none is written.
        low, high: smallest and largest allowed value.
        about: what it does, and when to leave the default.
        whole: True if it is a whole number.
    """

    name: str
    default: float
    low: float
    high: float
    about: str
    whole: bool = False

    def check(self, value: Any, index: str) -> float:
        """Convert a given value to a number and check its range.

        Raises:
            SutureError: it is not a number, or out of range.
        """
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not self.low <= number <= self.high or (self.whole and number != int(number)):
            kind = "a whole number" if self.whole else "a number"
            raise SutureError(f"expected {self.name} of index {index!r} to be {kind} from {self.low:g} to "
                              f"{self.high:g}, got {value!r}; write {index}:{self.default:g}")
        return number


def explain_nothing(_: Any) -> str:
    """Return an empty string: the index is defined for all data that vary."""
    return ""


@dataclass(frozen=True)
class Index:
    """One structural index.

    Attributes:
        measure: name, range, direction, common form.
        fn: computes the number. Its first argument is a `suture.numbers.spectra.Pair` (needs moments), a
            `suture.indices.sample.Sample` (needs rows), or what `needs` says. Its second is the value of
            `argument`, if there is one.
        formula: as on the docs page.
        source: paper and equation.
        invariant_x, invariant_y: the `TRANSFORMATIONS` of the source's / target's columns that leave it
            unchanged. Every other one changes it.
        needs: kind of data that it is computed from.
        least: smallest number of rows for which it means something.
        undefined: returns the reason why given data have no such number, or an empty string. Reasons common
            to all indices (constant data, fewer than `least` rows) are checked before.
        argument: the number that it may have, if any.
        value: of the argument.
        cost: of the linear algebra of one cell, for p source and q target columns and n rows or examples.
        smooth: it changes smoothly with its data, so that a jackknife can estimate its bias. Weights with
            absolute values and best matchings do not.
        regime: returns what `fn` decides by a threshold, such as a number of components. Values of different
            regimes are not small changes of each other, so a jackknife over them says nothing.
        user: the user's own function, if it is one.
    """

    measure: Measure
    fn: Callable[..., float]
    formula: str
    source: str
    invariant_x: frozenset[str]
    invariant_y: frozenset[str]
    needs: Needs = Needs.MOMENTS
    least: int = 2
    undefined: Callable[[Any], str] = explain_nothing
    argument: Argument | None = None
    value: float | None = None
    cost: str = "pq"
    smooth: bool = True
    regime: Callable[..., Hashable] | None = None
    user: Callable[..., float] | None = None

    @property
    def name(self) -> str:
        """Key in tables."""
        return self.measure.name

    def at(self, value: Any) -> Index:
        """Return the same index with another argument, and with that argument in its name.

        Raises:
            SutureError: it has no argument, or the value is out of range.
        """
        if self.argument is None:
            raise SutureError(f"index {self.name!r} takes no number, got {value!r}; write {self.name!r}")
        number = self.argument.check(value, self.name)
        if number == self.argument.default:
            return replace(self, value=number)
        return replace(self, value=number, measure=self.measure.variant(f":{number:.12g}"))

    def __call__(self, data: Any) -> Value:
        reason = self._explain_too_few(data) or self.undefined(data)
        if reason:
            return Value.missing(reason)
        try:
            number = float(self.fn(data, *self._arguments))
        except ArithmeticError:
            number = math.nan
        except SutureError:
            raise
        except Exception as e:
            if self.user is None:
                raise
            return Value.missing(f"{self.name} fails with {type(e).__name__}: {summarise_error(e)}")
        if not math.isfinite(number):
            return Value.missing(f"{self.name} is not finite on these data")
        return Value(number)

    def regime_of(self, data: Any) -> Hashable:
        """Return what a threshold decides on these data, or None where nothing is decided."""
        return None if self.regime is None else self.regime(data, *self._arguments)

    @property
    def _arguments(self) -> tuple[float, ...]:
        if self.argument is None:
            return ()
        return (self.argument.default if self.value is None else self.value,)

    def _explain_too_few(self, data: Any) -> str:
        """Return the reason why any index is undefined here, or an empty string.

        Every index needs more than one row, no constant side, and at least `least` rows.
        """
        n = int(data.n)
        if n < 2:
            return "one row: nothing varies"
        if data.constant:
            return f"constant {' and '.join(data.constant)} representation"
        return f"{n} rows: {self.name} needs at least {self.least}" if n < self.least else ""


def collect_entries(*groups: tuple[Index, ...]) -> Mapping[str, Index]:
    """Collect entries into a mapping by name."""
    return {i.name: i for group in groups for i in group}
