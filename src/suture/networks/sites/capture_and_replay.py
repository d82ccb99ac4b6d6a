"""Forward passes that capture outputs of calls, and replays that run only a network's tail."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from suture._base import SharedChange, SutureError, count_examples
from suture.networks.arguments import apply, repeat_inputs
from suture.networks.calls import (
    Axes,
    Call,
    CallId,
    convert_output,
    dequantise,
    extract_tensors,
    intercept_calls,
    repeat_examples,
)
from suture.networks.sites.site import Site
from suture.networks.wrappers.eager_passes import count_changes

_GENERATOR = "_checkpoint_without_reentrant_generator"


@dataclass(frozen=True)
class RecordedPass:
    """Record of one pass over `size` examples; `output` is None if the pass stopped early."""

    inputs: Any
    output: Any
    results: dict[CallId, Any]
    size: int


class _Stop(BaseException):
    """Signal that ends a forward pass early. It is no `Exception`, which a network's code may catch."""


def capture_calls(network: nn.Module, inputs: Any, calls: Collection[CallId], volatile: set[CallId], *,
                  stop: bool = False) -> RecordedPass:
    """Run one forward pass and remember the output of each chosen call as it is when the call ends.

    Outputs of `volatile` calls are overwritten in place later in the pass, so they are cloned. A pass that
    finds new volatile calls adds them and runs again. `stop` ends the pass after the last of the calls.
    """
    for _ in range(2):
        done, versions = _run_once(network, inputs, calls, volatile, stop)
        changed = _find_changed(versions)
        if not changed:
            return done
        volatile |= changed
    raise SutureError(f"{type(network).__name__}.forward overwrites {sorted(changed)} differently in each "
                      "pass; make it do the same on the same input")


Versions = dict[CallId, list[tuple[Tensor, int]]]
"""Tensors in the output of each call, with the number of in-place changes that each has seen."""


def _find_changed(versions: Versions) -> set[CallId]:
    return {i for i, pairs in versions.items() if any(count_changes(t) != v for t, v in pairs)}


def _list_versions(output: Any) -> list[tuple[Tensor, int]]:
    return [(t, count_changes(t)) for t in extract_tensors(output)]


def _run_once(network: nn.Module, inputs: Any, calls: Collection[CallId], volatile: set[CallId],
              stop: bool) -> tuple[RecordedPass, Versions]:
    paths = {network.get_submodule(path): path for path, _ in calls}
    counts: dict[str, int] = {}
    results: dict[CallId, Any] = {}
    versions: Versions = {}

    def handler(module: nn.Module, args: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        path = paths[module]
        call = (path, counts.get(path, 0))
        counts[path] = call[1] + 1
        output = run()
        if call not in calls:
            return output
        if call in volatile:
            results[call] = convert_output(output, Tensor.clone)
        else:
            # A new container, because the forward pass may later write into the one it was given.
            results[call] = convert_output(output, lambda t: t)
            versions[call] = _list_versions(output)
        # While an exporter traces the calls, none of them may end by an exception.
        if stop and len(results) == len(calls) and not torch.compiler.is_compiling():
            raise _Stop
        return output

    output = None
    with intercept_calls(paths, handler), suppress(_Stop):
        output = apply(network, inputs)
    if missing := set(calls) - results.keys():
        path, index = min(missing)
        raise SutureError(f"expected {index + 1} calls of module {path!r} in each batch, got "
                          f"{counts.get(path, 0)}; choose sites that every batch reaches")
    return RecordedPass(inputs, output, results, count_examples(inputs)), versions


@contextmanager
def _run_checkpoints_once() -> Iterator[None]:
    """Run checkpointed code once: its second run, in the backward pass, would not be intercepted."""
    before = {name: getattr(checkpoint, name) for name in ("CheckpointFunction", _GENERATOR)}
    try:
        checkpoint.CheckpointFunction = _PlainFunction  # type: ignore[misc, assignment]
        setattr(checkpoint, _GENERATOR, _yield_once)
        yield
    finally:
        for name, value in before.items():
            setattr(checkpoint, name, value)


PLAIN_CHECKPOINTS = SharedChange(_run_checkpoints_once)


class _PlainFunction:
    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args)


