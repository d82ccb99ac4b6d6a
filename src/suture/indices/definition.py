"""Definition of an index: formula, inputs, conventions, references, and the transformations it ignores."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import torch

from suture._base import FOREIGN, SutureError, expect, summarise_error
from suture.indices.nulls.record import NullTest
from suture.numbers import Floats, Measure, Null, NumericalError, make_measure, qr

LEAST_EXAMPLES = 4
"""Smallest number of examples for the unbiased HSIC estimator, which divides by n - 3."""


class Needs(Enum):
    """Kinds of data that an index is computed from."""

    MOMENTS = "second moments"
    HIGHER = "second moments and sums of third and fourth order"
    UNITS = "moments of rows at unit length"
    BLOCKS = "second moments of blocks of examples"
    ROWS = "a kept sample of rows"
    KERNELS = "Gram matrices of flattened examples"
    KEPT_KERNELS = "one Gram matrix of the first flattened examples"
    CLASSES = "a kept sample of rows with their classes"
    FOLDS = "a kept sample of rows in folds"


FEW_ROWS = 0.25
"""Largest `Index.chance` of a value that is not marked."""
FROM_MOMENTS = frozenset({Needs.MOMENTS, Needs.HIGHER, Needs.UNITS, Needs.BLOCKS})
"""Kinds that a `suture.numbers.Pair` holds."""
_FLAT = frozenset({Needs.KERNELS, Needs.KEPT_KERNELS})
WITHIN = "within"  # pooled examples about the means of their classes
STITCH = "stitch"
"""Alignment of a name without ``@``: the two matrices that the stitching layer maps."""


@dataclass(frozen=True)
class Value:
    """Value of an index with its 95 % interval, or the reason why it is missing.

    `value` is nan if there is a `reason`. `low` and `high` are nan if no interval was computed. `mark` says
    why the value cannot be trusted, if so. `unsolved` is True if numbers without a result are the reason
    (`suture.numbers.NumericalError`). `null` is what permuted rows give; None where nobody looked.
    """

    value: float
    reason: str = ""
    low: float = math.nan
    high: float = math.nan
    mark: str = ""
    unsolved: bool = False
    null: NullTest | None = None

    @classmethod
    def missing(cls, reason: str) -> Value:
        """Make a value without a number."""
        return cls(math.nan, reason)


@dataclass(frozen=True)
class Argument:
    """The one number that an index may have, written after its name, as in ``"svcca:0.9"``.

    It lies between `low` and `high`. `about` says what it does and when to change the default.
    """

    name: str
    default: float
    low: float
    high: float
    about: str
    whole: bool = False

    def check(self, value: Any, index: str) -> float:
        """Convert a value to a number in the allowed range, or raise `SutureError`."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        expect(self.low <= number <= self.high and not (self.whole and number % 1),
               f"{self.name} of index {index!r} to be a {'whole ' * self.whole}number from {self.low:g} to "
               f"{self.high:g}", f"{value!r}", f"write {index}:{self.default:g}")
        return number


class UndefinedError(Exception):
    """Error for data on which an index has no value; its text is the reason."""


def require(holds: bool, reason: str) -> None:
    """Raise `UndefinedError` unless `holds`; the value of the index is then missing for this reason."""
    if not holds:
        raise UndefinedError(reason)


