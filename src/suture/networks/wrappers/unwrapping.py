"""Networks without what wraps them: compilation, parallelism, averages and offloaded weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from suture._base import SutureError, expect
from suture.networks.copying import copy_network, strip
from suture.networks.wrappers.offloading import fill_missing, get_hooks, list_missing, remove_hooks

_EXPORTED = "_StatefulGraphModule", "UnflattenedModule", "InterpreterModule"
_SHARDS = "FullyShardedDataParallel", "FSDPModule", "DTensor"


def unwrap(network: Any, name: str) -> nn.Module:
    """Return the eager module in a network, whose calls can be seen; the network is not changed.

    Wrapped parts are found in a twin that shares the tensors of the network.

    Args:
        name: name of the network in error messages.

    Raises:
        SutureError: no module, one that only runs as a graph or in shards, or weights on the meta device
            that nothing holds.
    """
    found: nn.Module = strip(network)
    _check_eager(found, name)
    if not any(get_hooks(m) for m in found.modules()):
        _check_filled(found, name)
    return copy_network(found, shared=True) if any(strip(m) is not m for m in found.modules()) else found


def open_network(network: Any, name: str) -> nn.Module:
    """Return what `unwrap` returns, with all weights; offloaded ones are read into a twin."""
    found = unwrap(network, name)
    if next(list_missing(found), None):
        found = copy_network(found, shared=True)
        fill_missing(found)
        remove_hooks(found)
        _check_filled(found, name)
    return found


def _check_filled(network: nn.Module, name: str) -> None:
    missing = next(list_missing(network), None)
    expect(missing is None, f"weights in the {name}", f"{missing!r} on the meta device, without values",
           "load a state dict with assign=True first")


def _check_eager(network: Any, name: str) -> None:
    expect(isinstance(network, nn.Module), f"a torch.nn.Module as {name}", type(network).__name__)
    expect(not isinstance(network, torch.jit.ScriptModule), f"an eager module as {name}", "a TorchScript one",
           "pass the model it was made from")
    for path, part in network.named_modules():
        of = f"part {path!r} of the {name}" if path else f"the {name}"
        if _is_exported(part):
            raise SutureError(f"{of} is an exported graph, which calls no modules; pass the module that was "
                              "exported")
        tensors = (part, *part.parameters(recurse=False))
        if any(c.__name__ in _SHARDS for t in tensors for c in type(t).__mro__):
            raise SutureError(f"{of} holds shards of its weights; load a full state dict into the plain "
                              "module, and pass that")


def _is_exported(part: nn.Module) -> bool:
    """Return True for what `torch.export` makes of a module: its graph, also with the modules put back."""
    named = any(c.__name__ in _EXPORTED for c in type(part).__mro__)
    return named or (isinstance(part, torch.fx.GraphModule) and "train" in vars(part))
