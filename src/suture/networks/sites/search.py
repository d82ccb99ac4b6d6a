"""The search for sites among the calls of a network: by name, by glob, and the repeated blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from suture._base import SutureError, make_unknown_error, run_foreign, show_value
from suture.networks.calls import Call, CallId, extract_tensors
from suture.networks.sites.site import NameParts, Site, escape_path
from suture.networks.sites.site_choice import SiteSpec

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_WRAPPERS = frozenset({"_orig_mod", "module"})
"""Names under which `torch.compile`, DataParallel and others hold a network."""
_PACKED = "_packed_params"
"""Name under which a quantised layer holds its weights."""
_PATH = re.compile(r"(?:\\.|[^\\#:@])*", re.DOTALL)
"""The path at the beginning of a written name."""
_GLOB = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
"""Regular expressions for the signs of a glob: all but ``**`` stay within one part of a dotted path."""


@dataclass(frozen=True)
class SiteSearch:
    """Search among the `calls` of a network in a dry run; `name` is the network's in error messages."""

    network: nn.Module
    calls: Mapping[CallId, Call]
    name: str

    def find_named(self, spec: SiteSpec) -> list[Site]:
        """Find the sites that a user names, without duplicates."""
        if callable(spec):
            with run_foreign("the function given as sites"):
                found = [Site(*c.id) for c in self.calls.values() if spec(c.path, c.module)]
            if not found:
                raise SutureError(f"the function given as sites accepts no module of the {self.name}; "
                                  "it is called with (path, module)")
            return found
        names = [spec] if isinstance(spec, str | Site) else list(spec or ())
        if not names:
            raise SutureError(f"expected at least one site of the {self.name}, got none; leave sites out")
        found = []
        for n in names:
            if not isinstance(n, Site | str):
                raise SutureError(f"expected site names of the {self.name}, got {show_value(n)}; write "
                                  "strings like 'layer1.0'")
            found += ([replace(n, path=self._leave_out_wrappers(n.path))] if isinstance(n, Site)
                      else self._match_name(self._leave_out_in_name(n)))
        return self._merge_duplicates(found)

    def _leave_out_wrappers(self, path: str) -> str:
        """Return a path as it is without the wrappers that were taken off the network."""
        own = {part for known, _ in self.calls for part in known.split(".")}
        return ".".join(p for p in path.split(".") if p not in _WRAPPERS - own) or path

    def _leave_out_in_name(self, name: str) -> str:
        rest = _PATH.sub("", name, count=1)
        return self._leave_out_wrappers(name[:len(name) - len(rest)]) + rest

    def _merge_duplicates(self, sites: Sequence[Site]) -> list[Site]:
        """Merge sites at the same point; a name with an ``@`` replaces a name without."""
        chosen: dict[Site, Site] = {}
        for site in sites:
            other = chosen.get(site.point, site.point)
            if other.taken and site.taken not in ("", other.taken):
                raise SutureError(f"expected one kind of representation for site {str(site)!r} of the "
                                  f"{self.name}, got {other.taken} and {site.taken}")
            chosen[site.point] = site if site.taken else other
        return list(chosen.values())

    def _match_name(self, name: str) -> list[Site]:
        read = self._read_name(name)
        signs = re.split(r"(\\.|\*\*|\*|\?|\[[^\]]*\])", read.path)
        if any(part[:1] in "*?[" for part in signs if part):
            try:
                pattern = re.compile("".join(_convert_sign(part) for part in signs), re.DOTALL)
            except re.error as e:
                raise SutureError(f"cannot read the glob {name!r}: {e}; write sets like [01]") from e
            found = [read.make_site(*c.id) for c in self.calls.values()
                     if pattern.fullmatch(c.path) and read.call in (None, c.index)]
            if not found and any(c.path == read.site.path for c in self.calls.values()):
                return [read.site]
            if not found:
                raise make_unknown_error("site", name, (escape_path(c.path) for c in self.calls.values()),
                                         f"the glob matches no module that the {self.name} calls")
            return found
        site = read.site
        calls = [f"{escape_path(c.path)}#{c.index}" for c in self.calls.values() if c.path == site.path]
        if len(calls) > 1 and read.call is None:
            raise SutureError(f"module {site.path!r} of the {self.name} is called {len(calls)} times; "
                              f"write {', '.join(calls)}")
        return [site]

    def _read_name(self, name: str) -> NameParts:
        """Read a name; the name of a module as PyTorch prints it, without backslashes, is one too."""
        paths = {c.path for c in self.calls.values()}
        read: NameParts | None = None
        try:
            read = NameParts.parse(name)
            if read.site.path in paths:
                return read
        except SutureError:
            if name not in paths and not any(name.startswith(p) and escape_path(p) != p for p in paths):
                raise
        for path in sorted(paths, key=len, reverse=True):
            rest = name[len(path):]
            if escape_path(path) != path and name.startswith(path) and rest[:1] in ("", "#", ":", "@"):
                return NameParts.parse(escape_path(path) + rest)
        return NameParts.parse(name) if read is None else read

    def find_call(self, site: Site) -> Call:
        """Find the call of a site, or raise an error that says what is wrong with its name."""
        if site.id in self.calls:
            return self.calls[site.id]
        modules = dict(self.network.named_modules(remove_duplicate=False))
        if site.path not in modules:
            raise make_unknown_error("site", site.path, (p for p, _ in self.calls),
                                     f"it is no module of the {self.name}")
        if times := sum(p == site.path for p, _ in self.calls):
            raise SutureError(f"module {site.path!r} of the {self.name} is called {times} times, there is no "
                              f"call {site.call}; calls count from 0")
        same = [p for p, _ in self.calls if modules[p] is modules[site.path]]
        raise SutureError(f"module {site.path!r} of the {self.name} is never called on this data; choose "
                          + (repr(same[0]) if same else "a module that the forward calls"))

    def find_repeated(self, cuts: Callable[[Call], bool]) -> Iterator[list[Call]]:
        """Yield candidates, best first: blocks, containers, activations, layers. `cuts` tests one of them."""
        calls = list(self.calls.values())
        leaves = [c for c in calls if not _has_parts(c.module)]
        yield _find_blocks([c for c in calls if type(c.module) not in _CONTAINERS
                            and _has_parts(c.module)], cuts)
        yield _find_outermost_repeated([c for c in calls if type(c.module) in _CONTAINERS])
        yield _find_outermost_repeated([c for c in leaves
                                        if type(c.module).__module__ == nn.modules.activation.__name__])
        yield _find_outermost_repeated([c for c in leaves if _has_any(c.module.parameters())])


