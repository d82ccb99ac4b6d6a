"""Captures: forward passes that remember the outputs of chosen calls."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, count_examples
from suture.networks.calls import CallId, apply, intercept_calls
from suture.networks.module_outputs import convert_output, extract_tensors


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
        changed = find_changed(versions)
        if not changed:
            return done
        volatile |= changed
    raise SutureError(f"{type(network).__name__}.forward overwrites {sorted(changed)} differently in each "
                      "pass; make it do the same on the same input")


Versions = dict[CallId, list[tuple[Tensor, int]]]
"""Tensors in the output of each call, with the number of in-place changes that each has seen."""


def find_changed(versions: Versions) -> set[CallId]:
    return {i for i, pairs in versions.items() if any(t._version != v for t, v in pairs)}


def list_versions(output: Any) -> list[tuple[Tensor, int]]:
    return [(t, t._version) for t in extract_tensors(output)]


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
            versions[call] = list_versions(output)
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
