"""Replays: forward passes that run only a network's tail, with the network's own Python code.

Modules that finish before the site return what they returned in a full pass over the same batch. The site's
module returns the given representation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from suture._base import SutureError
from suture.networks.calls import Call, CallId, apply, intercept_calls
from suture.networks.captures import RecordedPass
from suture.networks.module_outputs import Axes, convert_output, repeat_examples
from suture.networks.site_names import Site


class ReplayAction(Enum):
    """Action of a replay at a call up to the site."""

    ENTER = 0
    RETURN = 1
    SITE = 2


@dataclass(frozen=True)
class ReplayPlan:
    """Plan of a replay from a site.

    Attributes:
        events: module, call and action for each call up to the site, in order.
        axes: axes of the examples in the outputs of these calls.
        used: calls whose values bypass the site; of the others only shapes are read. None: unknown.
    """

    site: Site
    events: tuple[tuple[nn.Module, CallId, ReplayAction], ...]
    axes: Mapping[CallId, Axes]
    used: frozenset[CallId] | None = None

    @classmethod
    def of(cls, site: Site, call: Call) -> ReplayPlan:
        """Make the plan for a site that is the output of `call`."""
        events: list[tuple[Call, ReplayAction]] = []
        for parent, heir in pairwise([*call.list_ancestors(), call]):
            before = parent.children[:parent.children.index(heir)]
            events += [(c, ReplayAction.RETURN) for c in before]
            events.append((heir, ReplayAction.SITE if heir is call else ReplayAction.ENTER))
        return cls(site, tuple((c.module, c.id, act) for c, act in events), {c.id: c.axes for c, _ in events})

    @property
    def remembered(self) -> set[CallId]:
        """Calls whose outputs a replay needs."""
        return {i for _, i, act in self.events if act is not ReplayAction.ENTER}


def replay(network: nn.Module, plan: ReplayPlan, x: Tensor, done: RecordedPass, volatile: set[CallId]) -> Any:
    """Compute the network's output with `x` in place of a site's representation.

    Args:
        x: (k N, ...) representations for k concatenated copies of the N examples of `done`.
        done: a pass that remembers what the plan needs.
        volatile: calls whose outputs are overwritten in place; each replay gets its own copy.
    """
    copies, rest = divmod(len(x), done.size)
    if rest:
        raise SutureError(f"expected a multiple of {done.size} representations for site {str(plan.site)!r}, "
                          f"got {len(x)}; concatenate whole batches")
    position = 0

    def handler(module: nn.Module, args: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        nonlocal position
        if position == len(plan.events):
            return run()
        expected, call, act = plan.events[position]
        if expected is not module:
            raise SutureError(f"expected a call of {call[0]!r} before site {str(plan.site)!r}, got another; "
                              "make the forward call the same modules in the same order")
        position += 1
        if act is ReplayAction.ENTER:
            return run()
        if act is ReplayAction.SITE:
            return _replace_representation(plan, x, done, copies)
        output = done.results[call]
        if call in volatile:
            output = convert_output(output, Tensor.clone)
        shallow = plan.used is not None and call not in plan.used and call not in volatile
        return repeat_examples(output, copies, done.size, plan.axes[call], shallow=shallow)

    with intercept_calls({m: None for m, _, _ in plan.events}, handler):
        return apply(network, repeat_examples(done.inputs, copies, done.size))


def _replace_representation(plan: ReplayPlan, x: Tensor, done: RecordedPass, copies: int) -> Any:
    output = done.results[plan.site.id]
    own = plan.site.pick(output)
    assert own is not None
    if x.ndim == 4:
        # A forward pass that calls `.view` on a map relies on the layout that its own modules return.
        x = _match_layout(x, own)
    return repeat_examples(output, copies, done.size, plan.axes[plan.site.id], instead=(own, x))


def _match_layout(x: Tensor, like: Tensor) -> Tensor:
    """Bring `x` into the memory layout of `like`, if that layout has no gaps."""
    order = sorted(range(like.ndim), key=like.stride, reverse=True)
    if like.is_contiguous() or not like.permute(order).is_contiguous():
        return x.contiguous()
    return x.permute(order).contiguous().permute([order.index(d) for d in range(like.ndim)])
