"""Preparation of networks: private frozen copies, on the device, in the fastest layout that is exact."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from suture._base import SutureError, convert_tensors, count_examples, list_tensors, summarise_error
from suture.networks.calls import Call, apply, disable_gradients, freeze, record, walk
from suture.networks.module_outputs import extract_tensors

CPU_BUDGET = 13 * 2**20
GPU_BUDGET = 2 * 2**30
"""Bytes that the largest activation of a micro-batch may need.

On a CPU it should stay in the cache: 52 images for ResNet-18 at 32x32, among the fastest in
benchmarks/grid.py.
"""


def find_device(name: str | torch.device = "auto") -> torch.device:
    """Find the device called `name`: "auto" means cuda, else mps, else cpu.

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
    """Check that a network runs in float32, bfloat16 or float16.

    Raises:
        SutureError: float64 parameters.
    """
    for key, p in network.named_parameters():
        if p.dtype == torch.float64:
            raise SutureError(f"expected the {name} in float32 (or half), got float64 in {key!r}; "
                              "pass network.float(), data in float32")


def prepare(network: nn.Module, inputs: Any, device: torch.device, name: str) -> nn.Module:
    """Make a private copy of a network: frozen, in eval mode, on the device.

    The copy is in channels last if that changes nothing. The user's network is never changed.

    Args:
        network: any eager module.
        inputs: a few examples on `device`, to check that channels last gives the same output. A forward pass
            that calls ``.view`` on a map may refuse it; the copy then keeps the usual layout.
        device: device of the copy.
        name: name of the network in error messages.

    Raises:
        SutureError: no eager module, float64 weights, a module that cannot be copied, or a forward pass that
            fails.
    """
    if not isinstance(network, nn.Module):
        raise SutureError(f"expected a torch.nn.Module as {name}, got {type(network).__name__}")
    if isinstance(network, torch.jit.ScriptModule):
        raise SutureError(f"expected an eager module as {name}, got a TorchScript one; pass the model "
                          "it was made from")
    check_precision(network, name)
    mine = _copy_network(network, name).to(device).eval().requires_grad_(False)
    try:
        with disable_gradients():
            before = extract_tensors(apply(mine, inputs))
    except Exception as e:  # a user's forward pass may raise any error
        shapes = ", ".join(str(tuple(t.shape)) for t in list_tensors(inputs))
        raise SutureError(f"the {name} network fails on inputs of shape {shapes}: {summarise_error(e)}; "
                          "give it the data it was made for") from e
    if not any(p.ndim == 4 for p in mine.parameters()):
        return mine
    fast = copy.deepcopy(mine).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with disable_gradients():
            after = extract_tensors(apply(fast, inputs))
    except RuntimeError:
        return mine
    same = all(torch.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)
               for a, b in zip(before, after, strict=True))
    return fast if same else mine


def _copy_network(network: nn.Module, name: str) -> nn.Module:
    try:
        return copy.deepcopy(network)
    except Exception as e:  # a module may hold locks, open files or tensors with a history
        first = summarise_error(e).split(". ")[0]
        raise SutureError(f"the {name} network cannot be copied: {first}; suture runs a private copy, so "
                          "keep only parameters, buffers and plain values on the module") from e


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold_batch_norms(network: nn.Module, inputs: Any, unchanged: Collection[str] = ()) -> int:
    """Fold batch norms into the convolutions before them: equal up to rounding.

    Each saves one pass over memory. Where a convolution's result goes to a batch norm, and both are called
    once, scale and shift move into the convolution. The batch norm then returns its input. The modules stay
    where they are, so paths and calls do not change. All is undone if any other module's result changes by
    more than rounding.

    Args:
        network: a private copy (`prepare`) in float32; it is changed.
        inputs: a few examples.
        unchanged: paths of modules whose results must not change.

    Returns:
        Number of batch norms that were folded.
    """
    with freeze(network), disable_gradients():
        before = list(walk(record(network, inputs)))
        pairs = _find_foldable(before, set(unchanged))
        undo = [_fold_pair(conv.module, norm.module) for conv, norm in pairs]
        changed = {id(conv.output) for conv, _ in pairs}
        after = {c.id: c for c in walk(record(network, inputs))}
        same = all(torch.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)
                   for c in before if id(c.output) not in changed
                   for a, b in zip(extract_tensors(c.output),
                                   extract_tensors(after[c.id].output), strict=True))
        for back in () if same else undo:
            back()
    return len(pairs) if same else 0


def _fold_pair(conv: Any, norm: Any) -> Callable[[], None]:
    weight, bias = conv.weight, conv.bias
    conv.weight, conv.bias = fuse_conv_bn_weights(weight, bias, norm.running_mean, norm.running_var, norm.eps,
                                                  norm.weight, norm.bias)
    norm.__dict__["forward"] = _return_input

    def back() -> None:
        conv.weight, conv.bias = weight, bias
        del norm.__dict__["forward"]

    return back


def _return_input(x: Tensor) -> Tensor:
    return x


def _find_foldable(calls: Sequence[Call], unchanged: set[str]) -> list[tuple[Call, Call]]:
    """Find (convolution, batch norm) pairs that can be folded.

    Results of `unchanged` modules are not touched, also if a container hands a convolution's result on.
    """
    times = Counter(c.path for c in calls)
    kept = {id(t) for c in calls if c.path in unchanged for t in extract_tensors(c.output)}
    made = {id(c.output): c for c in calls if isinstance(c.module, _CONVOLUTIONS) and times[c.path] == 1
            and id(c.output) not in kept and c.module.weight.dtype == torch.float32}
    norms = (c for c in calls if isinstance(c.module, nn.modules.batchnorm._BatchNorm) and times[c.path] == 1
             and c.module.running_mean is not None and "forward" not in c.module.__dict__ and c.args)
    return [(made.pop(id(c.args[0])), c) for c in norms if id(c.args[0]) in made]


def take_first(inputs: Any, n: int = 4) -> Any:
    """Return the first `n` examples of a batch of inputs."""
    size = count_examples(inputs)

    def cut(t: Tensor) -> Tensor:
        return t[:n] if t.ndim and len(t) == size else t

    return convert_tensors(inputs, cut)


def choose_micro_batch(peak: int, device: torch.device) -> int:
    """Choose the number of examples in a pass, from the bytes `peak` of one example's largest activation."""
    return max(1, (GPU_BUDGET if device.type == "cuda" else CPU_BUDGET) // peak)
