"""Names of sites, and the calls of a network that they mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from suture._base import SutureError, make_unknown_error
from suture.networks.calls import Call, CallId
from suture.networks.module_outputs import extract_tensors
from suture.representations import ShapeOverride

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
SiteSpec = str | Iterable["str | Site"] | Callable[[str, nn.Module], bool] | None
"""Choice of sites: None (the repeated blocks), a name or glob, several, or a function of (path, module)."""


@dataclass(frozen=True)
class Site:
    """A named point in a network.

    It is written ``path``, or ``path#call`` where a module is called more than once (counted from 0), or
    ``path:slot`` where a module returns several things (a key, or a position). An ``@`` after that says how
    to read the representation, if it is not what it looks like: ``blocks.3@tokens:1`` (see `ShapeOverride`).
    Tables name a site without it.

    Attributes:
        path: dotted module path.
        call: number of the module's call in one forward pass.
        slot: key or position of the tensor in what the module returns; None for the first tensor in it.
        taken: how to read the representation, in the form of `ShapeOverride.parse`; "" for what it looks
            like.

    Raises:
        SutureError: an unknown way to read it.
    """

    path: str
    call: int = 0
    slot: str | int | None = None
    taken: str = ""

    def __post_init__(self) -> None:
        if self.taken:
            ShapeOverride.parse(self.taken)

    @classmethod
    def parse(cls, name: str) -> Site:
        """Parse the name of a site."""
        point, taken = _split_name(name)
        m = re.fullmatch(r"([^#:]+)(?:#(\d+))?(?::(.+))?", point)
        if m is None:
            raise SutureError("expected a site like 'layer1.0', 'relu#2', 'encoder:last_hidden_state' or "
                              f"'blocks.3@tokens:1', got {name!r}")
        slot = m[3]
        return cls(m[1], int(m[2] or 0), int(slot) if slot and slot.isdigit() else slot, taken)

    def __str__(self) -> str:
        return (self.path + (f"#{self.call}" if self.call else "")
                + ("" if self.slot is None else f":{self.slot}"))

    @property
    def written(self) -> str:
        """Name that `parse` reads as this site, with the text after the ``@``."""
        return f"{self}@{self.taken}" if self.taken else str(self)

    @property
    def point(self) -> Site:
        """The same site without the text after the ``@``."""
        return replace(self, taken="")

    def pick(self, output: Any) -> Tensor | None:
        """Return the representation in what the module returned, or None."""
        if self.slot is not None:
            try:
                output = output[self.slot]
            except (KeyError, IndexError, TypeError):
                return None
        found = [t for t in extract_tensors(output) if t.is_floating_point()]
        return found[0] if found else None


@dataclass(frozen=True)
class SiteFinder:
    """Finder of a network's calls in a dry run, by what a user writes.

    Attributes:
        network: the network.
        calls: calls by path and number.
        name: name of the network in error messages.
    """

    network: nn.Module
    calls: Mapping[CallId, Call]
    name: str

    def find_named(self, spec: SiteSpec) -> list[Site]:
        if callable(spec):
            found = [Site(*c.id) for c in self.calls.values() if spec(c.path, c.module)]
            if not found:
                raise SutureError(f"the function given as sites accepts no module of the {self.name}; "
                                  "it is called with (path, module)")
            return found
        names = [spec] if isinstance(spec, str) else list(spec or ())
        if not names:
            raise SutureError(f"expected at least one site of the {self.name}, got none; leave sites out")
        found = []
        for n in names:
            if not isinstance(n, Site | str):
                raise SutureError(f"expected site names of the {self.name}, got {n!r}; write "
                                  "strings like 'layer1.0'")
            found += [n] if isinstance(n, Site) else self._match_name(n)
        return self._merge_duplicates(found)

    def _merge_duplicates(self, sites: Sequence[Site]) -> list[Site]:
        """Keep one site for each point; a name with an ``@`` comes before a name without."""
        chosen: dict[Site, Site] = {}
        for site in sites:
            other = chosen.get(site.point, site.point)
            if other.taken and site.taken not in ("", other.taken):
                raise SutureError(f"expected site {str(site)!r} of the {self.name} once, got it taken as "
                                  f"{other.taken} and as {site.taken}; write one of them")
            chosen[site.point] = site if site.taken else other
        return list(chosen.values())

    def _match_name(self, name: str) -> list[Site]:
        point, taken = _split_name(name)
        if any(c in point for c in "*?["):
            pattern = re.compile(_translate_glob(point))
            found = [Site(*c.id, taken=taken) for c in self.calls.values() if pattern.fullmatch(c.path)]
            if not found:
                raise make_unknown_error("site", name, (c.path for c in self.calls.values()),
                              f"the glob matches no module that the {self.name} calls")
            return found
        site = Site.parse(name)
        calls = [c for c in self.calls.values() if c.path == site.path]
        if len(calls) > 1 and "#" not in name:
            options = ", ".join(f"{site.path}#{c.index}" for c in calls)
            raise SutureError(f"module {site.path!r} of the {self.name} is called {len(calls)} times; "
                              f"write {options}")
        return [site]

    def find_call(self, site: Site) -> Call:
        call = self.calls.get((site.path, site.call))
        if call is not None:
            return call
        names = dict(self.network.named_modules())
        if site.path not in names:
            raise make_unknown_error("site", site.path, (p for p, _ in self.calls),
                                     f"it is no module of the {self.name}")
        calls = sum(p == site.path for p, _ in self.calls)
        if calls:
            raise SutureError(f"module {site.path!r} of the {self.name} is called {calls} times, there is no "
                              f"call {site.call}; calls count from 0")
        alias = next((p for p, _ in self.calls if names[p] is names[site.path]), None)
        hint = f"; it is called as {alias!r}" if alias else "; choose a module that the forward calls"
        raise SutureError(f"module {site.path!r} of the {self.name} is never called on this data{hint}")

    def find_repeated(self, cuts: Callable[[Call], bool]) -> Iterator[list[Call]]:
        """Yield lists of candidates for sites, best first.

        The order is: blocks, plain containers, activations, layers with parameters.

        Args:
            cuts: function that returns True where the network can be cut in two after a call.
        """
        calls = list(self.calls.values())
        leaves = [c for c in calls if not any(True for _ in c.module.children())]
        yield _find_blocks([c for c in calls if type(c.module) not in _CONTAINERS
                       and any(True for _ in c.module.children())], cuts)
        yield _find_outermost_repeated([c for c in calls if type(c.module) in _CONTAINERS])
        yield _find_outermost_repeated([c for c in leaves
                                   if type(c.module).__module__ == nn.modules.activation.__name__])
        yield _find_outermost_repeated([c for c in leaves if any(True for _ in c.module.parameters())])


def _find_blocks(calls: list[Call], cuts: Callable[[Call], bool]) -> list[Call]:
    """Find the outermost repeated blocks.

    A block that is only a stage of smaller blocks is replaced by these.
    """
    while True:
        found = _find_outermost_repeated(calls)
        classes = {type(c.module) for c in found}
        stages = {t for t in classes if _is_stage(t, classes, calls, cuts)}
        if not stages:
            return found
        calls = [c for c in calls if type(c.module) not in stages]


def _is_stage(stage: type, found: set[type], calls: Sequence[Call], cuts: Callable[[Call], bool]) -> bool:
    """Return True where a class is a stage: most of its calls are chains of two or more smaller blocks.

    Only calls that hold two or more of some smaller block are looked at. In a chain each block cuts the
    network. The convolutions of a residual block are no chain, because its skip connection goes around them.
    Nor are the convolutions of a block without a skip connection: their class also occurs outside, in the
    stem.
    """
    inside: dict[type, dict[Call, list[Call]]] = {}
    outside: set[type] = set()
    for c in calls:
        kind, above = type(c.module), c.list_ancestors()
        if not any(type(a.module) in found for a in above):
            outside.add(kind)
        for a in above:
            if type(a.module) is stage and kind is not stage:
                inside.setdefault(kind, {}).setdefault(a, []).append(c)
    for kind, held in inside.items():
        lists = [cs for cs in held.values() if len(cs) >= 2]
        if kind not in outside and lists and 2 * sum(all(map(cuts, cs)) for cs in lists) >= len(lists):
            return True
    return False


def _find_outermost_repeated(calls: Sequence[Call]) -> list[Call]:
    """Find the outermost repeated calls: several of one class, or of elements of one list of modules."""
    groups: dict[object, list[Call]] = {}
    for c in calls:
        groups.setdefault(type(c.module), []).append(c)
        *above, last = c.path.split(".")
        if last.isdecimal():
            groups.setdefault(tuple("*" if p.isdecimal() else p for p in above), []).append(c)
    groups = {k: cs for k, cs in groups.items() if len(cs) >= 2}
    classes = {k for k in groups if isinstance(k, type)}

    def inner(kind: object) -> bool:
        return any(type(a.module) in classes and type(a.module) is not kind
                   for c in groups[kind] for a in c.list_ancestors())

    chosen = {c: None for k, cs in groups.items() if not inner(k) for c in cs}
    return [c for c in chosen if not any(a in chosen for a in c.list_ancestors())]


def _split_name(name: str) -> tuple[str, str]:
    """Split the name of a site at its ``@``."""
    point, at, taken = name.partition("@")
    if at and not taken:
        raise SutureError(f"expected behind the @ how the site is taken, got {name!r}; write "
                          f"{point + '@tokens:1'!r}, or leave out the @")
    return point, taken


def _translate_glob(pattern: str) -> str:
    """Translate a glob to a regular expression.

    ``*`` and ``?`` stay within one part of a dotted path, ``**`` crosses dots.
    """
    out = ""
    for part in re.split(r"(\*\*|\*|\?|\[[^\]]*\])", pattern):
        out += {"**": ".*", "*": "[^.]*", "?": "[^.]"}.get(part,
                                                           part if part.startswith("[") else re.escape(part))
    return out
