"""Calls of a network's modules: watch them, remember what they return, and run a network again from the
middle.

No tracing and no change to the network. While a context is open, the `forward` of the modules that matter is
shadowed on the instance; it is restored when the context closes, also when the forward raises.

To run only what lies after a site, the network's own Python code runs again with the modules that finished
before the site replaced by what they returned in a full pass over the same batch, and the site by the given
tensor.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, convert_tensors

Handler = Callable[[nn.Module, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
CallId = tuple[str, int]
"""(module path, how many times the module was called before)."""
Axes = tuple[int | None, ...]
"""For each tensor in a result the axis along which it holds the examples of the batch; None where it holds
none."""
MIXED = -1
"""In place of an axis: the result grows with the batch, but not by results of more examples."""


def apply(network: nn.Module, inputs: Any) -> Any:
    """Call a network on a batch of inputs: a tensor, a tuple of arguments or a mapping of keyword
    arguments."""
    if isinstance(inputs, Mapping):
        return network(**inputs)
    if isinstance(inputs, tuple | list):
        return network(*inputs)
    return network(inputs)


@contextmanager
def freeze(*networks: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients for parameters, for as long as the context is open; then all as it was."""
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


@contextmanager
def intercept_calls(modules: Iterable[nn.Module], handler: Handler) -> Iterator[None]:
    """While open, a call of one of `modules` runs ``handler(module, forward, args, kwargs)`` in place of
    forward."""
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
        """From the root down to the caller of this call."""
        chain: list[Call] = []
        call = self.parent
        while call is not None:
            chain.append(call)
            call = call.parent
        return chain[::-1]


def record(network: nn.Module, inputs: Any) -> Call:
    """One full pass with every call remembered; the root of the tree of calls. For small batches."""
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


def find_axes(root: Call, size: int, other: Call, other_size: int) -> None:
    """Note in every call below `root`, and in it, where its result holds the examples.

    Args:
        root: of a pass over `size` examples.
        other: of a pass over another number of examples, of which the first are the same.
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
    # Several entries for each example, such as windows: those of one example must follow each other.
    n = min(one.shape[axis], other.shape[axis])
    a, b = (t.detach().narrow(axis, 0, n).double() for t in (one, other))
    near = max(1e-3, 8 * torch.finfo(one.dtype).eps) if one.is_floating_point() else 0.0
    return axis if bool(((a - b).abs() <= near * a.abs().max()).all()) else MIXED


def walk(call: Call) -> Iterator[Call]:
    """Every call below, in order of their start."""
    for child in call.children:
        yield child
        yield from walk(child)


class ReplayAction(Enum):
    """What a replay does with a call that comes before the end of the site."""

    ENTER = 0
    RETURN = 1
    SITE = 2


@dataclass(frozen=True)
class ReplayPlan:
    """What happens to each call until the site, in order: enter it, return what it returned, or it is the
    site.

    `axes` are those of the results, where `find_axes` found them.
    """

    site: CallId
    events: tuple[tuple[nn.Module, CallId, ReplayAction], ...]
    axes: Mapping[CallId, Axes]

    @classmethod
    def of(cls, call: Call) -> ReplayPlan:
        events: list[tuple[Call, ReplayAction]] = []
        for parent, heir in pairwise([*call.list_ancestors(), call]):
            before = parent.children[:parent.children.index(heir)]
            events += [(c, ReplayAction.RETURN) for c in before]
            events.append((heir, ReplayAction.SITE if heir is call else ReplayAction.ENTER))
        return cls(call.id, tuple((c.module, c.id, act) for c, act in events),
                   {c.id: c.axes for c, _ in events})

    @property
    def remembered(self) -> set[CallId]:
        """The calls whose results a replay needs."""
        return {i for _, i, act in self.events if act is not ReplayAction.ENTER}


class _Stop(BaseException):
    """Ends a forward early; not an Exception, so that a network's own `except Exception` lets it through."""


@dataclass
class RecordedPass:
    """What one pass over a batch left: inputs, output (None if it stopped early) and the remembered
    results."""

    inputs: Any
    output: Any
    results: dict[CallId, Any]
    size: int


class CallRecorder:
    """A pass that remembers chosen calls of chosen modules. Made once, run on every batch.

    Args:
        network: the network.
        calls: for each module path the calls to remember.
        volatile: calls whose result is overwritten in place later in the forward; they are cloned at once.
            Grows by itself when a pass finds another one.
    """

    def __init__(self, network: nn.Module, calls: Iterable[CallId], volatile: set[CallId]) -> None:
        self.network, self.volatile = network, volatile
        self._calls = set(calls)
        self._modules = {network.get_submodule(path): path for path, _ in self._calls}

    def run(self, inputs: Any, size: int, *, stop: bool = False) -> RecordedPass:
        """One forward pass; with ``stop=True`` it ends after the last call that is wanted."""
        for _ in range(2):
            output, results, versions = self._run_once(inputs, stop)
            changed = {i for i, pairs in versions.items() if any(t._version != v for t, v in pairs)}
            if not changed:
                return RecordedPass(inputs, output, results, size)
            self.volatile |= changed
        raise SutureError(f"the forward of {type(self.network).__name__} overwrites {sorted(changed)} in "
                          "another way in each pass; suture needs a forward that does the same "
                          "on the same input")

    def _run_once(self, inputs: Any,
                  stop: bool) -> tuple[Any, dict[CallId, Any], dict[CallId, list[tuple[Tensor, int]]]]:
        counts: dict[str, int] = {}
        results: dict[CallId, Any] = {}
        versions: dict[CallId, list[tuple[Tensor, int]]] = {}

        def handler(module: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...],
                    kwargs: dict[str, Any]) -> Any:
            path = self._modules[module]
            call = (path, counts.get(path, 0))
            counts[path] = call[1] + 1
            output = forward(*args, **kwargs)
            if call in self._calls:
                if call in self.volatile:
                    results[call] = convert_output(output, Tensor.clone)
                else:
                    # A new container, because a forward may go on to write into the one that it was given.
                    results[call] = convert_output(output, lambda t: t)
                    versions[call] = [(t, t._version) for t in extract_tensors(output)]
                # An exporter follows the calls and does not expect that one is left by an exception.
                if stop and len(results) == len(self._calls) and not torch.compiler.is_compiling():
                    raise _Stop
            return output

        output = None
        with intercept_calls(self._modules, handler), suppress(_Stop):
            output = apply(self.network, inputs)
        if missing := self._calls - results.keys():
            path, index = min(missing)
            raise SutureError(f"expected module {path!r} to be called {index + 1} times on this batch, it "
                              f"was called {counts.get(path, 0)} times; choose sites that "
                              "every batch reaches")
        return output, results, versions


