"""Inspection of a network's sites in a dry run: shapes, bypasses, and a check that each tail runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, count_examples, report_errors
from suture.networks.calls import (
    MIXED,
    Call,
    CallId,
    dequantise,
    disable_gradients,
    extract_tensors,
    guess_axis,
    record,
    walk,
)
from suture.networks.input_sequences import Calls, InputSequences, choose_stack
from suture.networks.preparation import report_failure, take_first
from suture.networks.sites.batchings import Batchings
from suture.networks.sites.capture_and_replay import ReplayPlan, capture_for_replay
from suture.networks.sites.search import Site, SiteSearch, is_parametrization
from suture.networks.sites.site_choice import SiteSpec
from suture.networks.sites.tail_probe import Leaf, TailProbe
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
        self.volatile: set[CallId] = set()
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
        infos = [self.inspect(s) for s in self._search.find_named(spec)]
        for info in infos:
            if info.bypass and not allow_bypass:
                raise SutureError(
                    f"site {str(info.site)!r} of the {self.name} does not cut the network: "
                    f"{', '.join(info.bypass[:3])} goes around it; choose the end of the block, or pass "
                    "allow_bypass=True")
        return self._sort(infos)

    def _sort(self, infos: list[SiteInfo]) -> list[SiteInfo]:
        return sorted(infos, key=lambda i: self._calls[i.site.id].finished)

    def _discover(self) -> list[SiteInfo]:
        """Find the repeated blocks: the first kind of candidate of which two or more are legal sites."""
        inspect = cache(self._inspect_if_legal)
        for candidates in self._search.find_repeated(lambda c: inspect(c) is not None):
            infos = self._sort([i for i in map(inspect, candidates) if i is not None])
            # Logits are not a site. The end of an encoder without a head is one: it has the blocks' shape.
            infos = [i for k, i in enumerate(infos) if not i.final or (k and i.shape == infos[k - 1].shape)]
            infos = [infos[k] for k in choose_stack([i.shape for i in infos])]
            if len(infos) >= 2:
                return infos
        names = ", ".join(dict.fromkeys(p for p, _ in self._calls))
        raise SutureError(f"found no repeated blocks in the {self.name} that cut it in two; name the sites, "
                          f"from: {names[:300]}")

    def _inspect_if_legal(self, call: Call) -> SiteInfo | None:
        try:
            info = self.inspect(Site(*call.id))
        except SutureError:
            return None
        return None if info.bypass else info

    def inspect(self, site: Site) -> SiteInfo:
        """Find the shape and the bypass of one site in the dry run, and check that its tail runs."""
        call = self._search.find_call(site)
        x = site.pick(call.output)
        if x is None:
            slots = list(call.output) if isinstance(call.output, Mapping) else type(call.output).__name__
            raise SutureError(f"site {str(site)!r} of the {self.name} returns no floating point tensor but "
                              f"{slots}; choose another module or slot")
        axes = dict(zip(map(id, extract_tensors(call.output)), call.axes, strict=False))
        axis = axes.get(id(x), guess_axis(x, self._few))
        if x.ndim and (len(x) != self._few or axis != 0):
            second = x.ndim > 1 and x.shape[1] == self._few
            raise SutureError(f"expected the batch as first axis at site {str(site)!r} of the {self.name}, "
                              f"got shape {tuple(x.shape)} for {self._few} examples; "
                              + ("use batch_first=True" if second else "choose another site"))
        self._batchings.check(x, f"site {str(site)!r}")
        shape = self._find_shape(site, x)
        with report_errors(f"the tail of site {str(site)!r} of the {self.name} fails", "choose another site"):
            bypass, context, has_gradient = self._find_bypass(site, ReplayPlan.of(site, call), shape)
        return SiteInfo(site, shape, bypass, x is self._pick_main(self._root.output), context, has_gradient)

    def _find_shape(self, site: Site, x: Tensor) -> Shape:
        sequence = self.sequences.find_followed(site.id, x, site.pick)
        lengths = (frozenset() if sequence is None and len(self.sequences.of) > 1
                   else self.sequences.find_lengths(self._example, sequence or 0))
        how = (self._image, lengths, self._batchings.find_evidence(site.id, site.pick))
        try:
            shape = (ShapeOverride.parse(site.taken).build_shape(x, *how) if site.taken
                     else recognise_shape(x, *how))
        except SutureError as e:
            raise SutureError(f"site {str(site)!r} of the {self.name}: {e}") from None
        return replace(shape, sequence=sequence or 0) if shape.varies else shape

    def _find_bypass(self, site: Site, plan: ReplayPlan,
                     shape: Shape) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
        """Find the modules whose outputs reach the network's output around a site, and keep the plan.

        Modules that do not depend on the token ids which the site follows are returned apart, as context. The
        last value is True if the output has a gradient with respect to the site.
        """
        done, own = capture_for_replay(self.network, self._example, plan, self.volatile)
        probe = TailProbe(self.network, plan, done, own, self.volatile, self._pick_main,
                          partial(self._check_equal_output, site))
        reached = probe.find_by_gradient()
        has_gradient = reached is not None
        if reached is None:
            reached = probe.find_by_exchange()
        elif self._batchings.cuts_gradients:
            reached = [*reached, *probe.find_without_gradient(reached)]
        used = frozenset(leaf.call for leaf in reached) if has_gradient else None
        self.plans[site] = replace(plan, used=used)
        around = [leaf for leaf in reached if self._has_content(leaf.tensor, leaf.axis)]
        beside = [leaf for leaf in around if self._is_beside(leaf, shape)]
        names = [leaf.call[0] or "inputs" for leaf in around if leaf not in beside]
        context = [leaf.call[0] for leaf in beside if self._changes(
            leaf, self.sequences.run_with_other_inputs(shape.sequence))]
        return tuple(dict.fromkeys(names)), tuple(dict.fromkeys(context)), has_gradient

    def _is_beside(self, leaf: Leaf, shape: Shape) -> bool:
        """Return True for a module's output that does not depend on the token ids which a site follows."""
        if not shape.varies or not self.sequences.of or leaf.call == self._root.id:
            return False
        calls = self.sequences.run_with_other_ids(shape.sequence)
        return calls is not None and not self._changes(leaf, calls)

    def _changes(self, leaf: Leaf, calls: Calls | None) -> bool:
        """Return True where an output is another one in a pass with other inputs, as far as is known."""
        if calls is None or leaf.call not in calls:
            return calls is not None
        mine, other = (extract_tensors(of[leaf.call].output) for of in (self._calls, calls))
        if len(mine) != len(other):
            return True
        return not torch.equal(mine[leaf.place].nan_to_num(), other[leaf.place].nan_to_num())

    def _has_content(self, t: Tensor, axis: int | None) -> bool:
        """Return True where `t` differs between examples, as activations do, unlike position embeddings."""
        if axis is None or axis == MIXED or self._few == 1:
            return axis is not None
        first, *others = t.detach().chunk(self._few, axis)
        return not all(torch.equal(first, o) for o in others)

    def _check_equal_output(self, site: Site, output: Any) -> None:
        mine, own = ([*map(dequantise, extract_tensors(o))] for o in (output, self._root.output))
        if len(mine) != len(own):  # modules that did not run add none, such as attentions
            mine, own = ([t for t in (self._pick_main(o),) if t is not None]
                         for o in (output, self._root.output))
        for a, b in zip(mine, own, strict=True):
            if a.shape != b.shape or not torch.allclose(a.detach(), b, rtol=1e-4, atol=1e-5, equal_nan=True):
                raise SutureError(f"the tail of site {str(site)!r}, run on its own representation, changes "
                                  f"the output of the {self.name}; make its forward deterministic in eval "
                                  "mode")

    def measure_peak(self, site: Site | None = None) -> int:
        """Measure the bytes per example of the largest output of any module, or of those from `site` on."""
        first = -1 if site is None else self._calls[site.id].finished
        sizes = (t.numel() * t.element_size() for c in self._calls.values() if c.finished >= first
                 for t in extract_tensors(c.output))
        return max(1, max(sizes, default=0) // self._few)
