"""Table of every index by name, and the parser of the names that a user writes.

A name may have a number after ``:`` and an alignment after ``@``.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import CodeType
from typing import Any, Union

from suture._base import SutureError, make_unknown_error
from suture.indices.definition import Index, Needs
from suture.indices.entries import (
    INDICES,
    explain_not_kept,
    explain_too_few_kept,
    flat_cka,
    flat_cka_debiased,
)
from suture.numbers import ALIGNMENTS, MEASURES, Measure, make_index_measure, register_measure

for _entry in INDICES.values():
    register_measure(_entry.measure)
FROM_MOMENTS = frozenset({Needs.MOMENTS, Needs.HIGHER, Needs.UNITS, Needs.BLOCKS})
DEFAULT = ("cka", "cka_debiased", "cca", "pwcca", "pwcca_target", "opd", "r2")
STITCH = "stitch"
"""The alignment of a name without ``@``: the matrices that the stitching layer maps."""
PAPER_INDICES = ("cka", "pwcca", "pwcca_target", "opd")
"""Indices that the alignment `paper` offers: those of Balogh and Jelasity (2025), by their rules."""
_FLAT_FUNCTIONS = {"cka": (flat_cka, explain_not_kept),
                   "cka_debiased": (flat_cka_debiased, explain_too_few_kept)}
FLAT_INDICES: Mapping[str, Index] = {"cka_minibatch": INDICES["cka_minibatch"]} | {
    name: replace(INDICES[name], fn=fn, undefined=undefined, needs=Needs.KERNELS, cost="n (p + q) + n²")
    for name, (fn, undefined) in _FLAT_FUNCTIONS.items()}
"""Indices that the alignment `flatten` offers. Its features are C*H*W, too many for moments, so Gram
matrices of examples are used instead."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "default": DEFAULT,
    "moments": tuple(n for n, i in INDICES.items() if i.needs in FROM_MOMENTS),
    "rows": tuple(n for n, i in INDICES.items() if i.needs is Needs.ROWS),
    "all": tuple(n for n, i in INDICES.items() if i.needs in FROM_MOMENTS or i.needs is Needs.ROWS),
}
"""Names that stand for several indices, also with an alignment: ``"moments@pool"``."""

Named = Union[str, Index, "Request", Callable[..., float]]
"""A name, an entry (also with an alignment), or a user's function: of one `suture.numbers.spectra.Pair`,
or of two matrices (n, p) and (n, q)."""


@dataclass(frozen=True)
class Request:
    """One index of one alignment.

    Attributes:
        index: the entry, with its argument; its name is the one in tables.
        alignment: ``"stitch"``, ``"pool"``, ``"flatten"`` or ``"paper"``.
    """

    index: Index
    alignment: str = STITCH

    @property
    def name(self) -> str:
        """Key in tables: ``"svcca:0.9@pool"``."""
        return self.index.name if self.alignment == STITCH else f"{self.index.name}@{self.alignment}"

    @property
    def key(self) -> str:
        """Name, with a hash of the content of a user's function.

        Two functions with different content have different keys.
        """
        if self.index.user is None:
            return self.name
        content = repr(_extract_content(self.index.user)).encode()
        return f"{self.name}#{hashlib.sha256(content).hexdigest()[:12]}"


def _extract_content(what: Any) -> Any:
    """Extract the content of a function: its instructions, and the numbers and texts that it holds.

    These are in its constants, its defaults and the variables of its closure. Objects that it looks up by
    name, such as another function, are not followed.
    """
    if isinstance(what, frozenset):
        return sorted(map(repr, map(_extract_content, what)))  # a set's order differs between processes
    if isinstance(what, tuple):
        return [_extract_content(w) for w in what]
    if isinstance(what, CodeType):
        return what.co_code, what.co_names, _extract_content(what.co_consts)
    if isinstance(what, partial):
        return _extract_content((what.func, what.args, *sorted(what.keywords.items())))
    code = getattr(what, "__code__", None)
    if code is not None:
        # Functions in the closure give only their code, because one of them may be the function itself.
        cells = (c.cell_contents for c in getattr(what, "__closure__", None) or ())
        inner = (getattr(c, "__code__", c) for c in cells)
        named = getattr(what, "__kwdefaults__", None) or {}
        return _extract_content((code, getattr(what, "__defaults__", None) or (),
                                 *sorted(named.items()), *inner))
    if isinstance(what, bool | int | float | complex | str | bytes | type(None)):
        return what
    return f"{type(what).__module__}.{type(what).__qualname__}", getattr(what, "__qualname__", "")


def chosen(names: Iterable[Named] | Named = "default") -> list[Request]:
    """Return the requested indices, each once, in the order given.

    Args:
        names: names, entries and functions; names of `GROUPS` stand for several.

    Raises:
        SutureError: a name that is not known, a number out of range, an index that an alignment does not
            offer.
    """
    if isinstance(names, str | Index | Request) or callable(names):
        names = [names]
    if not isinstance(names, Iterable):
        raise SutureError(f"expected indices by name, entries or functions, got {names!r}; write () for none")
    found: dict[str, Request] = {}
    for given in names:
        for request in _parse_request(given):
            if found.setdefault(request.name, request).key != request.key:
                raise SutureError(f"expected every name once, got two functions called {request.name!r}; "
                                  "name one of them by suture.indices.own(function, name='my_index')")
    return list(found.values())


