"""Calls of a network's modules: intercepting them and remembering what they return.

There is no tracing and no change to the network. While a context is open, the `forward` of the modules that
matter is shadowed on the instance. It is restored when the context closes, also when the forward pass raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from suture.networks.module_outputs import MIXED, Axes, extract_tensors

Handler = Callable[[nn.Module, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
CallId = tuple[str, int]
"""(module path, number of earlier calls of the module)."""


def apply(network: nn.Module, inputs: Any) -> Any:
    """Call a network on a batch: a tensor, a tuple of arguments or a mapping of keyword arguments."""
    if isinstance(inputs, Mapping):
        return network(**inputs)
    if isinstance(inputs, tuple | list):
        return network(*inputs)
    return network(inputs)


@contextmanager
def freeze(*networks: nn.Module) -> Iterator[None]:
    """Set eval mode and switch off parameters' gradients while the context is open, then restore both."""
    modes = [(m, m.training) for n in networks for m in n.modules()]
    flags = [(p, p.requires_grad) for n in networks for p in n.parameters()]
    try:
        for n in networks:
            n.eval()
            n.requires_grad_(False)
        yield
    finally:
        for m, training in modes:
            m.training = training
        for p, flag in flags:
            p.requires_grad_(flag)


def disable_gradients() -> torch.no_grad:
    """Return `no_grad`, not `inference_mode`, so that in-place changes can be found.

    Inference tensors have no version counter.
    """
    return torch.no_grad()


@contextmanager
def intercept_calls(modules: Iterable[nn.Module], handler: Handler) -> Iterator[None]:
    """Replace the `forward` of `modules` while the context is open.

    Each call then runs ``handler(module, forward, args, kwargs)``.
    """
    saved: list[tuple[nn.Module, bool, Any]] = []
    try:
        for module in modules:
            saved.append((module, "forward" in module.__dict__, module.forward))
            module.__dict__["forward"] = _shadow_forward(module, module.forward, handler)
        yield
    finally:
        for module, own, forward in reversed(saved):
            if own:
                module.__dict__["forward"] = forward
            else:
                del module.__dict__["forward"]


def _shadow_forward(module: nn.Module, forward: Callable[..., Any], handler: Handler) -> Callable[..., Any]:
    def shadow(*args: Any, **kwargs: Any) -> Any:
        return handler(module, forward, args, kwargs)

    return shadow


@dataclass(eq=False)
class Call:
    """One call of one module in a recorded pass."""

    path: str
    index: int
    module: nn.Module
    parent: Call | None
    children: list[Call] = field(default_factory=list)
    args: tuple[Any, ...] = ()
    output: Any = None
    finished: int = -1
    axes: Axes = ()

    @property
    def id(self) -> CallId:
        return self.path, self.index

    def list_ancestors(self) -> list[Call]:
        """List the calls that contain this one, from the root down."""
        chain: list[Call] = []
        call = self.parent
        while call is not None:
            chain.append(call)
            call = call.parent
        return chain[::-1]


def record(network: nn.Module, inputs: Any) -> Call:
    """Run one full pass and remember every call; return the root of the tree of calls. For small batches."""
    paths: dict[nn.Module, str] = {}
    for path, module in network.named_modules():
        paths.setdefault(module, path)
    counts: dict[nn.Module, int] = {}
    root = Call("", 0, network, None)
    stack, clock = [root], [0]

    def handler(module: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...],
                kwargs: dict[str, Any]) -> Any:
        call = Call(paths[module], counts.get(module, 0), module, stack[-1], args=args)
        counts[module] = call.index + 1
        stack[-1].children.append(call)
        stack.append(call)
        call.output = forward(*args, **kwargs)
        stack.pop()
        call.finished = clock[0]
        clock[0] += 1
        return call.output

    with intercept_calls((m for m in paths if m is not network), handler):
        root.output = apply(network, inputs)
    return root


def walk(call: Call) -> Iterator[Call]:
    """Yield every call below `call`, in order of their start."""
    for child in call.children:
        yield child
        yield from walk(child)


def find_axes(root: Call, size: int, other: Call, other_size: int) -> None:
    """Note in `root` and every call below it along which axes its result holds the examples.

    Args:
        root: root of a pass over `size` examples.
        other: root of a pass over another number of examples, of which the first are the same.
    """
    others = {c.id: c for c in (other, *walk(other))}
    for call in (root, *walk(root)):
        if call.id in others:
            pairs = zip(extract_tensors(call.output), extract_tensors(others[call.id].output), strict=False)
            call.axes = tuple(_find_axis(t, size, o, other_size) for t, o in pairs)


def _find_axis(one: Tensor, size: int, other: Tensor, other_size: int) -> int | None:
    if one.shape == other.shape:
        return None
    axis, *more = [d for d, (n, m) in enumerate(zip(one.shape, other.shape, strict=False)) if n != m] or [0]
    if one.ndim != other.ndim or more or one.shape[axis] * other_size != other.shape[axis] * size:
        return MIXED
    if one.shape[axis] == size:
        return axis
    # With several entries per example, such as windows, those of one example must follow each other.
    n = min(one.shape[axis], other.shape[axis])
    a, b = (t.detach().narrow(axis, 0, n).double() for t in (one, other))
    near = max(1e-3, 8 * torch.finfo(one.dtype).eps) if one.is_floating_point() else 0.0
    return axis if bool(((a - b).abs() <= near * a.abs().max()).all()) else MIXED
