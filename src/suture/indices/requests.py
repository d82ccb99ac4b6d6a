"""Requests for indices: by name, ``"svcca:0.9@pool"``, or as a function of the user's own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import PlainValidator

from suture._base import (
    Real,
    SutureError,
    checked,
    expect,
    hash_object,
    keep_parts,
    make_unknown_error,
    show_value,
)
from suture.indices.definition import STITCH, TRANSFORMATIONS, Index, Needs, expand_invariances
from suture.indices.entries import GROUPS, INDICES
from suture.numbers import ALIGNMENTS, MEASURES, make_measure, register_measure

Invariances = Annotated[Iterable[str] | None, PlainValidator(keep_parts)]
"""Names of `TRANSFORMATIONS`."""


@dataclass(frozen=True)
class Request:
    """One index of one alignment: ``"stitch"``, ``"pool"``, ``"flatten"`` or ``"paper"``."""

    index: Index
    alignment: str = STITCH

    @property
    def name(self) -> str:
        """Key in tables: ``"svcca:0.9@pool"``."""
        return self.index.name if self.alignment == STITCH else f"{self.index.name}@{self.alignment}"

    @property
    def key(self) -> str:
        """Name, with a hash of the content of a user's function: different functions have different keys."""
        return self.name if self.index.user is None else f"{self.name}#{hash_object(self.index.user).short}"


Named = str | Index | Request | Callable[..., float]
"""A name, an `Index`, a `Request`, or a user's function of one `suture.numbers.Pair` or of two matrices."""
Names = Annotated[Iterable[Named] | Named, PlainValidator(keep_parts)]
"""One or several of them; what can be read only once is kept."""


@checked
def chosen(names: Names = "default") -> list[Request]:
    """Return the requested indices, each once, in the order given; names of `GROUPS` stand for several.

    Raises:
        SutureError: an unknown name, a number out of range, or an index that its alignment does not offer.
    """
    if isinstance(names, str | Index | Request) or callable(names):
        names = [names]
    expect(isinstance(names, Iterable) and not isinstance(names, bytes),
           "indices by name, entries or functions", show_value(names), "write () for none")
    found: dict[str, Request] = {}
    for given in names:
        for request in _parse(given):
            if found.setdefault(request.name, request).key != request.key:
                raise SutureError(f"expected every name once, got two functions called {request.name!r}; "
                                  "name one of them by suture.indices.own(function, name='my_index')")
    return list(found.values())


def _parse(given: Any) -> list[Request]:
    if not isinstance(given, str):
        expect(isinstance(given, Index | Request) or callable(given),
               "an index by name, an entry or a function", show_value(given), 'write "cka"')
        request = (given if isinstance(given, Request)
                   else Request(given if isinstance(given, Index) else own(given)))
        return [Request(request.index.align(request.alignment), request.alignment)]
    rest, at, alignment = given.partition("@")
    alignment = alignment if at else STITCH
    if alignment not in (STITCH, *ALIGNMENTS):
        raise make_unknown_error("alignment", alignment, (STITCH, *ALIGNMENTS))
    name, colon, value = rest.partition(":")
    if name not in GROUPS:
        if name not in INDICES:
            raise make_unknown_error("index", name, (*INDICES, *GROUPS))
        index = INDICES[name].at(value) if colon else INDICES[name]
        return [Request(index.align(alignment), alignment)]
    expect(not colon, "a number after one index only", f"the group in {given!r}", f"write {name!r}")
    offered = [INDICES[n] for n in GROUPS[name] if alignment in INDICES[n].alignments]
    expect(bool(offered), f"a group with indices that the alignment {alignment!r} offers", f"{name!r}",
           f"write all@{alignment}")
    return [Request(index.align(alignment), alignment) for index in offered]


@checked
def own(fn: Callable[..., Any], name: str | None = None, *, low: Real = 0.0, high: Real = 1.0,
        larger_is_more_similar: bool = True, about: str = "", unchanged_x: Invariances = None,
        unchanged_y: Invariances = None, identical: Real | None = None, null: Real | None = None,
        symmetric: bool | None = None) -> Index:
    """Make an index of a user's function of one `suture.numbers.Pair`, or of two matrices.

    Args:
        fn: ``f(pair) -> float``, exact from one pass over the data; or ``f(x, y) -> float`` of a sample of
            rows, float64 arrays (n, p) and (n, q). It returns nan where it has no value.
        name: key in tables. Default: the function's name.
        low, high: colour limits of maps. Default 0 and 1.
        larger_is_more_similar: False for distances. Default True.
        about: one sentence for the report.
        unchanged_x, unchanged_y: names of the `TRANSFORMATIONS` of source and target columns that leave it
            unchanged. Default None: not stated.
        identical, null, symmetric: see `Index`. Default None: not stated.

    Raises:
        SutureError: another number of arguments, a name that is in use or no identifier, invalid colour
            limits, or an unknown transformation.
    """
    called = str(name or getattr(fn, "__name__", type(fn).__name__))
    count = _count_arguments(fn)
    expect(count in (1, 2), "a function of a pair of moments, f(pair), or of two matrices, f(x, y)",
           f"{called!r} with {count} arguments")
    measures = [m.name for m in MEASURES.values() if not m.own]
    expect(called.isidentifier() and called not in (*measures, *GROUPS, "source", "target"),
           "a name of letters, digits and _ that no index has", f"{called!r}",
           "write suture.indices.own(function, name='my_index')")
    expect(math.isfinite(low) and math.isfinite(high) and low < high,
           f"finite colour limits low < high of index {called!r}", f"{low!r} and {high!r}",
           "write low=0.0, high=1.0")
    # A second function of the same name replaces the first.
    measure = register_measure(make_measure(
        called, called.replace("_", " "), about or f"A function of the user's, {called}.", low=low, high=high,
        larger=larger_is_more_similar, own=True))

    def compute(data: Any) -> float:
        found = fn(data) if count == 1 else fn(data.x.values, data.y.values)
        try:
            return float(found)
        except (TypeError, ValueError, RuntimeError):
            raise SutureError(f"expected index {called!r} to return a number, got {type(found).__name__}; "
                              "return a float, nan where there is no value") from None

    return Index(measure, compute, "", "the user", _state_invariances(unchanged_x),
                 _state_invariances(unchanged_y), Needs.MOMENTS if count == 1 else Needs.ROWS,
                 identical=identical, null=null, symmetric=symmetric, user=fn)


def _count_arguments(fn: Any) -> int:
    """Count the required positional arguments of a function; 0 if it has no signature."""
    try:
        given = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return 0
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in given)


def _state_invariances(names: Iterable[str] | None) -> frozenset[str] | None:
    given = () if names is None else (names,) if isinstance(names, str) else names
    if not isinstance(given, tuple):
        raise make_unknown_error("transformation", given, TRANSFORMATIONS)
    for name in given:
        if not isinstance(name, str) or name not in TRANSFORMATIONS:
            raise make_unknown_error("transformation", name, TRANSFORMATIONS)
    return None if names is None else expand_invariances(*given)
