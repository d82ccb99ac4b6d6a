"""What the output of a tail depends on besides its site: found by gradients, or without them by exchange."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, convert_tensors
from suture.networks.calls import (
    MIXED,
    Axes,
    CallId,
    convert_output,
    dequantise,
    disable_gradients,
    extract_tensors,
    guess_axis,
)
from suture.networks.sites.capture_and_replay import RecordedPass, ReplayPlan, replay
from suture.networks.sites.gradient_cuts import GradientCuts
from suture.networks.wrappers.eager_passes import count_changes
from suture.numbers import to_double

INPUTS = "", 0
"""Call in place of the network's inputs."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """The tensor number `place` in a call's output or in the inputs, with the axis of its `size` examples."""

    call: CallId
    tensor: Tensor
    axis: int | None
    place: int
    size: int


class TailProbe:
    """Probe of the tail of one site, on the recorded pass `done`.

    Args:
        axes: axes of the examples in the tensors of the inputs.
        volatile: calls whose outputs are overwritten in place; the probe adds those that the tail overwrites.
        pick: returns the tensor of an output that counts; None for none.
        check: called with the output of the tail on the site's own representation.

    Attributes:
        cuts_gradients: True if gradients may not show all that reaches the output: the tail has functions
            without a gradient, or remembers integers of each example.
    """

    def __init__(self, network: nn.Module, plan: ReplayPlan, done: RecordedPass, axes: Axes,
                 volatile: set[CallId], pick: Callable[[Any], Tensor | None],
                 check: Callable[[Any], None]) -> None:
        self._network, self._plan, self._done, self._volatile = network, plan, done, volatile
        self._axes, self._pick, self._check = {**plan.axes, INPUTS: axes}, pick, check
        output = done.results[plan.site.id]
        whole, entry = plan.site.locate(output)
        own = plan.read(output)
        assert own is not None
        self.cuts_gradients = False
        self._own, self._replaced = dequantise(own), whole if entry is None else None

    def find_by_gradient(self) -> list[Leaf] | None:
        """Return the leaves that reach the output by gradients; None where the site itself does not.

        The tail runs with remembered outputs as leaves of autograd.
        """
        leaves: list[Leaf] = []

        def make(found: Leaf) -> Tensor:
            if not found.tensor.is_floating_point():
                self.cuts_gradients |= _is_output_of_examples(found)
                return found.tensor
            made = found.tensor.detach().clone().requires_grad_(True)
            leaves.append(replace(found, tensor=made))
            return made

        start, cuts = self._own.detach().clone().requires_grad_(True), GradientCuts()
        try:
            with torch.enable_grad():
                output = self._run(start, make, cuts)
                end = self._pick(output)
                if end is None or not end.requires_grad:
                    return None
                ends = [start, *(leaf.tensor for leaf in leaves)]
                grads: Sequence[Tensor | None] = torch.autograd.grad(end.sum(), ends, allow_unused=True)
        except SutureError:
            raise
        except Exception:  # NumPy, for one, refuses tensors with gradients; what else is wrong shows without
            return None
        if grads[0] is None:
            return None
        self._check(output)
        self.cuts_gradients |= cuts.found
        # The other layers of a state whose one layer is the site have a gradient, which may be zero.
        return [leaf for leaf, g in zip(leaves, grads[1:], strict=True)
                if g is not None and (leaf.call != self._plan.site.id or bool(g.any()))]

    @disable_gradients()
    def find_by_exchange(self) -> list[Leaf] | None:
        """Return the leaves whose values reach the output: with those of other examples it is another one.

        It is None where the output does not depend on the site.
        """
        leaves, before = self._list_leaves()
        self._check(before)
        after = self._run(_exchange(self._own, 0, self._done.size, must=True), lambda leaf: leaf.tensor)
        if self._pick(before) is not None and not self._differ(before, after):
            return None
        return self._search(leaves, before)

    @disable_gradients()
    def find_without_gradient(self, known: Collection[Leaf]) -> list[Leaf]:
        """Return the outputs of calls, beside `known` ones, whose values reach the output without gradients.

        Inputs are left out: a mask may be computed from them.
        """
        leaves, before = self._list_leaves(integers=True)
        found = {(leaf.call, leaf.place) for leaf in known}
        return self._search([leaf for leaf in leaves if leaf.call != INPUTS
                             and (leaf.call, leaf.place) not in found], before)

    def _list_leaves(self, integers: bool = False) -> tuple[list[Leaf], Any]:
        """Return the leaves with an axis of examples, and the output of the tail on them."""
        leaves: list[Leaf] = []

        def keep(found: Leaf) -> Tensor:
            leaves.append(found)
            return found.tensor

        output = self._run(self._own, keep)
        return [leaf for leaf in leaves if leaf.axis not in (None, MIXED)
                and (integers or leaf.tensor.is_floating_point())], output

    def _search(self, leaves: Sequence[Leaf], before: Any) -> list[Leaf]:
        """Search for the leaves that reach the output, half by half."""
        if not leaves or not self._differ(before, self._run_exchanged(leaves)):
            return []
        if len(leaves) == 1:
            return [*leaves]
        half = len(leaves) // 2
        return [*self._search(leaves[:half], before), *self._search(leaves[half:], before)] or [*leaves]

    def _run_exchanged(self, leaves: Collection[Leaf]) -> Any:
        chosen, size = {(leaf.call, leaf.place) for leaf in leaves}, self._done.size

        def change(leaf: Leaf) -> Tensor:
            if leaf.axis is None or (leaf.call, leaf.place) not in chosen:
                return leaf.tensor
            return _exchange(leaf.tensor, leaf.axis, size, must=size == 1)

        return self._run(self._own, change)

    def _run(self, x: Tensor, change: Callable[[Leaf], Tensor],
             context: AbstractContextManager[object] | None = None) -> Any:
        """Run the tail in a context, on copies of its remembered tensors and of the inputs, with changes."""
        handed: list[tuple[CallId, Tensor, int]] = []

        def hand(call: CallId, t: Tensor) -> Tensor:
            made = t.clone()
            handed.append((call, made, count_changes(made)))
            return made

        def convert(call: CallId) -> Callable[[Tensor], Tensor]:
            axes, places = iter(self._axes.get(call, ())), count()

            def one(t: Tensor) -> Tensor:
                axis, place = next(axes, guess_axis(t, self._done.size)), next(places)
                if t is self._replaced and call == site:
                    return t
                found = Leaf(call, t, axis, place, self._done.size)
                return hand(call, change(found))

            return one

        site = self._plan.site.id
        results = {i: convert_output(r, convert(i)) for i, r in self._done.results.items()}
        inputs = convert_tensors(self._done.inputs, convert(INPUTS))
        own = hand(site, x)
        try:
            with context or nullcontext():
                return replay(self._network, self._plan, own,
                              replace(self._done, inputs=inputs, results=results), self._volatile)
        finally:
            self._volatile |= {i for i, t, version in handed if count_changes(t) != version} - {INPUTS}

    def _differ(self, one: Any, other: Any) -> bool:
        a, b = ([*map(dequantise, extract_tensors(o))] if (end := self._pick(o)) is None else [end]
                for o in (one, other))
        return len(a) != len(b) or any(
            x.shape != y.shape or not torch.allclose(to_double(x), to_double(y), rtol=1e-4, atol=1e-5,
                                                     equal_nan=True) for x, y in zip(a, b, strict=True))


def _exchange(t: Tensor, axis: int, size: int, *, must: bool) -> Tensor:
    """Return a tensor with each example's part from the one before; equal parts change if they `must`."""
    other = t.roll(t.shape[axis] // size, axis)
    return t * 1.5 + 0.1 if must and t.is_floating_point() and torch.equal(other, t) else other


def _is_output_of_examples(leaf: Leaf) -> bool:
    return leaf.call != INPUTS and leaf.axis not in (None, MIXED)