@dataclass(frozen=True)
class Index:
    """One structural index: everything that is known about it.

    Attributes:
        measure: name, label, range, direction, common form.
        fn: computes the number from a `suture.numbers.Pair` (moments), a `Sample` (rows) or `Kernels`, and
            from `value` if there is an argument. It calls `require` for its own conditions. All indices
            require that rows vary.
        formula, source: formula of the docs page; paper and equation.
        invariant_x, invariant_y: the `TRANSFORMATIONS` of source and target columns that leave it unchanged;
            all others change it. None: not stated.
        least: smallest meaningful number of rows.
        argument, value: the number that it may have, and its present value.
        cost: linear algebra of one cell, for p source and q target columns and n rows or examples.
        smooth: it changes smoothly with its data, so that a jackknife can estimate its bias. False for
            weights with absolute values and for best matchings.
        regime: returns what `fn` decides by a threshold, such as a number of components; called as `fn`. A
            jackknife across regimes means nothing, because their values differ by more than small changes.
        identical, null: its value for equal source and target, and for unrelated ones as rows become many.
            None: depends on the data.
        chance: share of the way from `null` to `identical` that few rows alone make; called as `fn`.
        symmetric: it stays the same when source and target change places. None: not stated.
        null_form: describes the null over permutations of rows from data with `grams`. None: it is drawn.
        paired: it sees which row of one side belongs to which of the other. Otherwise it has no null.
        flat: computes the same index from the `Kernels` of flattened examples.
        within: computes it within classes, from `ClassedRows`. None: `fn` of rows about class means.
        permuted: computes it faster for permutations, from `FoldedRows`. None: as otherwise.
        paper: the alignment ``paper`` (Balogh and Jelasity 2025) offers it.
        user: the user's own function, if it is one.
    """

    measure: Measure
    fn: Callable[..., float]
    formula: str
    source: str
    invariant_x: frozenset[str] | None
    invariant_y: frozenset[str] | None
    needs: Needs = Needs.MOMENTS
    least: int = 2
    argument: Argument | None = None
    value: float | None = None
    cost: str = "pq"
    smooth: bool = True
    regime: Callable[..., Hashable] | None = None
    identical: float | None = None
    null: float | None = None
    chance: Callable[..., float] | None = None
    symmetric: bool | None = None
    null_form: Callable[[Any], Null] | None = None
    paired: bool = True
    flat: Callable[..., float] | None = None
    within: Callable[..., float] | None = None
    permuted: Callable[..., float] | None = None
    paper: bool = False
    user: Callable[..., float] | None = None

    @property
    def name(self) -> str:
        """Key in tables."""
        return self.measure.name

    def at(self, value: Any) -> Index:
        """Return the index with another argument, also in its name, or raise `SutureError`."""
        if self.argument is None:
            raise SutureError(f"index {self.name!r} takes no number, got {value!r}; write {self.name!r}")
        number = self.argument.check(value, self.name)
        own = number == self.argument.default
        return replace(self, value=number,
                       measure=self.measure if own else self.measure.variant(f":{number:.12g}"))

    @property
    def best(self) -> float:
        """Value of equal source and target, else the end of the range that means more similar."""
        if self.identical is None and self.user is None:
            return self.measure.native[self.measure.larger_is_more_similar]
        return math.nan if self.identical is None else self.identical

    @property
    def alignments(self) -> tuple[str, ...]:
        """Alignments that offer it."""
        is_flat = self.needs in _FLAT
        return ((() if is_flat else (STITCH, "pool", WITHIN)) + (("flatten",) if is_flat or self.flat else ())
                + (("paper",) if self.paper else ()))

    def align(self, alignment: str) -> Index:
        """Return the form that an alignment computes, or raise `SutureError` if it offers none."""
        if alignment not in self.alignments:
            instead = "flatten" if self.needs in _FLAT else "pool"
            raise SutureError(f"expected an index that the alignment {alignment!r} offers, got "
                              f"{self.name!r}; write {self.name}@{instead}")
        if alignment == WITHIN and self.within is not None:
            return replace(self, fn=self.within, permuted=None, needs=Needs.CLASSES)
        if self.flat is None or alignment not in ("paper", "flatten"):
            return self
        return replace(self, fn=self.flat, flat=None, needs=Needs.KEPT_KERNELS, cost="n (p + q) + n²")

    def permute(self) -> Index:
        """Return the form that permutations compute."""
        return replace(self, fn=self.permuted, needs=Needs.FOLDS) if self.permuted else self

    def __call__(self, data: Any) -> Value:
        try:
            self._require_rows(data)
            number = float(self.fn(data, *self.arguments))
            mark = self._explain_few_rows(data) if math.isfinite(number) else ""
        except (UndefinedError, NumericalError) as reason:
            return Value(math.nan, str(reason), unsolved=isinstance(reason, NumericalError))
        except ArithmeticError:
            number = math.nan
        except FOREIGN as e:
            if self.user is None or isinstance(e, SutureError):
                raise
            return Value.missing(f"{self.name} fails with {type(e).__name__}: {summarise_error(e)}")
        if not math.isfinite(number):
            return Value.missing(f"{self.name} is not finite on these data")
        return Value(number, mark=mark)

    def _explain_few_rows(self, data: Any) -> str:
        chance = 0.0 if self.chance is None else self.chance(data, *self.arguments)
        return "" if not chance > FEW_ROWS else (
            f"few rows: with {data.independent} independent rows, unrelated representations come about "
            f"{min(chance, 1.0):.2f} of the way to identical ones; give more examples")

    def find_regime(self, data: Any) -> Hashable:
        """Return what `regime` decides on these data; None without a `regime`."""
        return None if self.regime is None else self.regime(data, *self.arguments)

    @property
    def arguments(self) -> tuple[float, ...]:
        return () if self.value is None else (self.value,)

    def _require_rows(self, data: Any) -> None:
        n = int(data.n)
        require(n > 1, f"{'one row' if n else 'no rows'}: nothing varies")
        require(not data.constant, f"constant {' and '.join(data.constant)} representation")
        require(n >= self.least, f"{n} rows: {self.name} needs at least {self.least}")


