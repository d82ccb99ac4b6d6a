"""Passes over the same examples in other batches: where the examples lie, and what depends on the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import ExampleList, SutureError, convert_examples, convert_tensors, count_examples
from suture.networks.calls import (
    MIXED,
    Call,
    CallId,
    extract_tensors,
    record,
    walk,
)
from suture.networks.preparation import take_first
from suture.networks.sites.axis_trace import AxisTrace
from suture.networks.wrappers.eager_passes import count_changes
from suture.numbers import to_double
from suture.representations import UNKNOWN, Evidence

_INT8 = 2.0**-6
"""Rounding of integers of 8 bits, whose scale may be that of the whole batch."""
_MOST = 8
"""Largest number of examples in a pass in another order."""
_ENOUGH = 7
"""Number of examples from which on two more passes are no more than the examples."""
_TF32 = 2.0**-10
"""Rounding of a GPU's convolutions, which may be TF32 in a batch of one size and float32 in another."""


class Batchings:
    """Comparison of a recorded pass over a few examples with passes over them in other batches.

    It sets the axes of the examples in every output of the recorded pass.

    Args:
        inputs: a batch, of which `example` has the first examples.
        root: the recorded pass over `example`.
        name: name of the network in error messages.

    Attributes:
        rounds_together: True if an example depends on the others of its batch by the rounding of integers.
    """

    def __init__(self, network: nn.Module, inputs: Any, example: Any, root: Call, name: str) -> None:
        self._network, self._example, self._root, self._name = network, example, root, name
        self._few = count_examples(example)
        self._known = {c.id: c for c in (root, *walk(root))}
        self._dependent: dict[int, Call] = {}
        self._rounds, self.rounds_together = _has_integers(network), False
        self._run_other_batches(take_first(inputs, _MOST))

    def _run_other_batches(self, more: Any) -> None:
        """Run on other batches of the examples: on one, if there are few, else on a small and a large one."""
        mixed, rows = _mix_examples(more)
        output = self._root.output
        # In a list with an entry for each example, only the first ones of a batch in order are comparable.
        if count_examples(more) < _ENOUGH and not (isinstance(output, list) and len(output) == self._few):
            with suppress(Exception):  # a network that packs sequences may accept one order only
                self._try_other_batch(mixed, rows)
                return
        first = {1: [0, 0], 2: [0, 1, 0]}.get(self._few, [0, 1])
        self._try_other_batch(_pick_examples(self._example, first), first)
        with suppress(Exception):
            self._dependent |= self._compare(mixed, rows)

    def _try_other_batch(self, inputs: Any, rows: Sequence[int]) -> None:
        """Find the axes of the examples in each output, and the outputs that depend on other examples.

        Args:
            inputs: another number of examples, in another order and with others.
            rows: number of each, below 0 or above those of the recorded pass for the others.
        """
        for call in self._known.values():
            call.axes = ()
        changed: dict[int, Call] = {}

        def visit(other: Call) -> None:
            call = self._known.get(other.id)
            if call is not None:
                with self._trace.pause():
                    pairs = zip(extract_tensors(call.output), extract_tensors(other.output), strict=False)
                    call.axes = tuple(_find_axis(t, self._few, o, rows) for t, o in pairs)
                    changed.update(self._find_changed(other, rows, early=True))

        self._trace = AxisTrace(inputs)
        with self._trace:
            root = record(self._network, inputs, visit)
        self._traced = {c.id: c for c in (root, *walk(root))}
        for other in self._traced.values():
            changed |= self._find_changed(other, rows, early=False)
        self._dependent = changed

    def find_evidence(self, call: CallId, pick: Callable[[Any], Tensor | None]) -> Evidence:
        """Return what a pass shows about the axes of the tensor that `pick` takes from a call's output."""
        traced = pick(self._traced[call].output) if call in self._traced else None
        return UNKNOWN if traced is None else self._trace.get_evidence(traced)

    def _compare(self, inputs: Any, rows: Sequence[int]) -> dict[int, Call]:
        """Run on other inputs, and return the tensors of the recorded pass that change."""
        found: dict[int, Call] = {}
        record(self._network, inputs, lambda call: found.update(self._find_changed(call, rows, early=True)),
               keeps=False)
        return found

    def _find_changed(self, other: Call, rows: Sequence[int], *, early: bool) -> dict[int, Call]:
        """Find the tensors of a recorded call that differ from those of another pass, for the same examples.

        Args:
            other: the same call in a pass whose examples are those at `rows`.
            early: the call has just ended. Tensors that the recorded pass overwrote later are left out; they
                are all that is looked at otherwise.
        """
        call = self._known.get(other.id)
        found: dict[int, Call] = {}
        if call is None:
            return found
        tensors = zip(extract_tensors(call.output), extract_tensors(other.output), call.axes,
                      zip(call.versions, other.versions, strict=False), strict=False)
        for t, o, axis, versions in tensors:
            fresh = count_changes(t) == versions[0]
            # Changes in place of a tensor made in `inference_mode` are not counted.
            again = not fresh or count_changes(o) != versions[1] or o.is_inference()
            if axis in (None, MIXED) or not (fresh if early else again) or not t.is_floating_point():
                continue
            change = _measure_change(t, o, axis, self._few, rows)
            if change > 1:
                allowed = max(1.0, 8 * _INT8 / max(1e-3, 8 * torch.finfo(t.dtype).eps))
                if self._rounds and change <= allowed:
                    self.rounds_together = True
                else:
                    found[id(t)] = call
        return found

    def check(self, t: Tensor | None, what: str) -> None:
        """Check that the tensor of the recorded pass depends on its own examples only.

        Args:
            what: what the tensor is, in the error message.
        """
        if id(t) not in self._dependent:
            return
        again = self._compare(self._example, range(self._few))
        changed = again if id(t) in again else self._dependent
        first = min(changed.values(), key=lambda c: c.finished if c.parent else len(self._known))
        place = f"{first.path or 'its own forward'} ({type(first.module).__name__})"
        if id(t) in again:
            raise SutureError(f"{what} of the {self._name} is another one in each pass, first at {place}; "
                              "switch off what is random or remembers in eval mode")
        raise SutureError(f"{what} of the {self._name} for an example depends on the others of its batch, "
                          f"first at {place}; give a network that treats each alone")