def replay(network: nn.Module, plan: ReplayPlan, done: RecordedPass, site_output: Any, *,
           volatile: set[CallId], copies: int = 1, used: set[CallId] | None = None) -> Any:
    """Run what comes after a site, given what the site is to return.

    Args:
        network: the network.
        plan: of the site.
        done: a full pass over the same inputs.
        site_output: returned in place of the site's own result, for ``copies * done.size`` examples.
        volatile: calls whose results are overwritten in place; each replay gets its own copy.
        copies: how many batches are concatenated in `site_output`; remembered results are repeated as often.
        used: calls whose *values* matter after the site (a path around it). Where given, the others are
            spread without copying, because only their shapes are read.
    """
    position = 0
    inputs = repeat_examples(done.inputs, copies, done.size)

    def handler(module: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...],
                kwargs: dict[str, Any]) -> Any:
        nonlocal position
        if position == len(plan.events):
            return forward(*args, **kwargs)
        expected, call, act = plan.events[position]
        if expected is not module:
            raise SutureError(f"expected a call of {call[0]!r} before site {plan.site[0]!r}, got another "
                              "module; suture needs a forward that calls the same modules in the same order")
        position += 1
        if act is ReplayAction.ENTER:
            return forward(*args, **kwargs)
        if act is ReplayAction.SITE:
            return site_output
        result = done.results[call]
        if call in volatile:
            result = convert_output(result, Tensor.clone)
        shallow = used is not None and call not in used and call not in volatile
        return repeat_examples(result, copies, done.size, plan.axes[call], shallow=shallow)

    with intercept_calls({m: None for m, _, _ in plan.events}, handler):
        return apply(network, inputs)


def repeat_examples(value: Any, copies: int, size: int, axes: Axes = (), *, shallow: bool = False,
           instead: tuple[Tensor, Tensor] | None = None) -> Any:
    """A copy of `value`, in which everything that holds `size` examples is repeated `copies` times along
    their axis.

    Args:
        value: what a module returned.
        copies: how often.
        size: number of examples.
        axes: of each tensor in it. Where they are not known, a first axis of length `size` is one.
        shallow: floating point tensors are expanded views of the first entry: the shape is right, the values
            are not, no memory is taken.
        instead: a tensor in it, and what stands in its place.

    Raises:
        SutureError: a result that is not made of results of single examples, and its values matter.
    """
    known = iter(axes)

    def one(t: Tensor) -> Tensor:
        axis = next(known, 0 if t.ndim and len(t) == size else None)
        if instead is not None and t is instead[0]:
            return instead[1]
        if copies == 1 or axis is None:
            return t
        if shallow and t.is_floating_point():
            return t if axis == MIXED else t.narrow(axis, 0, 1).expand(
                *(n * copies if d == axis else n for d, n in enumerate(t.shape)))
        if axis == MIXED:
            raise SutureError(f"expected a result for each of {size} examples, got one of shape "
                              f"{tuple(t.shape)} that mixes them; give one batch at a time, or "
                              "choose a site after it")
        return t.repeat(*(copies if d == axis else 1 for d in range(t.ndim)))

    return convert_output(value, one)


def extract_tensors(output: Any) -> list[Tensor]:
    """The tensors in whatever a module returns."""
    found: list[Tensor] = []

    def see(t: Tensor) -> Tensor:
        found.append(t)
        return t

    convert_output(output, see)
    return found


def extract_main_output(output: Any) -> Tensor | None:
    """What the task is scored on: ``output["logits"]`` where there is one, else the first floating point
    tensor."""
    if isinstance(output, Mapping) and "logits" in output:
        output = output["logits"]
    return next((t for t in extract_tensors(output) if t.is_floating_point()), None)


def convert_output(output: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """What a module returned with `fn` applied to every tensor; named tuples and ModelOutputs keep their
    type."""
    if isinstance(output, Mapping) and not isinstance(output, dict):
        return convert_tensors(output, fn)
    if isinstance(output, dict):
        new = copy.copy(output)
        for k, v in output.items():
            new[k] = convert_output(v, fn)
        return new
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(convert_output(v, fn) for v in output))
    if isinstance(output, tuple | list):
        return type(output)(convert_output(v, fn) for v in output)
    if is_dataclass(output) and not isinstance(output, type):
        made = copy.copy(output)
        for f in fields(output):
            object.__setattr__(made, f.name, convert_output(getattr(output, f.name), fn))  # it may be frozen
        return made
    return fn(output) if isinstance(output, Tensor) else output


def disable_gradients() -> torch.no_grad:
    """`no_grad`, not `inference_mode`: inference tensors have no version counter to find in-place changes
    by."""
    return torch.no_grad()
