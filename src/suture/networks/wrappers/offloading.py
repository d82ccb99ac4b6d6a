"""Weights that the library Accelerate keeps elsewhere: found, put in their places, and its hooks removed."""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

_HOOK, _FORWARD = "_hf_hook", "_old_forward"
"""Attributes of a module with a hook of Accelerate: the hook, and the forward that it replaced."""
_Place = tuple[int, torch.Size]
"""Address of a tensor, and its shape."""
_WARNING = "to", "cuda"
"""Methods that Accelerate covers by ones that warn."""


def get_hooks(module: nn.Module) -> list[Any]:
    """Return the hooks of Accelerate on a module."""
    hook = vars(module).get(_HOOK)
    return [] if hook is None else list(getattr(hook, "hooks", [hook]))


def list_missing(network: nn.Module) -> Iterator[str]:
    """Yield the names of the tensors on the meta device, which have no values."""
    tensors = *network.named_parameters(), *network.named_buffers()
    return (path for path, t in tensors if t.is_meta)


def fill_missing(network: nn.Module) -> None:
    """Put the tensors that hooks hold in their places; what is tied stays tied."""
    tied: dict[_Place, nn.Parameter] = {}
    for module in network.modules():
        for hook in get_hooks(module):
            stored: Any = getattr(hook, "weights_map", None) or {}
            for path in list(list_missing(module)):
                if path in stored:
                    owner, _, name = path.rpartition(".")
                    _put(module.get_submodule(owner), name, torch.as_tensor(stored[path]), tied)


def _put(module: nn.Module, name: str, value: Tensor, tied: dict[_Place, nn.Parameter]) -> None:
    place = value.data_ptr(), value.shape
    if name in module._buffers:
        module._buffers[name] = value
    else:
        trained = value.is_floating_point() or value.is_complex()
        module._parameters[name] = tied.setdefault(place, nn.Parameter(value, requires_grad=trained))


def remove_hooks(network: nn.Module) -> None:
    """Remove the hooks of Accelerate, which move inputs and weights between devices, from a private copy."""
    for module in network.modules():
        own = vars(module)
        if own.pop(_HOOK, None) is None:
            continue
        forward = own.pop(_FORWARD, None)
        for name in ("forward", *_WARNING):
            own.pop(name, None)
        if isinstance(forward, MethodType) and forward.__func__ is type(module).forward:
            continue
        if forward is not None:
            own["forward"] = forward
