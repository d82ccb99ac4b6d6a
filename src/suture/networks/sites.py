"""Sites: the named points of a network whose outputs are representations; fronts and tails of any eager
module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, convert_tensors, count_examples, list_tensors, summarise_error
from suture.networks.calls import (
    MIXED,
    Call,
    CallId,
    CallRecorder,
    RecordedPass,
    ReplayPlan,
    convert_output,
    disable_gradients,
    extract_main_output,
    extract_tensors,
    find_axes,
    freeze,
    record,
    repeat_examples,
    replay,
    walk,
)
from suture.networks.naming import Site, SiteFinder, SiteSpec
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
    """A site and what is known of it after a dry run.

    Attributes:
        site: the site.
        shape: of one example's representation.
        bypass: modules (or ``"inputs"``) whose results reach the network's logits around the site; empty for
            a site that cuts the network in two.
        final: the representation is the logits themselves.
    """

    site: Site
    shape: Shape
    bypass: tuple[str, ...]
    final: bool

    @property
    def kind(self) -> Kind:
        """Whether it is a map, tokens or a vector; ``str(shape)`` says more."""
        return self.shape.kind


class SitedNetwork:
    """A network prepared for capture and replay at chosen sites.

    A dry run on a few examples finds the sites, checks that the tail of each, run from the network's own
    representation, gives the network's output, and notes what is overwritten in place and what bypasses a
    site.

    Args:
        network: any eager module. It is not changed; it is in eval mode only while it runs here.
        inputs: a batch of inputs; the first 4 examples are used.
        sites: which sites (`SiteSpec`). Default: the repeated blocks.
        allow_bypass: accept sites that another path bypasses. The stitched network then still sees the
            target's own activations on that path; default False: refuse.
        name: how error messages call the network.
        autocast: run forwards in this type (bfloat16, float16); representations come out in float32 all the
            same.
            None: as the weights are.

    Attributes:
        network, name, sites, infos, shapes: what it was made for and what the dry run found.
        peak: bytes that one example takes in the largest result of any module.
        peaks: for each site the same for the modules that finish with it or after it.

    Raises:
        SutureError: unknown site, module never called, no tensor, bypassed site, a forward that cannot be
            replayed.
    """

    def __init__(self, network: nn.Module, inputs: Any, sites: SiteSpec = None, *, allow_bypass: bool = False,
                 name: str = "network", autocast: torch.dtype | None = None) -> None:
        self.network, self.name, self._autocast = network, name, autocast
        self._image, self._lengths = find_image_size(inputs), find_sequence_lengths(inputs)
        size = count_examples(inputs)
        few = min(size, 4)
        self._example = convert_tensors(inputs, lambda t: t[:few] if t.ndim and len(t) == size else t)
        self._few = few
        self._volatile: set[CallId] = set()
        with freeze(network):
            with disable_gradients():
                self._root = record(network, self._example)
                self._find_axes()
            self._calls = {c.id: c for c in walk(self._root)}
            self._finder = SiteFinder(network, self._calls, name)
            self._used: dict[Site, set[CallId]] = {}
            self.infos: tuple[SiteInfo, ...] = tuple(self._resolve(sites, allow_bypass))
        self.sites = tuple(i.site for i in self.infos)
        self.shapes = tuple(i.shape for i in self.infos)
        self._replay_plans = [ReplayPlan.of(self._finder.find_call(s)) for s in self.sites]
        self.peak = self._measure_peak_after(-1)
        self.peaks = tuple(self._measure_peak_after(self._finder.find_call(s).finished) for s in self.sites)
        ends: list[CallId] = [(s.path, s.call) for s in self.sites]
        self._ends = CallRecorder(network, ends, self._volatile)
        self._all = CallRecorder(network, set().union(*(s.remembered for s in self._replay_plans)),
                                 self._volatile)
        del self._root, self._calls, self._finder, self._example

    def front(self, inputs: Any) -> list[Tensor]:
        """The representation at every site, in one pass that stops after the last one needed."""
        with self._cast_forward(inputs):
            done = self._ends.run(inputs, count_examples(inputs), stop=True)
        return self.pick_representations(done)

    def count_at_once(self, index: int, micro_batch: int, size: int) -> int:
        """How many batches of `size` examples may pass the tail of a site concatenated.

        As many as take no more room there than `micro_batch` examples take in the whole network.
        """
        return max(1, micro_batch * self.peak // (self.peaks[index] * size))

    def run_full(self, inputs: Any) -> RecordedPass:
        """One full pass that remembers what the tails need."""
        with self._cast_forward(inputs):
            return self._all.run(inputs, count_examples(inputs))

    def run_to_sites(self, inputs: Any) -> RecordedPass:
        """A pass that stops as soon as it has what the tails need, for those that need no output of the
        network."""
        with self._cast_forward(inputs):
            return self._all.run(inputs, count_examples(inputs), stop=True)

    def _cast_forward(self, inputs: Any) -> AbstractContextManager[object]:
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(next(list_tensors(inputs)).device.type, self._autocast)

    def pick_representations(self, done: RecordedPass) -> list[Tensor]:
        """The representation at every site in a pass.

        Raises:
            SutureError: a representation has another shape than in the dry run, but for the length of
                sequences, which is that of the inputs.
        """
        found = []
        lengths = find_sequence_lengths(done.inputs) if any(s.varies for s in self.shapes) else frozenset()
        for info in self.infos:
            x = info.site.pick(done.results[info.site.path, info.site.call])
            if x is None or not info.shape.fits(x):
                got = "no tensor" if x is None else info.shape.describe_tensor(x)
                raise SutureError(f"expected {info.shape} at site {str(info.site)!r} of the {self.name}, got "
                                  f"{got}; suture needs batches of one input size")
            if info.shape.varies and x.shape[1] not in lengths:
                wanted = " or ".join(map(str, sorted(lengths))) or "none"
                raise SutureError(f"expected as many tokens at site {str(info.site)!r} of the {self.name} as "
                                  f"its inputs have, {wanted}, got {x.shape[1]}; leave this site out")
            found.append(x if self._autocast is None else x.float())
        return found

    def tail(self, index: int, x: Tensor, done: RecordedPass) -> Any:
        """The network's output with site `index` giving `x`, for a full pass `done` over the same inputs.

        Args:
            index: position in `sites`.
            x: (k N, ...) representations for k concatenated copies of the N examples of `done`. Not
                overwritten.
            done: from `full`.
        """
        site = self.sites[index]
        if (site.path, site.call) in self._volatile:
            x = x.clone()
        with self._cast_forward(done.inputs):
            return self._replay(site, self._replay_plans[index], x, done)

    def _replay(self, site: Site, plan: ReplayPlan, x: Tensor, done: RecordedPass) -> Any:
        copies, rest = divmod(len(x), done.size)
        if rest:
            raise SutureError(f"expected a multiple of {done.size} representations for site {str(site)!r}, "
                              f"got {len(x)}; concatenate whole batches")
        own = site.pick(done.results[plan.site])
        if own is not None and x.ndim == 4:
            # A forward that calls `.view` on a map relies on the layout that its own modules give.
            x = _match_layout(x, own)
        whole = repeat_examples(done.results[plan.site], copies, done.size, plan.axes[plan.site],
                       instead=None if own is None else (own, x))
        return replay(self.network, plan, done, whole, volatile=self._volatile, copies=copies,
                      used=self._used.get(site))

    # -- the dry run -----------------------------------------------------------------------------------------

    def _resolve(self, spec: SiteSpec, allow_bypass: bool) -> list[SiteInfo]:
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

    def _find_axes(self) -> None:
        """A second dry run on another number of examples tells which results hold examples, and along which
        axis."""
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

    def _measure_peak_after(self, finished: int) -> int:
        sizes = (t.numel() * t.element_size() for c in self._calls.values() if c.finished >= finished
                 for t in extract_tensors(c.output))
        return max(1, max(sizes, default=0) // self._few)

    def inspect(self, site: Site) -> SiteInfo:
        """Check one site in the dry run: its shape, what bypasses it, whether its tail can be run.

        Raises:
            SutureError: it returns no tensor, or the tail does not reproduce the network's output.
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
        except Exception as e:  # the forward is anyone's code
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
        """Run the tail with every remembered result as a leaf of autograd: which of them reach the output?"""
        with disable_gradients():
            done = CallRecorder(self.network, plan.remembered, self._volatile).run(self._example, self._few)
            own = site.pick(done.results[plan.site])
            assert own is not None
            for mutated in self._find_mutated(site, plan, own, done):
                self._volatile.add(mutated)
        leaves: list[tuple[CallId, Tensor, int | None]] = []

        def leaf(call: CallId) -> Callable[[Tensor], Tensor]:
            axes = iter(plan.axes.get(call, ()))

            def make(t: Tensor) -> Tensor:
                axis = next(axes, 0 if t.ndim and len(t) == done.size else None)
                if not t.is_floating_point():
                    return t
                made = t.detach().clone().requires_grad_(True)
                leaves.append((call, made, axis))
                return made.clone()  # not a leaf, so that it may be overwritten in place

            return make

        start = own.detach().clone().requires_grad_(True)
        inside = {i: convert_output(r, leaf(i)) for i, r in done.results.items() if i != plan.site}
        inside[plan.site] = done.results[plan.site]
        around = RecordedPass(convert_tensors(done.inputs, leaf(("", 0))), None, inside, done.size)
        output = self._replay(site, plan, start.clone(), around)
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
        self._used[site] = {call for call, _, _ in reached}
        return tuple(dict.fromkeys(call[0] or "inputs" for call, t, axis in reached
                                   if self._has_content(t, axis)))

    def _find_mutated(self, site: Site, plan: ReplayPlan, own: Tensor, done: RecordedPass) -> list[CallId]:
        x = own.clone()
        before = {i: [(t, t._version) for t in extract_tensors(r)] for i, r in done.results.items()}
        version = x._version
        self._replay(site, plan, x, done)
        changed = [i for i, pairs in before.items() if any(t._version != v for t, v in pairs)]
        return changed + ([plan.site] if x._version != version else [])

    def _has_content(self, t: Tensor, axis: int | None) -> bool:
        """Whether it differs between examples: a position embedding does not, an activation does."""
        if axis is None or axis == MIXED or self._few == 1:
            return axis is not None
        first, *others = t.detach().chunk(self._few, axis)
        return not all(torch.equal(first, o) for o in others)

    def _verify(self, site: Site, output: Any) -> None:
        mine, own = extract_tensors(output), extract_tensors(self._root.output)
        if len(mine) != len(own):  # the attentions of those modules that ran, for one
            mine, own = ([t for t in (extract_main_output(o),) if t is not None]
                         for o in (output, self._root.output))
        for a, b in zip(mine, own, strict=True):
            if a.shape != b.shape or not torch.allclose(a.detach(), b, rtol=1e-4, atol=1e-5, equal_nan=True):
                raise SutureError(f"the tail of site {str(site)!r} run from the {self.name}'s own "
                                  "representation does not give its output; suture needs a forward that is "
                                  "deterministic in eval mode")

    def _discover(self) -> list[SiteInfo]:
        """The repeated blocks: the first kind of candidate of which two or more are legal sites."""
        known: dict[CallId, SiteInfo | None] = {}

        def cut(call: Call) -> SiteInfo | None:
            if call.id not in known:
                known[call.id] = self._inspect_if_legal(call)
            return known[call.id]

        for candidates in self._finder.find_repeated(lambda c: cut(c) is not None):
            infos = sorted((i for i in map(cut, candidates) if i is not None),
                           key=lambda i: self._calls[i.site.path, i.site.call].finished)
            # The end of an encoder without a head is a representation like those before it, logits are none.
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


def _match_layout(x: Tensor, like: Tensor) -> Tensor:
    """`x` in memory as `like` is, axis by axis, where that is without gaps."""
    if like.is_contiguous():
        return x.contiguous()
    order = sorted(range(like.ndim), key=like.stride, reverse=True)
    if not like.permute(order).is_contiguous():
        return x.contiguous()
    return x.permute(order).contiguous().permute([order.index(d) for d in range(like.ndim)])


def _find_inner_width(module: nn.Module) -> int | None:
    """Width of the last axis in a module, by the last of its modules with weights: a layer norm or linear
    layer."""
    last = [m for m in module.modules() if any(True for _ in m.parameters(recurse=False))][-1:]
    if last and isinstance(last[0], nn.LayerNorm):
        return last[0].normalized_shape[-1]
    return last[0].out_features if last and isinstance(last[0], nn.Linear) else None
