"""Preparation of networks: private frozen copies on the device, in the fastest memory layout."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, convert_tensors, count_examples, expect, list_tensors, report_errors
from suture.networks.batch_norm_folding import are_equal_outputs
from suture.networks.calls import apply, disable_gradients


def find_device(name: str | torch.device = "auto") -> torch.device:
    """Find the device called `name`: "auto" means cuda, else mps, else cpu.

    Raises:
        SutureError: an unknown device, or one that is not there.
    """
    have = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(d for d in ("cuda", "mps", "cpu") if have[d]))
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise SutureError(f"expected a device auto, cpu, cuda or mps, got {name!r}") from e
    if not have.get(device.type, False):
        raise SutureError(f"device {str(name)!r} is not available on this machine; use auto or cpu")
    return device


def prepare(network: nn.Module, inputs: Any, device: torch.device, name: str) -> nn.Module:
    """Make a private copy of a network on the device, frozen and in eval mode.

    The copy is in channels last if its output stays the same. The user's network is not changed.

    Args:
        inputs: a few examples on `device`, to compare the outputs.
        name: name of the network in error messages.

    Raises:
        SutureError: no eager module, float64 weights, or a network that cannot be copied or run.
    """
    expect(isinstance(network, nn.Module), f"a torch.nn.Module as {name}", type(network).__name__)
    expect(not isinstance(network, torch.jit.ScriptModule), f"an eager module as {name}", "a TorchScript one",
           "pass the model it was made from")
    _check_precision(network, name)
    # A module may hold locks, open files or tensors with a history.
    with report_errors(f"the {name} network cannot be copied",
                       "keep only parameters, buffers and plain values on it, for suture's private copy"):
        mine = copy.deepcopy(network).to(device).eval().requires_grad_(False)
    shapes = ", ".join(str(tuple(t.shape)) for t in list_tensors(inputs))
    with disable_gradients(), report_errors(f"the {name} network fails on inputs of shape {shapes}",
                                        "give it the data it was made for"):
        before = apply(mine, inputs)
    if not any(p.ndim == 4 for p in mine.parameters()):
        return mine
    fast = copy.deepcopy(mine).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with disable_gradients():
            return fast if are_equal_outputs(before, apply(fast, inputs)) else mine
    except RuntimeError:  # from ``.view`` on a map that is in channels last
        return mine


def _check_precision(network: nn.Module, name: str) -> None:
    for key, p in network.named_parameters():
        if p.dtype == torch.float64:
            raise SutureError(f"expected the {name} in float32 (or half), got float64 in {key!r}; "
                              "pass network.float(), data in float32")


def take_first(inputs: Any, n: int = 4) -> Any:
    """Return the first `n` examples of a batch of inputs."""
    size = count_examples(inputs)

    def cut(t: Tensor) -> Tensor:
        return t[:n] if t.ndim and len(t) == size else t

    return convert_tensors(inputs, cut)