def _find_axis(one: Tensor, size: int, other: Tensor, rows: Sequence[int]) -> int | None:
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


def _has_integers(network: nn.Module) -> bool:
    """Return True for a network with weights of integers."""
    return any("quantized" in type(m).__module__ for m in network.modules()) or any(
        not (p.is_floating_point() or p.is_complex()) for p in network.parameters())


def _measure_change(t: Tensor, other: Tensor, axis: int, size: int, rows: Sequence[int]) -> float:
    """Return how far two tensors differ for the examples of both, relative to what rounding may change.

    Args:
        t: of `size` examples.
        other: of the examples with the numbers `rows`.
    """
    if t.ndim != other.ndim or t.shape[axis] % size or other.shape[axis] % len(rows):
        return 0.0  # no sequence of examples there
    pairs = [(row, k) for k, row in enumerate(rows) if 0 <= row < size]
    parts = _split_examples(t, axis, size), _split_examples(other, axis, len(rows))
    picked = [p.index_select(axis, torch.tensor(k, device=p.device))
              for p, k in zip(parts, zip(*pairs, strict=True), strict=True)]
    if picked[0].shape != picked[1].shape or torch.equal(*picked):
        return 0.0
    one, two = map(to_double, picked)
    # A norm rather than a maximum, because where a network rounds, a few values may fall to the other side.
    gap = torch.linalg.vector_norm(torch.nan_to_num(one - two, 0, 0, 0))
    scale = torch.linalg.vector_norm(torch.nan_to_num(one, 0, 0, 0))
    eps = max(torch.finfo(t.dtype).eps, _TF32 if t.is_cuda else 0.0)
    return float(gap / (max(1e-3, 8 * eps) * scale + 1e-6 * one.numel() ** 0.5))


def _split_examples(t: Tensor, axis: int, size: int) -> Tensor:
    """Split the axis of the examples in two, because an example may have several entries there."""
    return t.detach().reshape(*t.shape[:axis], size, -1, *t.shape[axis + 1:])


def _mix_examples(more: Any) -> tuple[Any, list[int]]:
    """Return examples in another order and of another number than the first four, and their numbers.

    All have other neighbours, another first and another last one.
    """
    n = count_examples(more)
    if n == 1:
        return convert_examples(more, 1, _put_among_others), [-1, 0, -1, -1]
    # Of eight: 7 5 3 1 0 2 4 6.
    rows = {2: [1, 0, 0], 3: [2, 0], 4: [1, 3, 0]}.get(n, [*reversed(range(1, n, 2)), *range(0, n, 2)])
    return _pick_examples(more, rows), rows


def _put_among_others(t: Any) -> Any:
    """Put the only example second of four; its mirror image stands in for the others."""
    if isinstance(t, ExampleList):
        other = convert_tensors(t[0], lambda part: part.flip(-1) if part.ndim else part)
        return ExampleList([other, t[0], other, other])
    other = t.flip(-1) if t.ndim > 1 else t
    return torch.cat([other, t, other, other])


def _pick_examples(inputs: Any, rows: Sequence[int]) -> Any:
    size = count_examples(inputs)
    return convert_examples(inputs, size, lambda part: part[list(rows)])
