"""The pairs of networks that a study compares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations_with_replacement, pairwise, product
from typing import Any

from suture._base import expect, make_unknown_error, run_foreign, show_value

PairName = tuple[str, str]
PAIRS = {"all": "every pair once, each network with itself too", "directed": "every pair in both directions",
         "self": "each network with itself", "consecutive": "each network into the next",
         "with:NAME": "the network NAME into each"}
"""Sets of pairs by name."""


def list_pairs(names: Sequence[str], pairs: str | Iterable[Any] | Callable[[str, str], bool]
               ) -> tuple[PairName, ...]:
    """Return the pairs (source, target) of a study, in the order in which they run.

    Args:
        names: of the networks.
        pairs: a key of `PAIRS`, a list of pairs of names, or a function of two names that chooses among all
            pairs in both directions.

    Raises:
        SutureError: an unknown word or network, or no pair.
    """
    found = tuple(dict.fromkeys(_list(names, pairs)))
    expect(bool(found), "at least one pair of networks", "none")
    return found


def _list(names: Sequence[str], pairs: Any) -> Iterable[PairName]:
    if callable(pairs):
        with run_foreign("the function given as pairs"):
            return [(a, b) for a, b in product(names, names) if pairs(a, b)]
    if not isinstance(pairs, str):
        expect(isinstance(pairs, Iterable), "a word, a list or a function as pairs", show_value(pairs),
               "write pairs='all'")
        return [_read_pair(names, pair) for pair in pairs]
    word, sign, name = pairs.partition(":")
    if word == "with" and sign:
        _check_name(names, name)
        return [(name, other) for other in names]
    known: dict[str, Callable[[], Iterable[PairName]]] = {
        "all": lambda: combinations_with_replacement(names, 2), "directed": lambda: product(names, names),
        "self": lambda: ((name, name) for name in names), "consecutive": lambda: pairwise(names)}
    if pairs not in known:
        raise make_unknown_error("set of pairs", pairs, [*known, "with:NAME"])
    return known[pairs]()


def _read_pair(names: Sequence[str], pair: Any) -> PairName:
    fit = isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(name, str) for name in pair)
    expect(fit, "pairs (source, target) of names", show_value(pair))
    for name in pair:
        _check_name(names, name)
    return pair[0], pair[1]


def _check_name(names: Sequence[str], name: str) -> None:
    if name not in names:
        raise make_unknown_error("network in pairs", name, names)
