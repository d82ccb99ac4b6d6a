"""Chains of sites: one pass with gradients that shows that each site of several cuts a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import convert_tensors, count_examples
from suture.networks.arguments import apply
from suture.networks.calls import (
    MIXED,
    Call,
    CallId,
    convert_output,
    extract_tensors,
    intercept_calls,
)
from suture.networks.preparation import take_first
from suture.networks.sites.capture_and_replay import PLAIN_CHECKPOINTS
from suture.networks.sites.gradient_cuts import GradientCuts
from suture.networks.sites.site import Site
from suture.networks.wrappers.eager_passes import count_changes


@dataclass
class ChainProbe:
    """A pass of one example in which every site hands on a new leaf of autograd.

    The sites cut the network where each representation, and in the end the output, depends on the leaf just
    before it alone. A network that this does not show may still be cut: then the tail of each site is probed.
    Leaves beside the sites are the inputs, and outputs of modules that differ between examples.

    Args:
        example: inputs of the recorded pass with the calls `calls`.
        pick: function that picks the tensor of an output that the sites cut off.

    Attributes:
        changed: sites whose representation the network overwrites.
        cuts_gradients: True if the network has functions that numbers go through without their gradient.
    """

    network: nn.Module
    example: Any
    calls: Mapping[CallId, Call]
    pick: Callable[[Any], Tensor | None]
    changed: list[Site] = field(default_factory=list)
    cuts_gradients: bool = False

    def find_clean(self, sites: Sequence[Site]) -> bool:
        """Return True where the sites, in order of execution, each cut the network alone."""
        if not self._is_plain(sites):
            return False
        before = self._list_state()
        try:
            is_clean = self._run(sites)
        except Exception:  # what is wrong shows in the probe of each tail
            return False
        after = self._list_state()
        return is_clean and len(before) == len(after) and all(map(_is_same, before, after))

    def _is_plain(self, sites: Sequence[Site]) -> bool:
        """Return True for sites one after the other, with the examples first, in modules called once."""
        calls = [self.calls[s.id] for s in sites]
        paths = [path for path, _ in self.calls]
        for call, site in zip(calls, sites, strict=True):
            x, entry = site.locate(call.output)
            axes = dict(zip(map(id, extract_tensors(call.output)), call.axes, strict=False))
            if x is None or entry is not None or x.is_quantized or axes.get(id(x)) != 0:
                return False
            if paths.count(call.path) > 1 or any(c in calls for c in call.list_ancestors()):
                return False
        has_hooks = any(m._forward_hooks or m._forward_pre_hooks for m in self.network.modules())
        return bool(sites) and not has_hooks

    def _list_state(self) -> list[Any]:
        """Return what a pass may leave in the modules, by which a tail run alone could differ."""
        held = [v for m in self.network.modules() for item in vars(m).items() for v in item]
        held += [v for of in held if isinstance(of, dict | list | set)
                 for v in (of.values() if isinstance(of, dict) else of)]
        return held + [count_changes(b) for b in self.network.buffers()]

    def _run(self, sites: Sequence[Site]) -> bool:
        by_call = {s.id: s for s in sites}
        counts: dict[str, int] = {}
        paths = {m: path for path, m in self.network.named_modules() if m is not self.network}
        ends, leaves, own_leaves = list[Tensor](), list[Tensor](), list[int]()
        handed, cuts = list[tuple[Site, Tensor, int]](), GradientCuts()

        def start(t: Tensor) -> Tensor:
            with cuts.pause():
                leaves.append(t.detach().clone().requires_grad_(True))
                return leaves[-1].clone()  # because a leaf allows no change in place

        def handler(module: nn.Module, args: tuple[Any, ...], run: Callable[[], Any]) -> Any:
            output, path = run(), paths[module]
            call = path, counts.get(path, 0)
            counts[path] = call[1] + 1
            site = by_call.get(call)
            if site is not None:
                own = site.pick(output)
                assert own is not None
                own_leaves.append(len(leaves))
                made = start(own)
                ends.append(own)
                handed.append((site, made, count_changes(made)))
                return convert_output(output, lambda t: made if t is own else t)
            return output if len(ends) == len(sites) else self._mark(call, output, start)

        with torch.enable_grad(), intercept_calls(paths, handler), PLAIN_CHECKPOINTS.hold():
            given = convert_tensors(take_first(self.example, 1),
                                    lambda t: start(t) if t.is_floating_point() else t)
            with cuts:
                output = apply(self.network, given)
            end, self.cuts_gradients = self.pick(output), cuts.found
            if end is None or [s for s, _, _ in handed] != list(sites) or not self._is_equal(output):
                return False
            found = all(self._depends_on(to, leaves, only)
                        for only, to in zip(own_leaves, [*ends[1:], end], strict=True))
        self.changed = [s for s, t, version in handed if count_changes(t) != version]
        return found and not cuts.found

    def _mark(self, call: CallId, output: Any, start: Callable[[Tensor], Tensor]) -> Any:
        """Make leaves of what a module before the last site gives for each example, if it has no history."""
        known = self.calls.get(call)
        axes = iter(() if known is None else known.axes)
        recorded = iter([] if known is None else extract_tensors(known.output))

        def one(t: Tensor) -> Tensor:
            axis, all_examples = next(axes, None), next(recorded, None)
            if not t.is_floating_point() or t.requires_grad or axis is None:
                return t
            return start(t) if self._differs(all_examples, axis) else t

        return convert_output(output, one)

    def _differs(self, t: Tensor | None, axis: int) -> bool:
        size = count_examples(self.example)
        if t is None or size == 1 or axis == MIXED or t.shape[axis] % size:
            return True
        one, *others = t.chunk(size, axis)
        return not all(torch.equal(one, o) for o in others)

    def _is_equal(self, output: Any) -> bool:
        """Return True where the output is that of the first example in the recorded pass."""
        root = self.calls["", 0]
        size = count_examples(self.example)
        wanted = dict(zip(map(id, extract_tensors(root.output)), root.axes, strict=False))
        whole, mine = self.pick(root.output), self.pick(output)
        axis = None if whole is None else wanted.get(id(whole))
        if whole is None or mine is None or axis is None or axis == MIXED or whole.shape[axis] % size:
            return False
        own = whole.narrow(axis, 0, whole.shape[axis] // size)
        return own.shape == mine.shape and torch.allclose(mine.detach(), own, rtol=1e-3, atol=1e-4,
                                                          equal_nan=True)

    def _depends_on(self, end: Tensor, leaves: Sequence[Tensor], only: int) -> bool:
        """Return True where `end` has a gradient with respect to one leaf and no other."""
        if not end.requires_grad:
            return False
        grads = torch.autograd.grad(end.sum(), leaves, allow_unused=True, retain_graph=True)
        return [k for k, g in enumerate(grads) if g is not None] == [only]


def _is_same(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, int | str) and one == other)
