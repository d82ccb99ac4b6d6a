"""Tails: running a network from one of its sites on."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from suture._base import SutureError
from suture.networks.calls import CallId
from suture.networks.module_outputs import repeat_examples
from suture.networks.naming import Site
from suture.networks.replays import RecordedPass, ReplayPlan, replay


class TailRunner:
    """Runner of a network's tails, with the facts about the network's calls that it needs.

    Args:
        network: any eager module.

    Attributes:
        network: the network.
        volatile: calls whose results are overwritten in place later in the forward pass.
        used: for each site the calls whose values matter after it, where they are known.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.volatile: set[CallId] = set()
        self.used: dict[Site, set[CallId]] = {}

    def run(self, site: Site, plan: ReplayPlan, x: Tensor, done: RecordedPass) -> Any:
        """Compute the network's output with `x` in place of the site's representation.

        Args:
            site: the site.
            plan: plan of its replay.
            x: (k N, ...) representations for k concatenated copies of the N examples of `done`.
            done: a pass that remembers what the plan needs.

        Raises:
            SutureError: `x` does not consist of whole batches.
        """
        copies, rest = divmod(len(x), done.size)
        if rest:
            raise SutureError(f"expected a multiple of {done.size} representations for site {str(site)!r}, "
                              f"got {len(x)}; concatenate whole batches")
        own = site.pick(done.results[plan.site])
        if own is not None and x.ndim == 4:
            # A forward pass that calls `.view` on a map relies on the layout that its own modules return.
            x = _match_layout(x, own)
        whole = repeat_examples(done.results[plan.site], copies, done.size, plan.axes[plan.site],
                                instead=None if own is None else (own, x))
        return replay(self.network, plan, done, whole, volatile=self.volatile, copies=copies,
                      used=self.used.get(site))


def _match_layout(x: Tensor, like: Tensor) -> Tensor:
    """Bring `x` into the memory layout of `like`, axis by axis, if that layout has no gaps."""
    if like.is_contiguous():
        return x.contiguous()
    order = sorted(range(like.ndim), key=like.stride, reverse=True)
    if not like.permute(order).is_contiguous():
        return x.contiguous()
    return x.permute(order).contiguous().permute([order.index(d) for d in range(like.ndim)])
