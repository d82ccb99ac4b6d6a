"""Calls of a network's modules and their outputs: interception, recording, and the axes of the examples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, convert_tensors
from suture.networks.arguments import apply
from suture.networks.wrappers.eager_passes import count_changes
from suture.numbers import to_double

Handler = Callable[[nn.Module, tuple[Any, ...], Callable[[], Any]], Any]
"""Function of a module, the positional arguments of a call, and a function that runs the call."""
CallId = tuple[str, int]
"""(module path, number of earlier calls of the module)."""
Axes = tuple[int | None, ...]
"""Axis of the examples for each tensor in an output; None for a tensor without examples."""
_ENTRIES = "_call_impl", "forward", "_compiled_call_impl"
"""Attributes of an instance through which `nn.Module.__call__` reaches its code."""
MIXED = -1
"""Value in place of an axis: the tensor grows with the batch, but is no sequence of examples."""


def extract_tensors(output: Any) -> list[Tensor]:
    """Return the tensors in whatever a module returns."""
    found: list[Tensor] = []

    def see(t: Tensor) -> Tensor:
        found.append(t)
        return t

    convert_output(output, see)
    return found


def dequantise(t: Tensor) -> Tensor:
    """Return a quantised tensor as floating point numbers, and any other one as it is."""
    return t.dequantize() if t.is_quantized else t


def extract_main_output(output: Any) -> Tensor | None:
    """Return the output called "logits", else the first floating point tensor."""
    named = name_tensors(output)
    first = next((t for path, t in named.items() if path.split(".")[0] == "logits"), None)
    return next(iter(named.values()), None) if first is None else first


def name_tensors(output: Any, path: str = "") -> dict[str, Tensor]:
    """Return the floating point tensors in an output by their place, such as ``"logits"`` or ``"heads.0"``.

    Places are keys, names of fields, and positions. An output that is one tensor has the place "".
    """
    if isinstance(output, Tensor):
        return {path: output} if output.is_floating_point() else {}
    named: Iterable[tuple[Any, Any]] = ()
    if isinstance(output, Mapping):
        named = output.items()
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        named = zip(output._fields, output, strict=True)
    elif isinstance(output, tuple | list):
        named = enumerate(output)
    elif is_dataclass(output) and not isinstance(output, type):
        named = ((f.name, getattr(output, f.name)) for f in fields(output))
    return {place: t for name, part in named
            for place, t in name_tensors(part, f"{path}.{name}" if path else str(name)).items()}


def convert_output(output: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """Apply `fn` to each tensor in an output. Named tuples, data classes and ModelOutputs keep their type."""
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
            object.__setattr__(made, f.name, convert_output(getattr(output, f.name), fn))  # may be frozen
        return made
    return convert_tensors(output, fn)


def find_axis(one: Tensor, size: int, other: Tensor, rows: Sequence[int]) -> int | None:
    """Find the axis of the examples, from outputs for two batches of different size.

    Args:
        one: output for `size` examples.
        other: output for the examples with the numbers `rows`; other numbers are of other examples.
    """
    other_size = len(rows)
    if one.shape == other.shape:
        return None
    axis, *more = [d for d, (n, m) in enumerate(zip(one.shape, other.shape, strict=False)) if n != m] or [0]
    if one.ndim != other.ndim or more or one.shape[axis] * other_size != other.shape[axis] * size:
        return MIXED
    if one.shape[axis] == size:
        return axis
    # With several entries per example, such as windows, those of one example must follow each other.
    n, near = one.shape[axis] // size, 0.0
    if one.is_floating_point():
        near = max(1e-3, 8 * torch.finfo(one.dtype).eps)
    for k, row in enumerate(rows):
        if 0 <= row < size:
            a, b = (to_double(t.detach().narrow(axis, at * n, n)) for t, at in ((one, row), (other, k)))
            if not bool(((a - b).abs() <= near * a.abs().max()).all()):
                return MIXED
    return axis


def guess_axis(t: Tensor, size: int) -> int | None:
    """Guess the axis of the examples: 0 if the first axis has the length `size`, else None, for no axis."""
    return 0 if t.ndim and len(t) == size else None


def repeat_examples(value: Any, copies: int, size: int, axes: Axes = (), *, shallow: bool = False,
                    instead: tuple[Tensor, Tensor] | None = None) -> Any:
    """Copy what a module returned for `size` examples, and repeat these examples `copies` times.

    Args:
        axes: axis of the examples for each tensor. Default: the first axis, if it has length `size`.
        shallow: give floating point tensors the right shape only, which needs no memory.
        instead: a tensor in `value`, and its replacement.
    """
    known = iter(axes)

    def one(t: Tensor) -> Tensor:
        axis = next(known, guess_axis(t, size))
        if instead is not None and t is instead[0]:
            return instead[1]
        if copies == 1 or axis is None:
            return t
        if shallow and t.is_floating_point():
            return t if axis == MIXED else t.narrow(axis, 0, 1).expand(
                *(n * copies if d == axis else n for d, n in enumerate(t.shape)))
        if axis == MIXED:
            raise SutureError(f"an output of shape {tuple(t.shape)} mixes the {size} examples of a batch; "
                              "give single batches, or a later site")
        return t.repeat(*(copies if d == axis else 1 for d in range(t.ndim)))

    return convert_output(value, one)


@contextmanager
def set_mode(*networks: nn.Module, training: bool) -> Iterator[None]:
    """Set train or eval mode while the context is open, then restore the mode of every module."""
    before = [(m, m.training) for n in networks for m in n.modules()]
    try:
        for n in networks:
            n.train(training)
        yield
    finally:
        for m, mode in before:
            m.training = mode


@contextmanager
def freeze(*networks: nn.Module) -> Iterator[None]:
    """Set eval mode and switch off parameters' gradients while the context is open, then restore all."""
    flags = [(p, p.requires_grad) for n in networks for p in n.parameters()]
    moving: list[tuple[Tensor, Tensor]] = []
    try:
        with set_mode(*networks, training=False):
            for p, _ in flags:
                p.requires_grad_(False)
            # A class that overrides `eval` may leave a batch norm that counts every pass.
            moving += [(b, b.clone()) for n in networks for m in n.modules() if m.training
                       for b in m.buffers(recurse=False)]
            yield
    finally:
        for b, before in moving:
            b.copy_(before)
        for p, flag in flags:
            # The flag of such a tensor can be set there only.
            with torch.inference_mode() if p.is_inference() else nullcontext():
                p.requires_grad_(flag)


