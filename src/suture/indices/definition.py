"""What an index is: one frozen entry with its formula, source, range, invariances, needs and smallest n."""

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
"""What may be done to the columns of a matrix: one vector added to every row; all multiplied by one positive
number; reordered; rotated or reflected; each multiplied by its own positive number; any invertible map."""


def expand_invariances(*given: str) -> frozenset[str]:
    """The given transformations with those that they contain."""
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
    """What an index is computed from."""

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
        """No number."""
        return cls(math.nan, reason)


@dataclass(frozen=True)
class Argument:
    """The one number that an index takes; written behind its name, as in ``"svcca:0.9"``.

    Attributes:
        name: as in formulas.
        default: where none is written.
        low, high: smallest and largest that is allowed.
        about: what it does, and when to leave the default.
        whole: whether it is a whole number.
    """

    name: str
    default: float
    low: float
    high: float
    about: str
    whole: bool = False

    def check(self, value: Any, index: str) -> float:
        """The value as a number.

        Raises:
            SutureError: it is none, or out of range.
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
    """Defined for whatever is not constant."""
    return ""


@dataclass(frozen=True)
class Index:
    """One structural index.

    Attributes:
        measure: name, range, direction, common form.
        fn: the number of a `suture.numbers.spectra.Pair` (needs moments), a `suture.indices.sample.Sample`
            (needs rows), or as `needs` says; the value of `argument`, where there is one, comes second.
        formula: how it is written, in the words of the docs page.
        source: paper and equation.
        invariant_x, invariant_y: the `TRANSFORMATIONS` of the source's / target's columns that leave it
            unchanged.
            What is not listed changes it.
        needs: what it is computed from.
        least: smallest number of rows for which it means something.
        undefined: the reason why given data have no such number, or an empty string; what holds for every
            index (constant data, fewer than `least` rows) is asked before.
        argument: the number that it takes, if any.
        value: of the argument.
        cost: of the linear algebra of one cell, for p source and q target columns and n rows or examples.
        smooth: whether it changes smoothly with its data, so that a jackknife can estimate its bias; weights
            with absolute values and best matchings do not.
        regime: what `fn` decides by a threshold, such as a number of components; values of different regimes
            are no small change of each other, so that a jackknife over them says nothing.
        user: the function of the user's that it is, if it is one.
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
        """The same index with another argument; its name says so.

        Raises:
            SutureError: it takes none, or the value is out of range.
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
        """What is decided by a threshold on these data; None where nothing is."""
        return None if self.regime is None else self.regime(data, *self._arguments)

    @property
    def _arguments(self) -> tuple[float, ...]:
        if self.argument is None:
            return ()
        return (self.argument.default if self.value is None else self.value,)

    def _explain_too_few(self, data: Any) -> str:
        """What is asked of every kind of data: more than one row, none of the sides constant, enough rows."""
        n = int(data.n)
        if n < 2:
            return "one row: nothing varies"
        if data.constant:
            return f"constant {' and '.join(data.constant)} representation"
        return f"{n} rows: {self.name} needs at least {self.least}" if n < self.least else ""


def collect_entries(*groups: tuple[Index, ...]) -> Mapping[str, Index]:
    """Entries by name."""
    return {i.name: i for group in groups for i in group}