def define_index(name: str, label: str, invariant_x: frozenset[str],
                 invariant_y: frozenset[str] | None = None, *, low: float = 0.0, high: float = 1.0,
                 larger: bool = True, form: str = "", metric: str = "", judged: bool = True,
                 span: tuple[float, float] | None = None, **stated: Any
                 ) -> Callable[[Callable[..., float]], Index]:
    """Return a decorator that makes an `Index` of a formula.

    The first paragraph of the formula's docstring describes the index in reports. `low` to `span` are
    fields of `suture.numbers.Measure`, and `stated` holds other fields of `Index`. By default `invariant_y`
    equals `invariant_x`, `identical` is 1 (0 for distances), `null` is 0 (None for distances), and
    `symmetric` is True.
    """
    fields = {"identical": 1.0, "null": 0.0} if larger else {"identical": 0.0}
    def define(fn: Callable[..., float]) -> Index:
        about = " ".join((fn.__doc__ or "").partition("\n\n")[0].split())
        measure = make_measure(name, label, about, low=low, high=high, larger=larger, form=form, span=span,
                               judged=judged, metric=metric)
        argument = stated.get("argument")
        return Index(measure, fn, invariant_x=invariant_x, value=argument.default if argument else None,
                     invariant_y=invariant_x if invariant_y is None else invariant_y,
                     **{"symmetric": True, **fields, **stated})

    return define


Generator = np.random.Generator


def _rotate(x: Floats, rng: Generator) -> Floats:
    return np.asarray(x @ qr(torch.from_numpy(rng.normal(size=(x.shape[1], x.shape[1]))))[0].numpy())


TRANSFORMATIONS: Mapping[str, Callable[[Floats, Generator], Floats]] = {
    "translation": lambda x, rng: x + 5 * rng.normal(size=x.shape[1]),
    "scaling": lambda x, rng: x * rng.uniform(3, 9),
    "permutation": lambda x, rng: np.roll(x, 1, axis=1),
    "orthogonal": _rotate,
    "diagonal": lambda x, rng: x * rng.permutation(np.geomspace(0.2, 4, x.shape[1])),
    "linear": lambda x, rng: _rotate(_rotate(x, rng) * np.geomspace(0.2, 4, x.shape[1]), rng),
}
"""Random transformations of a matrix (n, p) by name.

Translation adds one vector to every row. Scaling multiplies by one positive number. Permutation reorders
columns. Orthogonal rotates or reflects them. Diagonal multiplies each by its own positive number. Linear is
any invertible map.
"""
_PARTS = {"linear": ("scaling", "permutation", "orthogonal", "diagonal"), "orthogonal": ("permutation",),
          "diagonal": ("scaling",)}


def expand_invariances(*given: str) -> frozenset[str]:
    """Return the given transformations and their special cases: orthogonal, for example, adds permutation."""
    return frozenset(given).union(*(_PARTS.get(name, ()) for name in given))


RIGID = expand_invariances("translation", "scaling", "orthogonal")
AFFINE = expand_invariances("translation", "linear")
