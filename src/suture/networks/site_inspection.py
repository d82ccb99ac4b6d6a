"""Inspection of a network's sites in a dry run: shapes, bypasses, and a check that tails run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, convert_tensors, count_examples, summarise_error
from suture.networks.calls import Call, CallId, disable_gradients, find_axes, record, walk
from suture.networks.module_outputs import MIXED, convert_output, extract_main_output, extract_tensors
from suture.networks.naming import Site, SiteFinder, SiteSpec
from suture.networks.replays import CallRecorder, RecordedPass, ReplayPlan
from suture.networks.tails import TailRunner
from suture.representations import (
    Kind,
    Shape,
    ShapeOverride,
    find_image_size,
    find_sequence_lengths,
    recognise_shape,
)


@dataclass(frozen=True)
class SiteInfo:
    """A site with the results of its dry run.

    Attributes:
        site: the site.
        shape: shape of one example's representation.
        bypass: modules (or ``"inputs"``) whose results reach the network's logits around the site; empty for
            a site that cuts the network in two.
        final: True where the representation is the logits themselves.
    """

    site: Site
    shape: Shape
    bypass: tuple[str, ...]
    final: bool

    @property
    def kind(self) -> Kind:
        """Kind of the representation: map, tokens or vector. ``str(shape)`` gives more."""
        return self.shape.kind


class SiteInspector:
    """Inspector of a network's sites, from a recorded pass over the first examples of a batch.

    Args:
        network: any eager module, frozen (`freeze`) as long as the inspector is used.
        inputs: a batch of inputs; the first 4 examples are used.
        name: name of the network in error messages.
        tails: runner of the tails. The inspector notes in it what is overwritten in place and what is used
            after a site.

    Raises:
        SutureError: a network whose output mixes the examples of a batch.
    """

    def __init__(self, network: nn.Module, inputs: Any, name: str, tails: TailRunner) -> None:
        self.network, self.name, self._tails = network, name, tails
        self._image, self._lengths = find_image_size(inputs), find_sequence_lengths(inputs)
        size = count_examples(inputs)
        few = min(size, 4)
        self._example = convert_tensors(inputs, lambda t: t[:few] if t.ndim and len(t) == size else t)
        self._few = few
        with disable_gradients():
            self._root = record(network, self._example)
            self._find_axes()
        self._calls = {c.id: c for c in walk(self._root)}
        self._finder = SiteFinder(network, self._calls, name)

    def _find_axes(self) -> None:
        """Find which results hold examples, and along which axis.

        A second pass over another number of examples shows it.
        """
        root, few = self._root, self._few
        two = 2 if few == 4 else 2 * few
        other = convert_tensors(self._example,
                                lambda t: torch.cat([t, t])[:two] if t.ndim and len(t) == few else t)
        find_axes(root, few, record(self.network, other), two)
        end = extract_main_output(root.output)
        if (end is not None and (MIXED, True)
            in ((a, t is end) for a, t in zip(root.axes, extract_tensors(root.output), strict=False))):
            raise SutureError(f"expected an output for each example, the {self.name} gives one of shape "
                              f"{tuple(end.shape)} for {few} of them that mixes them; take a part of it that "
                              "does not, such as one tower of a contrastive model")

    def resolve(self, spec: SiteSpec, allow_bypass: bool) -> list[SiteInfo]:
        """Find and check the sites that `spec` names, in order of execution; None means the repeated blocks.

        Raises:
            SutureError: unknown or bypassed sites, or a tail that cannot be replayed.
        """
        if spec is None:
            return self._discover()
        infos = [self.inspect(s) for s in self._finder.find_named(spec)]
        for info in infos:
            if info.bypass and not allow_bypass:
                raise SutureError(
                    f"site {str(info.site)!r} of the {self.name} does not cut the network: "
                    f"{', '.join(info.bypass[:3])} goes around it to the output; choose the end of the "
                    "block, or pass allow_bypass=True")
        order = {info.site: self._calls[info.site.path, info.site.call].finished for info in infos}
        unique = {info.site: info for info in infos}
        return sorted(unique.values(), key=lambda i: order[i.site])

    def _discover(self) -> list[SiteInfo]:
        """Find the repeated blocks: the first kind of candidate of which two or more are legal sites."""
        known: dict[CallId, SiteInfo | None] = {}

        def cut(call: Call) -> SiteInfo | None:
            if call.id not in known:
                known[call.id] = self._inspect_if_legal(call)
            return known[call.id]

        for candidates in self._finder.find_repeated(lambda c: cut(c) is not None):
            infos = sorted((i for i in map(cut, candidates) if i is not None),
                           key=lambda i: self._calls[i.site.path, i.site.call].finished)
            # Logits are not a site. The end of an encoder without a head is one: it has the blocks' shape.
            infos = [i for k, i in enumerate(infos) if not i.final or (k and i.shape == infos[k - 1].shape)]
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
        """Check one site in the dry run: its shape, what bypasses it, and that its tail runs.

        Raises:
            SutureError: the site returns no tensor, or its tail does not reproduce the network's output.
        """
        call = self._finder.find_call(site)
        x = site.pick(call.output)
        if x is None:
            slots = list(call.output) if isinstance(call.output, Mapping) else type(call.output).__name__
            raise SutureError(f"site {str(site)!r} of the {self.name} returns no floating point tensor but "
                              f"{slots}; choose another module or slot")
        if x.ndim and len(x) != self._few:
            second = x.ndim > 1 and x.shape[1] == self._few
            instead = "make the network with batch_first=True, or choose another site" if second else (
                "choose another site")
            raise SutureError(f"expected the batch as first axis at site {str(site)!r} of the {self.name}, "
                              f"got shape {tuple(x.shape)} for {self._few} examples; {instead}")
        shape = self._find_shape(site, call.module, x)
        try:
            bypass = self._find_bypass(site, ReplayPlan.of(call))
        except SutureError:
            raise
        except Exception as e:  # a user's forward pass may raise any error
            raise SutureError(f"the tail of site {str(site)!r} of the {self.name} fails: "
                              f"{summarise_error(e)}; choose another site") from e
        final = x is extract_main_output(self._root.output)
        return SiteInfo(site, shape, bypass, final)

    def _find_shape(self, site: Site, module: nn.Module, x: Tensor) -> Shape:
        try:
            if site.taken:
                return ShapeOverride.parse(site.taken).build_shape(x, self._image, self._lengths)
            return recognise_shape(x, self._image, self._lengths, _find_inner_width(module))
        except SutureError as e:
            raise SutureError(f"site {str(site)!r} of the {self.name}: {e}") from None

    @torch.enable_grad()
    def _find_bypass(self, site: Site, plan: ReplayPlan) -> tuple[str, ...]:
        """Find the modules whose results reach the output around a site.

        The tail runs with every remembered result as a leaf of autograd. A leaf with a gradient reaches the
        output.
        """
        done, own = self._run_to_replay(site, plan)
        leaves: list[tuple[CallId, Tensor, int | None]] = []

        def leaf(call: CallId) -> Callable[[Tensor], Tensor]:
            axes = iter(plan.axes.get(call, ()))

            def make(t: Tensor) -> Tensor:
                axis = next(axes, 0 if t.ndim and len(t) == done.size else None)
                if not t.is_floating_point():
                    return t
                made = t.detach().clone().requires_grad_(True)
                leaves.append((call, made, axis))
                return made.clone()  # a clone, because a leaf must not be overwritten in place

            return make

        start = own.detach().clone().requires_grad_(True)
        inside = {i: convert_output(r, leaf(i)) for i, r in done.results.items() if i != plan.site}
        inside[plan.site] = done.results[plan.site]
        around = RecordedPass(convert_tensors(done.inputs, leaf(("", 0))), None, inside, done.size)
        output = self._tails.run(site, plan, start.clone(), around)
        self._verify(site, output)
        end = extract_main_output(output)
        if end is None or not end.requires_grad:
            raise SutureError(f"the output of the {self.name} has no gradient with respect to site "
                              f"{str(site)!r}; choose a site that the output depends on, and a forward "
                              "without torch.no_grad")
        grads = torch.autograd.grad(end.sum(), [start, *(t for _, t, _ in leaves)], allow_unused=True)
        if grads[0] is None:
            raise SutureError(f"the output of the {self.name} does not depend on site "
                              f"{str(site)!r}; choose another")
        reached = [one for one, g in zip(leaves, grads[1:], strict=True) if g is not None]
        self._tails.used[site] = {call for call, _, _ in reached}
        return tuple(dict.fromkeys(call[0] or "inputs" for call, t, axis in reached
                                   if self._has_content(t, axis)))

    def _run_to_replay(self, site: Site, plan: ReplayPlan) -> tuple[RecordedPass, Tensor]:
        """Run what the tail of a site needs, and note what the tail overwrites.

        Return the pass and the site's own representation.
        """
        with disable_gradients():
            done = CallRecorder(self.network, plan.remembered,
                                self._tails.volatile).run(self._example, self._few)
            own = site.pick(done.results[plan.site])
            assert own is not None
            for mutated in self._find_mutated(site, plan, own, done):
                self._tails.volatile.add(mutated)
        return done, own

    def _find_mutated(self, site: Site, plan: ReplayPlan, own: Tensor, done: RecordedPass) -> list[CallId]:
        x = own.clone()
        before = {i: [(t, t._version) for t in extract_tensors(r)] for i, r in done.results.items()}
        version = x._version
        self._tails.run(site, plan, x, done)
        changed = [i for i, pairs in before.items() if any(t._version != v for t, v in pairs)]
        return changed + ([plan.site] if x._version != version else [])

    def _has_content(self, t: Tensor, axis: int | None) -> bool:
        """Return True where `t` differs between examples.

        An activation does, a position embedding does not.
        """
        if axis is None or axis == MIXED or self._few == 1:
            return axis is not None
        first, *others = t.detach().chunk(self._few, axis)
        return not all(torch.equal(first, o) for o in others)

    def _verify(self, site: Site, output: Any) -> None:
        mine, own = extract_tensors(output), extract_tensors(self._root.output)
        if len(mine) != len(own):  # such as attentions, only of modules that ran
            mine, own = ([t for t in (extract_main_output(o),) if t is not None]
                         for o in (output, self._root.output))
        for a, b in zip(mine, own, strict=True):
            if a.shape != b.shape or not torch.allclose(a.detach(), b, rtol=1e-4, atol=1e-5, equal_nan=True):
                raise SutureError(f"the tail of site {str(site)!r} run from the {self.name}'s own "
                                  "representation does not give its output; suture needs a forward that is "
                                  "deterministic in eval mode")

    def find_plan(self, site: Site) -> ReplayPlan:
        """Find the plan of a site's replay."""
        return ReplayPlan.of(self._finder.find_call(site))

    def measure_peak(self) -> int:
        """Measure the bytes per example of the largest result of any module."""
        return self._measure_peak_after(-1)

    def measure_peak_from(self, site: Site) -> int:
        """Measure the bytes per example of the largest result that finishes with a site or after it."""
        return self._measure_peak_after(self._finder.find_call(site).finished)

    def _measure_peak_after(self, finished: int) -> int:
        sizes = (t.numel() * t.element_size() for c in self._calls.values() if c.finished >= finished
                 for t in extract_tensors(c.output))
        return max(1, max(sizes, default=0) // self._few)


def _find_inner_width(module: nn.Module) -> int | None:
    """Find the width of the last axis in a module, or None.

    The last of its modules with weights gives it, if that is a layer norm or a linear layer.
    """
    last = [m for m in module.modules() if any(True for _ in m.parameters(recurse=False))][-1:]
    if last and isinstance(last[0], nn.LayerNorm):
        return last[0].normalized_shape[-1]
    return last[0].out_features if last and isinstance(last[0], nn.Linear) else None
