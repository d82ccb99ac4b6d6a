"""Bypasses: paths around a site to the network's output, found by a replay of the tail with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, convert_tensors, count_examples, walk_tensors
from suture.networks.calls import (
    MIXED,
    CallId,
    convert_output,
    disable_gradients,
    extract_tensors,
    guess_axis,
)
from suture.networks.input_sequences import Calls, InputSequences
from suture.networks.preparation import take_first
from suture.networks.sites.capture_and_replay import RecordedPass, ReplayPlan, capture_calls, replay
from suture.networks.sites.site import Site
from suture.representations import Shape

_ROWS = 2
"""Examples in a replay: two show which outputs differ between examples."""
_INPUTS: CallId = ("", 0)


@dataclass(frozen=True, eq=False)
class _Leaf:
    """A copy of the tensor number `place` in a call's output or in the inputs, with its examples' axis."""

    call: CallId
    tensor: Tensor
    axis: int | None
    place: int


class BypassSearch:
    """Search for paths around sites, by replays of the tails on the first two of the recorded examples.

    One pass remembers what all replays need.

    Args:
        example: the inputs of the recorded pass with the calls `calls`.
        pick: function that picks the tensor of an output that the sites cut off.
        name: name of the network in error messages.

    Attributes:
        volatile: the calls whose outputs are overwritten.
    """

    def __init__(self, network: nn.Module, example: Any, calls: Calls, sequences: InputSequences,
                 pick: Callable[[Any], Tensor | None], name: str) -> None:
        self._network, self._calls = network, calls
        self._sequences, self._pick_main, self._name = sequences, pick, name
        self._given = [*walk_tensors(example)]
        self._example, self._size = take_first(example, _ROWS), count_examples(example)
        self._rows = min(_ROWS, self._size)
        self._shared: RecordedPass | None = None
        self.volatile: set[CallId] = set()

    @torch.enable_grad()
    def find(self, plan: ReplayPlan, shape: Shape) -> tuple[ReplayPlan, tuple[str, ...], tuple[str, ...]]:
        """Find the modules whose outputs reach the network's output around a site.

        Modules that do not depend on what the site follows are returned apart, as context. The tail runs with
        remembered outputs as leaves of autograd. Leaves with a gradient reach the output.

        Returns:
            The plan with what it uses, the names of what goes around, and the context.
        """
        done = self._capture(plan)
        leaves: list[_Leaf] = []
        output, start = self._replay(plan, done, leaves)
        self._check_equal_output(plan.site, output, done.output)
        reached = self._find_reached(plan.site, output, start, leaves)
        around = [leaf for leaf in reached if self._has_content(leaf)]
        beside = [leaf for leaf in around if self._is_beside(leaf, shape)]
        names = [self._name_leaf(leaf, plan.site) for leaf in around if leaf not in beside]
        context = [leaf.call[0] for leaf in beside if self._changes(
            leaf, self._sequences.run_with_other_inputs(shape.sequence))]
        return (replace(plan, used=frozenset(leaf.call for leaf in reached)), tuple(dict.fromkeys(names)),
                tuple(dict.fromkeys(context)))

    @disable_gradients()
    def _capture(self, plan: ReplayPlan) -> RecordedPass:
        """Return a pass that remembers what a plan needs: the shared one, or one of its own if that fails."""
        if self._shared is None:
            try:
                self._shared = capture_calls(self._network, self._example, set(self._calls), self.volatile)
            except SutureError:  # a module that other sites do not need may run otherwise in each pass
                return capture_calls(self._network, self._example, plan.remembered, self.volatile)
        return replace(self._shared, results={i: self._shared.results[i] for i in plan.remembered})

    def _replay(self, plan: ReplayPlan, done: RecordedPass, leaves: list[_Leaf]) -> tuple[Any, Tensor]:
        """Run the tail on copies of what `done` remembers; add these to `leaves`, and note overwritten ones.

        Returns:
            The output, and the leaf that stands at the site.
        """
        own, entry = plan.site.locate(done.results[plan.site.id])
        at = plan.read(done.results[plan.site.id])
        assert at is not None
        start = at.detach().clone().requires_grad_(True)
        handed: list[tuple[CallId, Tensor, int]] = []

        def hand(call: CallId, t: Tensor) -> Tensor:
            handed.append((call, t, t._version))
            return t

        def leaf(call: CallId) -> Callable[[Tensor], Tensor]:
            axes, places = self._iterate_axes(call, plan), count()

            def make(t: Tensor) -> Tensor:
                axis, place = next(axes, guess_axis(t, self._rows)), next(places)
                if t is own and entry is None:
                    return t
                if not t.is_floating_point():
                    return hand(call, t.clone())
                made = t.detach().clone().requires_grad_(True)
                leaves.append(_Leaf(call, made, axis, place))
                return hand(call, made.clone())  # a clone, because a leaf must not be overwritten in place

            return make

        inside = {i: convert_output(r, leaf(i)) for i, r in done.results.items()}
        inputs = convert_tensors(done.inputs, leaf(_INPUTS))
        output = replay(self._network, plan, hand(plan.site.id, start.clone()),
                        replace(done, inputs=inputs, results=inside), self.volatile)
        self.volatile |= {i for i, t, version in handed if t._version != version} - {_INPUTS}
        return output, start

    def _iterate_axes(self, call: CallId, plan: ReplayPlan) -> Iterator[int | None]:
        if call != _INPUTS:
            return iter(plan.axes.get(call, ()))
        return iter([guess_axis(t, self._size) for t in self._given])

    def _name_leaf(self, leaf: _Leaf, site: Site) -> str:
        if leaf.call == site.id:
            return f"another output of {leaf.call[0]}"
        return leaf.call[0] or "inputs"

    def _is_beside(self, leaf: _Leaf, shape: Shape) -> bool:
        """Return True for a module's output that does not depend on the token ids which a site follows."""
        if not shape.varies or not self._sequences.of or leaf.call == _INPUTS:
            return False
        calls = self._sequences.run_with_other_ids(shape.sequence)
        return calls is not None and not self._changes(leaf, calls)

    def _changes(self, leaf: _Leaf, calls: Calls | None) -> bool:
        """Return True where an output is another one in a pass with other inputs, as far as is known."""
        if calls is None or leaf.call not in calls:
            return calls is not None
        mine, other = (extract_tensors(of[leaf.call].output) for of in (self._calls, calls))
        if len(mine) != len(other):
            return True
        return not torch.equal(mine[leaf.place].nan_to_num(), other[leaf.place].nan_to_num())

    def _find_reached(self, site: Site, output: Any, start: Tensor, leaves: list[_Leaf]) -> list[_Leaf]:
        """Find the leaves that reach the output; raise an error if the site itself does not."""
        end = self._pick_main(output)
        if end is None or not end.requires_grad:
            raise SutureError(f"the output of the {self._name} has no gradient with respect to site "
                              f"{str(site)!r}; choose a site that it depends on, without torch.no_grad")
        ends = [start, *(leaf.tensor for leaf in leaves)]
        own, *grads = torch.autograd.grad(end.sum(), ends, allow_unused=True)
        if own is None:
            is_recurrent = isinstance(self._network.get_submodule(site.path), nn.RNNBase)
            advice = f"its state, {str(replace(site, slot=1))!r}" if is_recurrent else "another"
            raise SutureError(f"the output of the {self._name} does not depend on site "
                              f"{str(site)!r}; choose {advice}")
        # The other layers of a state whose one layer is the site have a gradient, which may be zero.
        return [leaf for leaf, g in zip(leaves, grads, strict=True)
                if g is not None and (leaf.call != site.id or bool(g.any()))]

    def _has_content(self, leaf: _Leaf) -> bool:
        """Return True where a leaf differs between examples, as activations do, unlike positions."""
        if leaf.axis is None or leaf.axis == MIXED or self._size == 1:
            return leaf.axis is not None
        of = self._given if leaf.call == _INPUTS else extract_tensors(self._calls[leaf.call].output)
        return _differ(leaf.tensor, leaf.axis, self._rows) or (
            leaf.place < len(of) and _differ(of[leaf.place], leaf.axis, self._size))

    def _check_equal_output(self, site: Site, output: Any, wanted: Any) -> None:
        mine, own = extract_tensors(output), extract_tensors(wanted)
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