def _yield_once(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


@dataclass(frozen=True)
class ReplayPlan:
    """Plan of a replay from a site.

    Attributes:
        calls: modules and their calls up to the site, in order.
        entered: those of the calls that contain the site, so that the replay runs them.
        axes: axes of the examples in the outputs of the calls.
        used: calls whose values bypass the site; of the others only shapes are read. None: unknown.
        axis: axis of the examples in the tensor at the site.
    """

    site: Site
    calls: tuple[tuple[nn.Module, CallId], ...]
    entered: frozenset[CallId]
    axes: Mapping[CallId, Axes]
    used: frozenset[CallId] | None = None
    axis: int = 0

    @classmethod
    def of(cls, site: Site, call: Call) -> ReplayPlan:
        """Make the plan for a site that is the output of `call`."""
        above = call.list_ancestors()
        calls = [c for parent, heir in pairwise([*above, call])
                 for c in parent.children[:parent.children.index(heir) + 1]]
        known = zip(extract_tensors(call.output), call.axes, strict=False)
        axis = next((axis for t, axis in known if t is site.pick(call.output)), 0)
        return cls(site, tuple((c.module, c.id) for c in calls), frozenset(c.id for c in above[1:]),
                   {c.id: c.axes for c in calls}, axis=axis or 0)

    def read(self, output: Any) -> Tensor | None:
        """Return the representation (N, ...) in what the site's module returned, or None."""
        x, entry = self.site.locate(output)
        if x is None:
            return None
        axis = self.axis if entry is None else self.axis - 1
        x = x if entry is None else x[entry]
        return x.movedim(axis, 0) if 0 < axis < x.ndim else x

    def write(self, whole: Tensor, entry: int | None, x: Tensor, copies: int) -> Tensor:
        """Return the tensor `whole` at the site, for `copies` of its examples, with `x` in its place."""
        if entry is None:
            return x.movedim(0, self.axis).contiguous()
        made = whole.repeat(*(copies if d == self.axis else 1 for d in range(whole.ndim))).clone()
        made[entry] = x.movedim(0, self.axis - 1)
        return made

    @property
    def remembered(self) -> set[CallId]:
        """Calls whose outputs a replay needs."""
        return {i for _, i in self.calls} - self.entered


def replay(network: nn.Module, plan: ReplayPlan, x: Tensor, done: RecordedPass, volatile: set[CallId]) -> Any:
    """Compute the network's output with `x` in place of a site's representation.

    Args:
        x: (k N, ...) representations for k concatenated copies of the N examples of `done`.
        done: a full pass over the N examples, with the outputs that the replay reuses.
        volatile: calls whose outputs are overwritten in place; each replay gets its own copy.
    """
    copies, rest = divmod(len(x), done.size)
    if rest:
        raise SutureError(f"expected a multiple of {done.size} representations for site {str(plan.site)!r}, "
                          f"got {len(x)}; concatenate whole batches")
    position = 0

    def handler(module: nn.Module, args: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        nonlocal position
        if position == len(plan.calls):
            return run()
        expected, call = plan.calls[position]
        if expected is not module:
            raise SutureError(f"expected a call of {call[0]!r} before site {str(plan.site)!r}, got another; "
                              "make the forward call the same modules in the same order")
        position += 1
        if call in plan.entered:
            return run()
        if call == plan.site.id:
            return _replace_representation(plan, x, done, copies)
        output = done.results[call]
        if call in volatile:
            output = convert_output(output, Tensor.clone)
        shallow = plan.used is not None and call not in plan.used and call not in volatile
        return repeat_examples(output, copies, done.size, plan.axes[call], shallow=shallow)

    hooked = [m for m in network.modules() if m._forward_hooks and m is not network]
    taken = dict.fromkeys([*(m for m, _ in plan.calls), *hooked])
    with intercept_calls(taken, handler), PLAIN_CHECKPOINTS.hold():
        return apply(network, repeat_inputs(done.inputs, copies, done.size))


def _replace_representation(plan: ReplayPlan, x: Tensor, done: RecordedPass, copies: int) -> Any:
    output = done.results[plan.site.id]
    own, entry = plan.site.locate(output)
    assert own is not None
    if plan.axis or entry is not None:
        x = plan.write(dequantise(own), entry, x, copies)
    if own.is_quantized:
        x = _quantise_like(x, own)
    elif x.ndim == 4:
        # A forward pass that calls `.view` on a map relies on the layout that its own modules return.
        x = _match_layout(x, own)
    return repeat_examples(output, copies, done.size, plan.axes[plan.site.id], instead=(own, x))


def _quantise_like(x: Tensor, own: Tensor) -> Tensor:
    if own.qscheme() not in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        raise SutureError("expected a representation with one scale, got one for each channel; choose "
                          "another site")
    return torch.quantize_per_tensor(x, own.q_scale(), own.q_zero_point(), own.dtype)


def _match_layout(x: Tensor, like: Tensor) -> Tensor:
    """Bring `x` into the memory layout of `like`, if that layout has no gaps."""
    order = sorted(range(like.ndim), key=like.stride, reverse=True)
    if like.is_contiguous() or not like.permute(order).is_contiguous():
        return x.contiguous()
    return x.permute(order).contiguous().permute([order.index(d) for d in range(like.ndim)])
