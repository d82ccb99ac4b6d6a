"""Laws of a network at its sites: front and tail make up the network, and running them leaves no trace."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, checked, convert_examples, count_examples, walk_tensors
from suture.networks import (
    Network,
    SitedNetwork,
    SiteSpec,
    disable_gradients,
    extract_main_output,
    find_device,
    prepare,
)
from suture.testing.laws import Law, LawBook, check_close, law


@checked
def site_laws(network: Network, inputs: Any, sites: SiteSpec = "**") -> list[Law]:
    """Return the laws that a network must keep for its comparisons to be valid.

    Args:
        network: any network; a private copy runs, in eval mode.
        inputs: at least four examples, as the network accepts them.
        sites: sites to check. Default: every possible one.
    """
    try:
        return _SiteLaws(network, inputs, sites).list_laws()
    except SutureError as error:
        return [Law("sites", "The network can be cut at these sites.", partial(_report_refusal, str(error)))]


class _SiteLaws(LawBook):
    def __init__(self, network: nn.Module, inputs: Any, sites: SiteSpec) -> None:
        super().__init__()
        self._network, self._inputs, self._before = network, inputs, _copy_state(network)
        self._copy = prepare(network, inputs, find_device("cpu"), "network")
        self._sited = SitedNetwork(self._copy, inputs, sites, allow_bypass=True, name="network")
        for k, info in enumerate(self._sited.infos):
            self.vary(f"tail after {info.site}", "The tail of the front is the network.", self._check_tail, k)

    def _run(self, inputs: Any) -> Tensor:
        with disable_gradients():
            return _pick_output(self._sited.run_full(inputs).output)

    @law("The same inputs give the same output.")
    def same_output(self) -> None:
        check_close(self._run(self._inputs), self._run(self._inputs), "Outputs")

    @law("The output for an example does not depend on the others of its batch.")
    def examples_alone(self) -> None:
        whole, n = self._run(self._inputs), count_examples(self._inputs)
        for rows in (slice(0, 1), slice(1, n)):
            def cut(part: Any, rows: slice = rows) -> Any:
                return part[rows]

            check_close(self._run(convert_examples(self._inputs, n, cut)), whole[rows], "Outputs")

    @law("The network is as it was: weights, buffers, modes, gradients and hooks.")
    def no_trace(self) -> None:
        self._run(self._inputs)
        after = _copy_state(self._network)
        changed = [name for name, was in self._before.items() if not _is_same(was, after.get(name))]
        assert not changed, f"Changed: {', '.join(changed[:5])}."
        left = _count_hooks(self._copy) - after["hooks"]
        assert not left, f"{left} hooks are left on the copy."

    def _check_tail(self, k: int) -> None:
        with disable_gradients():
            done = self._sited.run_full(self._inputs)
            x = self._sited.front(self._inputs)[k]
            kept = x.clone()
            check_close(_pick_output(self._sited.tail(k, x, done)), _pick_output(done.output), "Outputs")
        assert torch.equal(x, kept), "The tail overwrites the representation that it is given."


def _report_refusal(reason: str) -> None:
    raise AssertionError(reason)


def _pick_output(output: Any) -> Tensor:
    found = extract_main_output(output)
    return (next(walk_tensors(output)) if found is None else found).float()


def _copy_state(network: nn.Module) -> dict[str, Any]:
    """Return all that a comparison could change in a network."""
    state: dict[str, Any] = {name: t.detach().clone() for name, t in network.state_dict().items()
                             if isinstance(t, Tensor)}
    state |= {f"mode of {name or 'the network'}": m.training for name, m in network.named_modules()}
    state |= {f"gradient of {name}": p.requires_grad for name, p in network.named_parameters()}
    return state | {"hooks": _count_hooks(network)}


def _count_hooks(network: nn.Module) -> int:
    return sum(len(hooks) for m in network.modules() for hooks in (m._forward_hooks, m._forward_pre_hooks))


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    return bool(one == other)
