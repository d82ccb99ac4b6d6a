"""Inspection of a network's sites in a dry run: shapes, bypasses, and a check that each tail runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from torch import Tensor, nn

from suture._base import SutureError, count_examples, report_errors
from suture.networks.calls import (
    MIXED,
    Call,
    CallId,
    disable_gradients,
    extract_tensors,
    guess_axis,
    record,
    walk,
)
from suture.networks.input_sequences import InputSequences, choose_stack
from suture.networks.preparation import report_failure, take_first
from suture.networks.sites.batchings import Batchings
from suture.networks.sites.bypasses import BypassSearch
from suture.networks.sites.capture_and_replay import ReplayPlan
from suture.networks.sites.search import SiteSearch, is_parametrization
from suture.networks.sites.site import Site
from suture.networks.sites.site_choice import SiteSpec
from suture.representations import (
    Kind,
    Shape,
    ShapeOverride,
    find_image_size,
    recognise_shape,
)


@dataclass(frozen=True)
class SiteInfo:
    """A site with the results of its dry run.

    Attributes:
        shape: shape of one example's representation.
        bypass: modules (or ``"inputs"``) whose outputs reach the logits around the site; empty if none do.
        final: True if the representation is the logits themselves.
        context: modules around the site that see other inputs only, such as the encoder beside a decoder's
            site. Like inputs, they are no bypass.
        has_gradient: True if the network's output has a gradient with respect to the representation.
    """

    site: Site
    shape: Shape
    bypass: tuple[str, ...]
    final: bool
    context: tuple[str, ...] = ()
    has_gradient: bool = field(default=True, repr=False)  # no part of a comparison's key

    @property
    def kind(self) -> Kind:
        """Kind of the representation: map, tokens or vector. ``str(shape)`` gives more."""
        return self.shape.kind


class SiteInspector:
    """Inspector of a frozen network's sites, from a recorded pass over the first 4 examples of a batch.

    `main` picks the tensor of an output that the sites cut off. `plans` are the replays from inspected sites.
    `volatile` are the calls whose outputs are overwritten.
    """

    def __init__(self, network: nn.Module, inputs: Any, name: str,
                 main: Callable[[Any], Tensor | None]) -> None:
        self.network, self.name, self._pick_main = network, name, main
        self.plans: dict[Site, ReplayPlan] = {}
        self._image = find_image_size(inputs)
        self._example = take_first(inputs)
        self._few = count_examples(self._example)
        with disable_gradients(), report_failure(f"the {name} fails on the first {self._few} examples",
                                                 network, inputs, name):
            self._root = record(network, self._example)
            self._batchings = Batchings(network, inputs, self._example, self._root, name)
            self._check_output()
        self.sequences = InputSequences(network, self._example)
        self.sequences.find_output(self._root, main)
        self._calls = {c.id: c for c in walk(self._root) if not is_parametrization(c.path)}
        self._search = SiteSearch(network, self._calls, name)
        self._bypasses = BypassSearch(network, self._example, self._root, self.sequences, main, name)
        self._reasons: dict[CallId, str] = {}

    @property
    def volatile(self) -> set[CallId]:
        return self._bypasses.volatile

    @property
    def rounds_together(self) -> bool:
        """True if the rounding of an example's numbers depends on the others of its batch."""
        return self._batchings.rounds_together

    def _check_output(self) -> None:
        """Check that the network's output has a part for each example, which depends on this one only."""
        end = self._pick_main(self._root.output)
        for axis, t in zip(self._root.axes, extract_tensors(self._root.output), strict=False):
            if axis == MIXED and t is end:
                raise SutureError(f"expected an output for each example, the {self.name} mixes {self._few} "
                                  f"in shape {tuple(t.shape)}; use a part of it, such as one tower")
        self._batchings.check(end, "the output")

    def resolve(self, spec: SiteSpec, allow_bypass: bool) -> list[SiteInfo]:
        """Find and check the sites that `spec` names, in order of execution."""
        if spec is None:
            return self._discover()
        sites = self._search.find_named(spec)
        self._try_chain([s for s in sites if s.id in self._calls])
        infos = [self.inspect(s) for s in sites]
        for info in infos:
            if not allow_bypass:
                self._check_cut(info)
        return self._sort(infos)

    def _try_chain(self, sites: list[Site]) -> None:
        """Look at all sites in one pass, where that is enough."""
        self._bypasses.try_chain(sorted(sites, key=lambda s: self._calls[s.id].finished))

    def _sort(self, infos: list[SiteInfo]) -> list[SiteInfo]:
        return sorted(infos, key=lambda i: self._calls[i.site.id].finished)

    def _discover(self) -> list[SiteInfo]:
        """Find the repeated blocks: the first kind of candidate of which two or more are legal sites."""
        inspect = cache(self._inspect_if_legal)
        for candidates in self._search.find_repeated(lambda c: inspect(c) is not None):
            self._try_chain([Site(*c.id) for c in candidates])
            infos = self._sort([i for i in map(inspect, candidates) if i is not None])
            # Logits are not a site. The end of an encoder without a head is one: it has the blocks' shape.
            infos = [i for k, i in enumerate(infos) if not i.final or (k and i.shape == infos[k - 1].shape)]
            infos = [infos[k] for k in choose_stack([i.shape for i in infos])]
            if len(infos) >= 2:
                return infos
        raise SutureError(f"found no sites in the {self.name} by itself; {self._explain()}")

    def _explain(self) -> str:
        """Return what was in the way: the reason of the last of the outermost candidates."""
        tried = next((cs for cs in self._search.find_repeated(lambda c: c.id not in self._reasons)
                      if any(c.id in self._reasons for c in cs)), [])
        reasons = [self._reasons[c.id] for c in tried if c.id in self._reasons]
        if reasons:
            return reasons[-1]
        names = ", ".join(dict.fromkeys(p for p, _ in self._calls))
        return f"expected two repeated blocks that cut it; name the sites, from: {names[:300]}"

    def _inspect_if_legal(self, call: Call) -> SiteInfo | None:
        # Where a network reads the last state only, the output of a recurrent layer is no site.
        reasons = []
        for slot in (None, 1) if isinstance(call.module, nn.RNNBase) else (None,):
            try:
                info = self.inspect(Site(*call.id, slot))
                self._check_cut(info)
            except SutureError as e:
                reasons.append(str(e))
            else:
                return info
        self._reasons[call.id] = reasons[0]
        return None

    def _check_cut(self, info: SiteInfo) -> None:
        """Check that nothing goes around a site."""
        if info.bypass:
            advice = ("give the network without this path" if info.bypass == ("inputs",)
                      else "choose the end of the block")
            raise SutureError(f"site {str(info.site)!r} of the {self.name} does not cut the network: "
                              f"{', '.join(info.bypass[:3])} goes around it; {advice}, or pass "
                              "allow_bypass=True")

    def inspect(self, site: Site) -> SiteInfo:
        """Find the shape and the bypass of one site in the dry run, and check that its tail runs."""
        call = self._search.find_call(site)
        x = site.pick(call.output)
        if x is None:
            slots = list(call.output) if isinstance(call.output, Mapping) else type(call.output).__name__
            raise SutureError(f"site {str(site)!r} of the {self.name} returns no floating point tensor but "
                              f"{slots}; choose another module or slot")
        plan = ReplayPlan.of(site, call)
        if not self._has_examples(site, call, x):
            raise SutureError(f"expected the batch as first axis at site {str(site)!r} of the {self.name}, "
                              f"got shape {tuple(x.shape)} for {self._few} examples; choose another site")
        self._batchings.check(x, f"site {str(site)!r}")
        shape = self._find_shape(plan, call)
        with report_errors(f"the tail of site {str(site)!r} of the {self.name} fails", "choose another site"):
            found = self._bypasses.find(plan, shape)
        self.plans[site] = found.plan
        final = x is self._pick_main(self._root.output) and site.locate(call.output)[1] is None
        return SiteInfo(site, shape, found.around, final, found.context, found.has_gradient)

    def _has_examples(self, site: Site, call: Call, x: Tensor) -> bool:
        """Return True where the examples are the first axis at a site, or the second of three axes.

        Recurrent networks have time or layers before the examples. One layer of a state has no such axis.
        """
        axes = dict(zip(map(id, extract_tensors(call.output)), call.axes, strict=False))
        axis = axes.get(id(x), guess_axis(x, self._few))
        if not x.ndim:
            return True  # refused for its shape
        if axis not in (0, 1) or x.shape[axis] != self._few:
            return False
        return axis == 1 and x.ndim == 3 if site.locate(call.output)[1] is not None else (
            axis == 0 or x.ndim == 3)

    def _find_shape(self, plan: ReplayPlan, call: Call) -> Shape:
        site, x = plan.site, plan.read(call.output)
        assert x is not None
        sequence = self.sequences.find_followed(site.id, x, plan.read)
        lengths = (frozenset() if sequence is None and len(self.sequences.of) > 1
                   else self.sequences.find_lengths(self._example, sequence or 0))
        seen = self._batchings.find_evidence(site.id, site.pick)
        if plan.axis and seen.channels != x.ndim - 1:
            seen = replace(seen, channels=None)
        how = (self._image, lengths, seen)
        try:
            shape = (ShapeOverride.parse(site.taken).build_shape(x, *how) if site.taken
                     else recognise_shape(x, *how))
        except SutureError as e:
            raise SutureError(f"site {str(site)!r} of the {self.name}: {e}") from None
        return replace(shape, sequence=sequence or 0) if shape.varies else shape

    def measure_peak(self, site: Site | None = None) -> int:
        """Measure the bytes per example of the largest output of any module, or of those from `site` on."""
        first = -1 if site is None else self._calls[site.id].finished
        sizes = (t.numel() * t.element_size() for c in self._calls.values() if c.finished >= first
                 for t in extract_tensors(c.output))
        return max(1, max(sizes, default=0) // self._few)
