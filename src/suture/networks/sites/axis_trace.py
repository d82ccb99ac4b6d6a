"""The axis of the channels of every tensor in a forward pass, followed from operation to operation."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from suture._base import walk_tensors
from suture.representations import NO_CHANNELS, Evidence

Rule = Callable[["AxisTrace", Tensor, Tensor, "Operation"], "int | None"]
"""Function of the trace, an output, the first input and the operation -> axis of the output's channels."""


class Operation:
    """One call of a function of torch: its name, and its arguments by position or name."""

    def __init__(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.name: str = getattr(func, "__name__", "")
        if self.name == "__get__":  # of a property such as Tensor.T
            self.name = getattr(getattr(func, "__self__", None), "__name__", "")

    def get(self, k: int, name: str) -> Any:
        """Return the argument number `k`, which may be given by name; None without it."""
        return self.args[k] if len(self.args) > k else self.kwargs.get(name)


class PausableMode(TorchFunctionMode):
    """A context that looks at operations, but for those in a pause."""

    def __init__(self) -> None:
        super().__init__()
        self._pauses = False

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Look at nothing while the context is open."""
        self._pauses = True
        try:
            yield
        finally:
            self._pauses = False


class AxisTrace(PausableMode):
    """A context in which operations show where the channels of each tensor are.

    A convolution has its channels on axis 1, a linear layer on the last axis. Norms and pools confirm this
    where nothing is known. A transposition moves them, and what keeps the axes keeps them. An operation along
    positions, such as a linear layer over the time of a map (N, C, T), leaves the channels where they are.
    """

    def __init__(self, inputs: Any) -> None:
        super().__init__()
        self._channels: Any = WeakTensorKeyDictionary()
        self._merged: dict[int, set[tuple[int, ...]]] = {}
        self._has_signals = False
        for t in walk_tensors(inputs):
            if t.ndim == 4 and t.is_floating_point():
                self._channels[t] = 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if self._pauses:
            return found
        made = [t for t in (found if isinstance(found, tuple | list) else [found]) if isinstance(t, Tensor)]
        given = next(walk_arguments(args, kwargs), None) if made else None
        if given is not None:
            step = Operation(func, args, kwargs)
            rule = _find_rule(step.name)
            for t in made:
                axis = rule(self, t, given, step)
                if axis is not None and t.ndim:
                    self._channels[t] = axis
                    self._has_signals |= t.ndim == 3 and axis == 1 and rule in (_convolve, _confirm_first)
        return found

    def get(self, x: Tensor) -> int | None:
        """Return the axis of the channels of a tensor, `NO_CHANNELS`, or None if it is unknown."""
        found: int | None = self._channels.get(x)
        return found

    def get_evidence(self, x: Tensor) -> Evidence:
        """Return what the pass shows about a representation."""
        return Evidence(self.get(x), self._merged, self._has_signals)

    def add_merged(self, count: int, sizes: tuple[int, ...] = ()) -> None:
        """Remember that axes of these sizes became `count` positions; (): patches cut from an image."""
        self._merged.setdefault(count, set()).add(sizes)


def walk_arguments(args: Any, kwargs: Any) -> Iterator[Tensor]:
    for value in (*args, *kwargs.values()):
        for t in value if isinstance(value, tuple | list) else (value,):
            if isinstance(t, Tensor):
                yield t


def _keep_axis(trace: AxisTrace, out: Tensor, x: Tensor, step: Operation) -> int | None:
    known = [a for t in walk_arguments(step.args, step.kwargs)
             if t.ndim == out.ndim and (a := trace.get(t)) is not None]
    return max(known, default=None)


def _mix_last(trace: AxisTrace, out: Tensor, x: Tensor, step: Operation) -> int | None:
    """A linear layer: it mixes positions where the channels are on another axis."""
    axis = trace.get(x)
    return axis if axis is not None and 0 < axis < out.ndim - 1 and x.ndim == out.ndim else out.ndim - 1


def _make_last(trace: AxisTrace, out: Tensor, x: Tensor, step: Operation) -> int | None:
    return out.ndim - 1


def _convolve(trace: AxisTrace, out: Tensor, x: Tensor, step: Operation) -> int | None:
    """A convolution; one of kernel size 1 over the positions of tokens (N, T, D) mixes these."""
    axis, kernel = trace.get(x), step.get(1, "weight")
    return axis if axis == out.ndim - 1 and math.prod(kernel.shape[2:]) == 1 else 1


def _confirm_first(trace: AxisTrace, out: Tensor, x: Tensor, step: Operation) -> int | None:
    known = _keep_axis(trace, out, x, step)
    return 1 if known is None and out.ndim > 1 else known


def _confirm_last(trace: AxisTrace, out: Tensor, x: Tensor, step: Operation) -> int | None:
    known = _keep_axis(trace, out, x, step)
    return out.ndim - 1 if known is None and len(step.get(1, "normalized_shape")) == 1 else known


def _move(trace: AxisTrace, out: Tensor, x: Tensor, step: Operation) -> int | None:
    """A transposition: tried on shapes alone, the axis shows where it goes."""
    axis = trace.get(x)
    if axis is None or axis == NO_CHANNELS:
        return axis if out.ndim == x.ndim else None
    # Reductions without data import PyTorch's compiler, which takes seconds.
    reduces = step.name in _REDUCTIONS.split() and not isinstance(step.get(1, ""), Tensor)
    size, device = (2, "cpu") if reduces else (64, "meta")
    try:
        sizes = [[size + (longer and k == axis) for k in range(x.ndim)] for longer in (False, True)]
        shapes = [next(walk_tensors(_apply(step, torch.zeros(s, device=device)))).shape for s in sizes]
    except Exception:  # an index that is a tensor, for example: nothing is known then
        return None
    return next((k for k, (n, m) in enumerate(zip(*shapes, strict=True)) if n != m), None)


def _reduce(trace: AxisTrace, out: Tensor, x: Tensor, step: Operation) -> int | None:
    """A mean over axes or an index, which may leave out axes but moves none."""
    return _keep_axis(trace, out, x, step) if out.ndim == x.ndim else _move(trace, out, x, step)


def _apply(step: Operation, x: Tensor) -> Any:
    if step.func.__name__ == "__get__":
        return step.func(x)
    return step.func(x, *step.args[1:], **{k: v for k, v in step.kwargs.items() if not isinstance(v, Tensor)})


def _regroup(trace: AxisTrace, out: Tensor, x: Tensor, step: Operation) -> int | None:
    """A reshape: the axis stays if the axes before it have as many elements."""
    axis, found = trace.get(x), None
    before = [math.prod(x.shape[:k]) for k in range(x.ndim + 1)]
    for j in range(1, out.ndim):
        start = math.prod(out.shape[:j])
        if axis is not None and axis > 0 and (before[axis], x.shape[axis]) == (start, out.shape[j]):
            found = j if found is None else found
        ends = next(((i, k) for i in range(1, x.ndim) for k in range(i + 2, x.ndim + 1)
                     if before[i] == start and before[k] == start * out.shape[j]), None)
        # Without channels, axes further behind may be heads and their dimensions.
        if ends and (ends[0] == 1 < out.ndim - 1 if axis is None else not ends[0] <= axis < ends[1]):
            trace.add_merged(out.shape[j], tuple(x.shape[slice(*ends)]))
    return found


def _unfold(trace: AxisTrace, out: Tensor, x: Tensor, step: Operation) -> int | None:
    """Patches of an image (N, C k k, L), or windows of one axis as a new last axis."""
    if x.ndim == 4 and out.ndim == 3:
        trace.add_merged(out.shape[2])
        return 1
    return trace.get(x)


def _stack(trace: AxisTrace, out: Tensor, x: Tensor, step: Operation) -> int | None:
    axis, at = trace.get(x), step.get(1, "dim") or 0
    return axis if axis is None or axis < at % out.ndim else axis + 1


def _multiply(trace: AxisTrace, out: Tensor, x: Tensor, step: Operation) -> int | None:
    """A product of two tensors, of which one may be a weight."""
    *_, x, y = walk_arguments(step.args, step.kwargs)
    first, second, rows = trace.get(x), trace.get(y), out.ndim - 2
    if step.name == "__rmatmul__":
        x, y, first, second = y, x, second, first
    if y.ndim <= 2 < x.ndim or x.ndim == y.ndim == 2:
        return first if first is not None and 0 < first < out.ndim - 1 else out.ndim - 1
    if x.ndim <= 2:
        return out.ndim - 1 if second == out.ndim - 1 else rows
    return out.ndim - 1 if second == out.ndim - 1 else rows if first == rows else NO_CHANNELS


def _attend(trace: AxisTrace, out: Tensor, x: Tensor, step: Operation) -> int | None:
    axis = trace.get(step.get(2, "value"))
    return NO_CHANNELS if axis is None else axis


def _contract(trace: AxisTrace, out: Tensor, x: Tensor, step: Operation) -> int | None:
    """An einsum: the channels are the axis that a weight alone has, else where they were."""
    if not isinstance(step.args[0], str) or "." in step.args[0]:
        return None
    *terms, result = re.split(",|->", step.args[0].replace(" ", ""))
    tensors = list(walk_arguments(step.args, step.kwargs))
    if len(result) != out.ndim or len(terms) != len(tensors):
        return None
    shared = {a for term in terms if result[0] in term for a in term}
    own = [k for k, a in enumerate(result) if a not in shared]
    kept = [result.index(term[axis]) for term, t in zip(terms, tensors, strict=True)
            if (axis := trace.get(t)) is not None and axis > 0 and term[axis] in result]
    return own[0] if len(own) == 1 else kept[0] if kept else NO_CHANNELS


def _forget(trace: AxisTrace, out: Tensor, x: Tensor, step: Operation) -> int | None:
    return None


_REDUCTIONS = "mean sum amax amin max min prod var std norm logsumexp median"
_RULES: dict[Rule, str] = {
    _mix_last: "linear bilinear",
    _make_last: "embedding lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell "
                "multi_head_attention_forward",
    _confirm_first: "batch_norm group_norm instance_norm local_response_norm interpolate "
                    "fold",
    _confirm_last: "layer_norm rms_norm",
    _move: "transpose transpose_ swapaxes swapdims t T mT H mH adjoint permute movedim moveaxis",
    _reduce: f"select unbind __getitem__ {_REDUCTIONS}",
    _regroup: "reshape view flatten unflatten squeeze unsqueeze view_as reshape_as",
    _unfold: "unfold", _stack: "stack", _contract: "einsum",
    _multiply: "matmul __matmul__ __rmatmul__ mm bmm addmm baddbmm",
    _attend: "scaled_dot_product_attention", _forget: "cdist tensordot outer gather take",
}
_BY_NAME: dict[str, Rule] = {name: rule for rule, names in _RULES.items() for name in names.split()}


def _find_rule(name: str) -> Rule:
    if re.fullmatch(r"conv(_transpose)?[123]d", name):
        return _convolve
    return _confirm_first if "pool" in name else _BY_NAME.get(name, _keep_axis)
