"""Sites of one network in three verbs: find them, capture their representations, run a tail.

>>> found = find_sites(network, images)            # the repeated blocks, in order of execution
>>> capture(network, images, ["layer1.0"])         # one forward pass that stops after the last site
>>> run_tail(network, images, "layer1.0", x)       # only what comes after the site
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from suture.networks.calls import disable_gradients, freeze
from suture.networks.naming import Site, SiteSpec
from suture.networks.site_inspection import SiteInfo
from suture.networks.sites import SitedNetwork


def find_sites(network: nn.Module, inputs: Any, sites: SiteSpec = None, *,
               allow_bypass: bool = True) -> tuple[SiteInfo, ...]:
    """Find the sites of a network, in order of execution, with their shapes and what bypasses them.

    Args:
        network: any eager module; it is not changed.
        inputs: a batch of inputs: a tensor, a tuple of arguments or a mapping of keyword arguments.
        sites: names, globs (``"layer*.*"``), a function of (path, module), or None for the repeated blocks.
        allow_bypass: list bypassed sites too (default), instead of refusing them.
    """
    return SitedNetwork(network, inputs, sites, allow_bypass=allow_bypass).infos


@torch.no_grad()
def capture(network: nn.Module, inputs: Any, sites: SiteSpec = None) -> dict[str, Tensor]:
    """Capture representations by site name, in one forward pass that stops after the last site.

    The network runs in eval mode and is left as it was. If the network later overwrites a representation in
    place, it is returned as it was at the site.
    """
    sited = SitedNetwork(network, inputs, sites, allow_bypass=True)
    with freeze(network):
        return dict(zip(map(str, sited.sites), sited.front(inputs), strict=True))


def run_tail(network: nn.Module, inputs: Any, site: str | Site, x: Tensor, *,
             allow_bypass: bool = False) -> Any:
    """Compute the network's output on `inputs` with the representation at `site` replaced by `x`.

    Args:
        network: any eager module; it runs in eval mode and is left as it was.
        inputs: the batch of N examples that `x` belongs to.
        site: the site.
        x: (k N, ...) representations: one for each example, or k such batches concatenated.
        allow_bypass: accept a site that another path bypasses.
    """
    sited = SitedNetwork(network, inputs, [site], allow_bypass=allow_bypass)
    with freeze(network):
        with disable_gradients():
            done = sited.run_full(inputs)
        return sited.tail(0, x, done)
