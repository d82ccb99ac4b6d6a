"""Calls of a network's modules: interception and recording."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import nn

from suture.networks.module_outputs import Axes

Handler = Callable[[nn.Module, tuple[Any, ...], Callable[[], Any]], Any]
"""Function of a module, the positional arguments of a call, and a function that runs the call."""
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
    """Return `no_grad`; tensors of `inference_mode` would not count their in-place changes."""
    return torch.no_grad()


@contextmanager
def intercept_calls(modules: Iterable[nn.Module], handler: Handler) -> Iterator[None]:
    """Run `handler` in place of calls of `modules` in this context, by a `forward` set on each instance."""
    own: list[tuple[nn.Module, Any]] = []
    try:
        for module in modules:
            own.append((module, module.__dict__.get("forward")))
            module.__dict__["forward"] = _shadow_forward(module, module.forward, handler)
        yield
    finally:
        for module, forward in reversed(own):
            del module.__dict__["forward"]
            if forward is not None:
                module.__dict__["forward"] = forward


def _shadow_forward(module: nn.Module, forward: Callable[..., Any], handler: Handler) -> Callable[..., Any]:
    def shadow(*args: Any, **kwargs: Any) -> Any:
        return handler(module, args, lambda: forward(*args, **kwargs))

    return shadow


@dataclass(eq=False)
class Call:
    """One call of one module in a recorded pass, with the calls in it.

    `index` is the number of earlier calls of the module. `finished` is the rank of this call's end among all
    ends. `axes` are the axes of the examples in `output`, if a dry run found them.
    """

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
        return [] if self.parent is None else [*self.parent.list_ancestors(), self.parent]


def record(network: nn.Module, inputs: Any) -> Call:
    """Record every call of one full pass over a small batch, and return the root of the tree of calls."""
    paths = {module: path for path, module in network.named_modules()}
    counts: dict[nn.Module, int] = {}
    root = Call("", 0, network, None)
    stack, ends = [root], count()

    def handler(module: nn.Module, args: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        call = Call(paths[module], counts.get(module, 0), module, stack[-1], args=args)
        counts[module] = call.index + 1
        stack[-1].children.append(call)
        stack.append(call)
        call.output = run()
        stack.pop()
        call.finished = next(ends)
        return call.output

    with intercept_calls((m for m in paths if m is not network), handler):
        root.output = apply(network, inputs)
    return root


def walk(call: Call) -> Iterator[Call]:
    """Yield every call below `call`, in order of their start."""
    for child in call.children:
        yield child
        yield from walk(child)
