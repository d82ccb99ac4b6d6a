"""Networks made ready for a comparison: private frozen copies, on the device, in the fastest layout that is exact."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from suture._errors import SutureError, first_line
from suture.batches import convert, count, tensors
from suture.calls import apply, frozen, no_gradients, output_tensors, record, walk

CPU_BUDGET = 13 * 2**20
GPU_BUDGET = 2 * 2**30
"""Bytes that the largest activation of a micro-batch may take. On a CPU it should stay in the cache: 52 images for
ResNet-18 at 32x32, among the fastest in benchmarks/grid.py."""


def find_device(name: str | torch.device = "auto") -> torch.device:
    """The device called `name`: "auto" takes cuda, else mps, else cpu.

    Raises:
        SutureError: the device is not there.
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


def check_precision(network: nn.Module, name: str) -> None:
    """Networks run in float32, bfloat16 or float16.

    Raises:
        SutureError: float64 parameters.
    """
    for key, p in network.named_parameters():
        if p.dtype == torch.float64:
            raise SutureError(f"expected the {name} in float32 (or half), got float64 in {key!r}; "
                              "pass network.float(), data in float32")


def prepare(network: nn.Module, inputs: Any, device: torch.device, name: str) -> nn.Module:
    """A private copy of a network: frozen, in eval mode, on the device, channels last where that changes nothing.

    The user's network is not touched, whatever happens later.

    Args:
        network: any eager module.
        inputs: a few examples on `device`, to check that channels last gives the same output (a forward that calls
            ``.view`` on a map may refuse it; the copy then keeps the usual layout).
        device: where to run.
        name: how error messages call it.

    Raises:
        SutureError: no eager module, float64 weights, a module that cannot be copied, a forward that fails.
    """
    if not isinstance(network, nn.Module):
        raise SutureError(f"expected a torch.nn.Module as {name}, got {type(network).__name__}")
    if isinstance(network, torch.jit.ScriptModule):
        raise SutureError(f"expected an eager module as {name}, got a TorchScript one; pass the model it was made from")
    check_precision(network, name)
    mine = _copy(network, name).to(device).eval().requires_grad_(False)
    try:
        with no_gradients():
            before = output_tensors(apply(mine, inputs))
    except Exception as e:  # a forward is anyone's code: it may assert its input size, or look up a key
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors(inputs))
        raise SutureError(f"the {name} network fails on inputs of shape {shapes}: {first_line(e)}; "
                          "give it the data it was made for") from e
    if not any(p.ndim == 4 for p in mine.parameters()):
        return mine
    fast = copy.deepcopy(mine).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with no_gradients():
            after = output_tensors(apply(fast, inputs))
    except RuntimeError:
        return mine
    same = all(torch.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)
               for a, b in zip(before, after, strict=True))
    return fast if same else mine


def _copy(network: nn.Module, name: str) -> nn.Module:
    try:
        return copy.deepcopy(network)
    except Exception as e:  # whatever hangs on the module: locks, open files, tensors with a history
        first = first_line(e).split(". ")[0]
        raise SutureError(f"the {name} network cannot be copied: {first}; suture runs a private copy, so keep only "
                          "parameters, buffers and plain values on the module") from e


def few(inputs: Any, n: int = 4) -> Any:
    """The first `n` examples of a batch of inputs."""
    size = count(inputs)

    def cut(t: Tensor) -> Tensor:
        return t[:n] if t.ndim and len(t) == size else t

    return convert(inputs, cut)


def micro_batch(network: nn.Module, inputs: Any, device: torch.device) -> int:
    """Examples that pass the network at once: as many as keep its largest activation within the device's budget."""
    some = few(inputs)
    with frozen(network), no_gradients():
        calls = list(walk(record(network, some)))
    largest = max((t.numel() * t.element_size() for c in calls for t in output_tensors(c.output)), default=1)
    budget = GPU_BUDGET if device.type == "cuda" else CPU_BUDGET
    return max(1, int(budget * count(some) // largest))