def _convert_sign(part: str) -> str:
    """Return the regular expression of a part of a glob."""
    if part.startswith("["):
        return part
    return _GLOB.get(part) or re.escape(part[1:] if part.startswith("\\") else part)


def is_parametrization(path: str) -> bool:
    """Return True for the path of a module that computes a weight (`torch.nn.utils.parametrize`)."""
    return "parametrizations" in path.split(".")


def _has_parts(module: nn.Module) -> bool:
    return any(not is_parametrization(name) and name != _PACKED for name, _ in module.named_children())


def _has_any(things: Iterator[object]) -> bool:
    return next(things, None) is not None


def _find_blocks(calls: list[Call], cuts: Callable[[Call], bool]) -> list[Call]:
    """Find the outermost repeated blocks; a stage is replaced by the blocks in it."""
    while True:
        found = _find_outermost_repeated(calls)
        classes = {type(c.module) for c in found}
        stages = {t for t in classes if _is_stage(t, classes, calls, cuts)}
        if not stages:
            return found
        calls = [c for c in calls if type(c.module) not in stages]


def _is_stage(stage: type, found: set[type], calls: Sequence[Call], cuts: Callable[[Call], bool]) -> bool:
    """Return True if a class is a stage: most of its calls are chains of two or more smaller blocks.

    In a chain each block cuts the network. The convolutions of a residual block are no chain, because its
    skip connection goes around them. The convolutions of a block without a skip connection do not count
    either, because their class also occurs outside, in the stem.
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
        lists = [(a, cs) for a, cs in held.items() if len(cs) >= 2]
        chains = sum(_fills(a, cs) and all(map(cuts, cs)) for a, cs in lists)
        if kind not in outside and lists and 2 * chains >= len(lists):
            return True
    return False


def _fills(stage: Call, blocks: Sequence[Call]) -> bool:
    """Return True where blocks are elements of a list, or where the stage returns the last one's output.

    Self-attention and cross-attention of a decoder's layer are two modules of one class, but no stage.
    """
    if all(b.path.split(".")[-1].isdecimal() for b in blocks):
        return True
    end, last = (next(iter(extract_tensors(c.output)), None) for c in (stage, blocks[-1]))
    return end is last


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
