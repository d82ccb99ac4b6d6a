"""Parser of index names, with a number after ``:`` and an alignment after ``@``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Union

from suture._base import SutureError, expect, make_unknown_error
from suture.indices.definition import STITCH, Index
from suture.indices.entries import GROUPS, INDICES
from suture.indices.own import hash_function, own
from suture.numbers import ALIGNMENTS

Named = Union[str, Index, "Request", Callable[..., float]]
"""A name, an `Index`, a `Request`, or a user's function of one `suture.numbers.Pair` or of two matrices."""


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
        return self.name if self.index.user is None else f"{self.name}#{hash_function(self.index.user)}"


def chosen(names: Iterable[Named] | Named = "default") -> list[Request]:
    """Return the requested indices, each once, in the order given; names of `GROUPS` stand for several.

    Raises:
        SutureError: an unknown name, a number out of range, or an index that its alignment does not offer.
    """
    if isinstance(names, str | Index | Request) or callable(names):
        names = [names]
    expect(isinstance(names, Iterable), "indices by name, entries or functions", repr(names),
           "write () for none")
    found: dict[str, Request] = {}
    for given in names:
        for request in _parse(given):
            if found.setdefault(request.name, request).key != request.key:
                raise SutureError(f"expected every name once, got two functions called {request.name!r}; "
                                  "name one of them by suture.indices.own(function, name='my_index')")
    return list(found.values())


def _parse(given: Any) -> list[Request]:
    if not isinstance(given, str):
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
