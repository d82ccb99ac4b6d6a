"""Passes that remember what chosen modules return, and replays that run a network again from a site.

A replay runs only what comes after a site. It runs the network's own Python code again. Modules that finished
before the site return what they returned in a full pass over the same batch, and the site returns the given
tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError
from suture.networks.calls import Call, CallId, apply, intercept_calls
from suture.networks.module_outputs import Axes, convert_output, extract_tensors, repeat_examples


@dataclass
class RecordedPass:
    """Record of one pass over a batch: inputs, output (None if it stopped early) and remembered results."""

    inputs: Any
    output: Any
    results: dict[CallId, Any]
    size: int


class _Stop(BaseException):
    """Signal that ends a forward pass early.

    It is not an Exception, so that a network's own `except Exception` lets it through.
    """


class CallRecorder:
    """Recorder of chosen calls of chosen modules. It is made once and run on every batch.

    Args:
        network: the network.
        calls: the calls to remember, for each module path.
        volatile: calls whose result is overwritten in place later in the forward pass. They are cloned at
            once. The set grows when a pass finds another one.
    """

    def __init__(self, network: nn.Module, calls: Iterable[CallId], volatile: set[CallId]) -> None:
        self.network, self.volatile = network, volatile
        self._calls = set(calls)
        self._modules = {network.get_submodule(path): path for path, _ in self._calls}

    def run(self, inputs: Any, size: int, *, stop: bool = False) -> RecordedPass:
        """Run one forward pass; with ``stop=True`` it ends after the last call to remember."""
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
                    # A new container, because the forward pass may later write into the one it was given.
                    results[call] = convert_output(output, lambda t: t)
                    versions[call] = [(t, t._version) for t in extract_tensors(output)]
                # While an exporter traces the calls, none of them may end by an exception.
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


class ReplayAction(Enum):
    """Action of a replay at a call that comes before the end of the site."""

    ENTER = 0
    RETURN = 1
    SITE = 2


@dataclass(frozen=True)
class ReplayPlan:
    """Plan of a replay: for each call until the site, in order, what happens to it.

    A call is entered, or returns what it returned, or is the site. `axes` are those of the results, where
    `find_axes` found them.
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


def replay(network: nn.Module, plan: ReplayPlan, done: RecordedPass, site_output: Any, *,
           volatile: set[CallId], copies: int = 1, used: set[CallId] | None = None) -> Any:
    """Run what comes after a site, given what the site is to return.

    Args:
        network: the network.
        plan: plan of the site's replay.
        done: a full pass over the same inputs.
        site_output: result in place of the site's own, for ``copies * done.size`` examples.
        volatile: calls whose results are overwritten in place; each replay gets its own copy.
        copies: number of batches concatenated in `site_output`; remembered results are repeated as often.
        used: calls whose *values* matter after the site (a path around it). If it is given, the results of
            other calls are expanded without copying, because only their shapes are read.
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
