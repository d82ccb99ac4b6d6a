"""Bypasses: paths around a site to the network's output, found by replays of the tail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, count_examples, walk_tensors
from suture.networks.calls import (
    MIXED,
    Call,
    CallId,
    dequantise,
    disable_gradients,
    extract_tensors,
    guess_axis,
    walk,
)
from suture.networks.input_sequences import Calls, InputSequences
from suture.networks.preparation import take_first
from suture.networks.sites.capture_and_replay import RecordedPass, ReplayPlan, capture_calls
from suture.networks.sites.chains import ChainProbe
from suture.networks.sites.site import Site
from suture.networks.sites.tail_probe import INPUTS, Leaf, TailProbe
from suture.representations import Shape

_ROWS = 2
"""Examples in a replay with gradients: two show which outputs differ between examples."""


@dataclass(frozen=True)
class Bypass:
    """What goes around a site.

    Attributes:
        plan: the plan of the replay, with what it uses.
        around: modules (or ``"inputs"``) whose outputs reach the network's output around the site.
        context: those that do not depend on what the site follows.
        has_gradient: True if the output has a gradient with respect to the site.
    """

    plan: ReplayPlan
    around: tuple[str, ...]
    context: tuple[str, ...]
    has_gradient: bool


class BypassSearch:
    """Search for paths around sites, by replays of the tails on the first two of the recorded examples.

    One pass remembers what all replays need. What gradients do not show is found on all recorded examples.

    Args:
        example: the inputs of the recorded pass `root`.
        pick: function that picks the tensor of an output that the sites cut off.
        name: name of the network in error messages.

    Attributes:
        volatile: the calls whose outputs are overwritten.
    """

    def __init__(self, network: nn.Module, example: Any, root: Call, sequences: InputSequences,
                 pick: Callable[[Any], Tensor | None], name: str) -> None:
        self._network, self._root, self._example = network, root, example
        self._calls = {c.id: c for c in walk(root)}
        self._sequences, self._pick_main, self._name = sequences, pick, name
        self._cuts_gradients = False
        self._given, self._size = [*walk_tensors(example)], count_examples(example)
        self._axes = tuple(guess_axis(t, self._size) for t in self._given)
        self._shared: dict[int, RecordedPass] = {}
        self.volatile: set[CallId] = set()
        self._clean: set[Site] = set()

    def try_chain(self, sites: Sequence[Site]) -> None:
        """Try to show in one pass that each of the sites cuts the network, so that `find` needs no replay."""
        if set(sites) <= self._clean:
            return
        probe = ChainProbe(self._network, self._example, self._calls | {self._root.id: self._root},
                           self._pick_main)
        if probe.find_clean(sites):
            self._clean |= set(sites)
            self.volatile |= {s.id for s in probe.changed}
        self._cuts_gradients |= probe.cuts_gradients

    def find(self, plan: ReplayPlan, shape: Shape) -> Bypass:
        """Find the modules whose outputs reach the network's output around a site.

        Raises:
            SutureError: the output does not depend on the site, or the tail does not repeat it.
        """
        if plan.site in self._clean:
            return Bypass(replace(plan, used=frozenset()), (), (), True)
        probe = self._probe(plan, min(_ROWS, self._size))
        reached = probe.find_by_gradient()
        has_gradient = reached is not None
        if reached is None:
            reached = self._probe(plan, self._size).find_by_exchange()
        elif self._cuts_gradients or probe.cuts_gradients:
            reached = [*reached, *self._probe(plan, self._size).find_without_gradient(reached)]
        if reached is None:
            raise self._refuse(plan.site)
        around = [leaf for leaf in reached if self._has_content(leaf)]
        beside = [leaf for leaf in around if self._is_beside(leaf, shape)]
        names = [self._name_leaf(leaf, plan.site) for leaf in around if leaf not in beside]
        context = [leaf.call[0] for leaf in beside if self._changes(
            leaf, self._sequences.run_with_other_inputs(shape.sequence))]
        used = frozenset(leaf.call for leaf in reached) if has_gradient else None
        return Bypass(replace(plan, used=used), tuple(dict.fromkeys(names)), tuple(dict.fromkeys(context)),
                      has_gradient)

    def _probe(self, plan: ReplayPlan, size: int) -> TailProbe:
        done = self._capture(plan, size)
        return TailProbe(self._network, plan, done, self._axes, self.volatile, self._pick_main,
                         partial(self._check_equal_output, plan.site, done.output))

    @disable_gradients()
    def _capture(self, plan: ReplayPlan, size: int) -> RecordedPass:
        """Return a pass that remembers what a plan needs: the shared one, or one of its own if that fails."""
        example = take_first(self._example, size)
        if size not in self._shared:
            try:
                self._shared[size] = capture_calls(self._network, example, set(self._calls), self.volatile)
            except SutureError:  # a module that other sites do not need may run otherwise in each pass
                return capture_calls(self._network, example, plan.remembered, self.volatile)
        shared = self._shared[size]
        # In the order of the pass: that of a set differs between processes, and would reach the names.
        return replace(shared, results={i: x for i, x in shared.results.items() if i in plan.remembered})

    def _refuse(self, site: Site) -> SutureError:
        is_recurrent = isinstance(self._network.get_submodule(site.path), nn.RNNBase)
        advice = f"its state, {str(replace(site, slot=1))!r}" if is_recurrent else "another"
        return SutureError(f"the output of the {self._name} does not depend on site {str(site)!r}; "
                           f"choose {advice}")

    def _name_leaf(self, leaf: Leaf, site: Site) -> str:
        if leaf.call == site.id:
            return f"another output of {leaf.call[0]}"
        return leaf.call[0] or "inputs"

    def _is_beside(self, leaf: Leaf, shape: Shape) -> bool:
        """Return True for a module's output that does not depend on the token ids which a site follows."""
        if not shape.varies or not self._sequences.of or leaf.call == INPUTS:
            return False
        calls = self._sequences.run_with_other_ids(shape.sequence)
        return calls is not None and not self._changes(leaf, calls)

    def _changes(self, leaf: Leaf, calls: Calls | None) -> bool:
        """Return True where an output is another one in a pass with other inputs, as far as is known."""
        if calls is None or leaf.call not in calls:
            return calls is not None
        mine, other = (extract_tensors(of[leaf.call].output) for of in (self._calls, calls))
        if len(mine) != len(other):
            return True
        return not torch.equal(mine[leaf.place].nan_to_num(), other[leaf.place].nan_to_num())

    def _has_content(self, leaf: Leaf) -> bool:
        """Return True where a leaf differs between examples, as activations do, unlike positions."""
        if leaf.axis is None or leaf.axis == MIXED or self._size == 1:
            return leaf.axis is not None
        of = self._given if leaf.call == INPUTS else extract_tensors(self._calls[leaf.call].output)
        return _differ(leaf.tensor, leaf.axis, leaf.size) or (
            leaf.place < len(of) and _differ(of[leaf.place], leaf.axis, self._size))

    def _check_equal_output(self, site: Site, wanted: Any, output: Any) -> None:
        mine, own = ([*map(dequantise, extract_tensors(o))] for o in (output, wanted))
        if len(mine) != len(own):  # modules that did not run add none, such as attentions
            mine, own = ([t for t in (self._pick_main(o),) if t is not None] for o in (output, wanted))
        for a, b in zip(mine, own, strict=True):
            if a.shape != b.shape or not torch.allclose(a.detach(), b, rtol=1e-4, atol=1e-5, equal_nan=True):
                raise SutureError(f"the tail of site {str(site)!r}, run on its own representation, changes "
                                  f"the output of the {self._name}; make its forward deterministic in eval "
                                  "mode")


def _differ(t: Tensor, axis: int, size: int) -> bool:
    if size < 2 or axis >= t.ndim or t.shape[axis] % size:
        return False
    first, *others = t.detach().chunk(size, axis)
    return not all(torch.equal(first, o) for o in others)