def disable_gradients() -> torch.no_grad:
    """Return `no_grad`; tensors of `inference_mode` would not count their in-place changes."""
    return torch.no_grad()


@contextmanager
def intercept_calls(modules: Iterable[nn.Module], handler: Handler) -> Iterator[None]:
    """Run `handler` in place of calls of `modules` in this context: the call and its hooks."""
    own: list[tuple[nn.Module, dict[str, Any]]] = []
    try:
        for module in modules:
            own.append((module, {k: module.__dict__[k] for k in _ENTRIES if k in module.__dict__}))
            module.__dict__.update(_shadow_entries(module, handler))
        yield
    finally:
        for module, before in reversed(own):
            for name in _ENTRIES:
                module.__dict__.pop(name, None)
            module.__dict__.update(before)


def _shadow_entries(module: nn.Module, handler: Handler) -> dict[str, Any]:
    """Return attributes of an instance that bring each of its calls to `handler` once."""
    running = 0

    def shadow(entry: Callable[..., Any], inner: bool) -> Callable[..., Any]:
        def take(*args: Any, **kwargs: Any) -> Any:
            def run() -> Any:
                nonlocal running
                running += 1
                try:
                    return entry(*args, **kwargs)
                finally:
                    running -= 1

            if not inner or not running:
                return handler(module, args, run)
            # A hook may write into the output, which `forward` itself may need for its gradient.
            keeps = module._forward_hooks and torch.is_grad_enabled()
            return convert_output(run(), Tensor.clone) if keeps else run()

        return take

    # `_call_impl` runs the hooks around `forward`. A `forward` that the user's code calls runs none.
    return {"_call_impl": shadow(module._call_impl, False), "forward": shadow(module.forward, True),
            "_compiled_call_impl": None}


@dataclass(eq=False)
class Call:
    """One call of one module in a recorded pass, with the calls in it.

    Attributes:
        index: number of earlier calls of the module.
        finished: rank of this call's end among all ends.
        axes: axes of the examples in `output`, if a dry run found them.
        versions: number of in-place changes of each tensor in `output` at the end of the call.
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
    versions: tuple[int, ...] = ()

    @property
    def id(self) -> CallId:
        return self.path, self.index

    def list_ancestors(self) -> list[Call]:
        """List the calls that contain this one, from the root down."""
        return [] if self.parent is None else [*self.parent.list_ancestors(), self.parent]


def record(network: nn.Module, inputs: Any, visit: Callable[[Call], None] | None = None, *,
           keeps: bool = True) -> Call:
    """Record every call of one full pass over a small batch, and return the root of the tree of calls.

    `visit` is called at the end of each call. Without `keeps` the calls below the root keep no tensors.
    """
    paths = {module: path for path, module in network.named_modules()}
    counts: dict[nn.Module, int] = {}
    root = Call("", 0, network, None)
    stack, ends = [root], count()

    def handler(module: nn.Module, args: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        call = Call(paths[module], counts.get(module, 0), module, stack[-1], args=args)
        counts[module] = call.index + 1
        stack[-1].children.append(call)
        stack.append(call)
        output = call.output = run()
        stack.pop()
        call.finished = next(ends)
        call.versions = tuple(count_changes(t) for t in extract_tensors(output))
        if visit is not None:
            visit(call)
        if not keeps:
            call.args, call.output = (), None
        return output

    with intercept_calls((m for m in paths if m is not network), handler):
        root.output = apply(network, inputs)
    root.versions = tuple(count_changes(t) for t in extract_tensors(root.output))
    if visit is not None:
        visit(root)
    return root


def walk(call: Call) -> Iterator[Call]:
    """Yield every call below `call`, in order of their start."""
    for child in call.children:
        yield child
        yield from walk(child)