def _parse_request(given: Any) -> list[Request]:
    if not isinstance(given, str):
        request = (given if isinstance(given, Request)
                   else Request(given if isinstance(given, Index) else own(given)))
        if why := _explain_refusal(request.index, request.alignment):
            raise SutureError(why)
        return [_make_request(request.index, request.alignment)]
    rest, at, alignment = given.partition("@")
    if at and alignment not in (STITCH, *ALIGNMENTS):
        raise make_unknown_error("alignment", alignment, (STITCH, *ALIGNMENTS))
    alignment = alignment or STITCH
    name, colon, value = rest.partition(":")
    if name in GROUPS and not colon:
        offered = [_make_request(INDICES[n], alignment) for n in GROUPS[name]
                   if not _explain_refusal(INDICES[n], alignment)]
        if not offered:
            raise SutureError(f"expected a group with indices that the alignment {alignment!r} offers, got "
                              f"{name!r}; write all@{alignment}")
        return offered
    if name in GROUPS:
        raise SutureError(f"expected a number behind one index, got the group in {given!r}; write {name!r}")
    if name not in INDICES:
        raise make_unknown_error("index", name, (*INDICES, *GROUPS))
    index = INDICES[name].at(value) if colon else INDICES[name]
    if why := _explain_refusal(index, alignment):
        raise SutureError(why)
    return [_make_request(index, alignment)]


def _make_request(index: Index, alignment: str) -> Request:
    flat = alignment == "flatten" or (alignment == "paper" and index.name == "cka")
    return Request(FLAT_INDICES[index.name] if flat else index, alignment)


def _explain_refusal(index: Index, alignment: str) -> str:
    """Return the reason why an alignment does not offer an index, or an empty string."""
    name = index.name
    base = name.partition(":")[0]
    if alignment == "paper" and base not in PAPER_INDICES:
        return (f"expected one of {', '.join(PAPER_INDICES)} for the alignment 'paper', got {name!r}; write "
                f"{name}@pool")
    if alignment == "flatten" and base not in FLAT_INDICES:
        return (f"expected one of {', '.join(FLAT_INDICES)} for the alignment 'flatten', got {name!r}; write "
                f"{name}@pool")
    if index.needs is Needs.KERNELS and alignment != "flatten":
        return f"expected the alignment 'flatten' for the index {name!r}; write {name}@flatten"
    return ""


def own(fn: Callable[..., float], name: str | None = None, *, low: float = 0.0, high: float = 1.0,
        larger_is_more_similar: bool = True, about: str = "") -> Index:
    """Make an index from a user's function of one `suture.numbers.spectra.Pair`, or of two matrices.

    Args:
        fn: ``f(pair) -> float``, exact from one pass over the data; or ``f(x, y) -> float`` of numpy arrays
            (n, p) and (n, q) in float64, a kept sample of the same rows. It should return nan where it has no
            value.
        name: key in tables. Default: the function's name.
        low, high: colour limits of maps.
        larger_is_more_similar: direction. Default True; False for distances.
        about: one sentence for the report.

    Raises:
        SutureError: another number of arguments, a name that is used already or is not an identifier, no
            colour limits.
    """
    called = str(name or getattr(fn, "__name__", type(fn).__name__))
    try:
        given = [p for p in inspect.signature(fn).parameters.values()
                 if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    except (TypeError, ValueError):
        given = []
    if len(given) not in (1, 2):
        raise SutureError("expected an index to be a function of a pair of moments, f(pair), or of two "
                          f"matrices, f(x, y), got {called!r} with {len(given)} arguments")
    if not called.isidentifier() or called in INDICES or called in GROUPS or called in ("source", "target"):
        raise SutureError(f"expected a name of letters, digits and _ that no index has, got {called!r}; "
                          "write suture.indices.own(function, name='my_index')")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SutureError(f"expected finite colour limits low < high of index {called!r}, got {low!r} and "
                          f"{high!r}; write low=0.0, high=1.0")
    entry = make_index_measure(called, called.replace("_", " "),
                               about or f"A function of the user's, {called}.", low=low,
                               high=high, larger=larger_is_more_similar, own=True)
    needs, called_with = (Needs.MOMENTS, fn) if len(given) == 1 else (Needs.ROWS, _take_rows(fn))
    return Index(_register_own(entry), _require_number(called, called_with), "", "the user", frozenset(),
                 frozenset(), needs, user=fn)


def _require_number(called: str, fn: Callable[[Any], float]) -> Callable[[Any], float]:
    def checked(data: Any) -> float:
        found = fn(data)
        try:
            return float(found)
        except (TypeError, ValueError, RuntimeError):
            raise SutureError(f"expected index {called!r} to return a number, got {type(found).__name__}; "
                              "return a float, nan where there is no value") from None
    return checked


def _take_rows(fn: Callable[..., float]) -> Callable[[Any], float]:
    return lambda sample: fn(sample.x.values, sample.y.values)


def _register_own(entry: Measure) -> Measure:
    """Register the measure of a user's index; a second function of the same name replaces the first."""
    if entry.name in MEASURES and not MEASURES[entry.name].own:
        raise SutureError(f"expected a name that no measure has, got {entry.name!r}; give another")
    return register_measure(entry)


