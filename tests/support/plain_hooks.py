"""References for a capture and a replay: one forward hook of PyTorch in a plain pass, without a dry run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def _run(network: nn.Module, inputs: Any) -> Any:
    return network(**inputs) if isinstance(inputs, Mapping) else network(inputs)


@torch.no_grad()
def capture(network: nn.Module, inputs: Any, sites: Sequence[str]) -> dict[str, Tensor]:
    """Return the first tensor that each module puts out, as it is at the end of its call."""
    found: dict[str, Tensor] = {}

    def keep(site: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        found[site] = (output[0] if isinstance(output, tuple) else output).clone()

    handles = [network.get_submodule(site).register_forward_hook(partial(keep, site)) for site in sites]
    _run(network.eval(), inputs)
    for handle in handles:
        handle.remove()
    return found


@torch.no_grad()
def run_tail(network: nn.Module, inputs: Any, site: str, stitched: Tensor) -> Any:
    """Return the network's output where a module puts out another tensor."""
    def put(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return (stitched, *output[1:]) if isinstance(output, tuple) else stitched

    handle = network.get_submodule(site).register_forward_hook(put)
    output = _run(network.eval(), inputs)
    handle.remove()
    return output
