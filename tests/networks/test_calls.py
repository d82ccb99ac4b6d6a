"""Calls of modules: recorded in order, intercepted, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suture.networks.calls import apply, freeze, intercept_calls, record, walk
from tests.support.states import same_state, state_of
from tests.support.tiny import images, network, seeded


class Twice(nn.Module):
    """Calls one module twice, inside another."""

    def __init__(self) -> None:
        super().__init__()
        self.outer = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.outer(self.outer(x)))


def test_every_call_is_recorded_with_its_parent_and_its_rank() -> None:
    root = record(seeded(Twice), torch.ones(2, 3))
    calls = list(walk(root))
    assert [c.id for c in calls] == [("outer", 0), ("outer.0", 0), ("outer.1", 0),
                                     ("outer", 1), ("outer.0", 1), ("outer.1", 1), ("last", 0)]
    assert [c.finished for c in calls] == [2, 0, 1, 5, 3, 4, 6]
    assert [a.id for a in calls[4].list_ancestors()] == [("", 0), ("outer", 1)]
    assert calls[3].args[0] is calls[0].output
    assert root.output is calls[-1].output


@pytest.mark.parametrize("inputs", [torch.ones(2, 3), (torch.ones(2, 3),), {"x": torch.ones(2, 3)}])
def test_a_network_is_called_on_tensors_tuples_and_mappings(inputs: Any) -> None:
    made = seeded(Twice)
    assert torch.equal(apply(made, inputs), made(torch.ones(2, 3)))


def test_intercepted_calls_are_replaced_and_restored_also_after_an_error() -> None:
    made = seeded(Twice)
    kept = made.last.forward
    made.last.forward = lambda x: kept(x) + 1  # a forward on the instance, which must come back
    before, wanted = state_of(made), made(torch.ones(2, 3))
    seen: list[Tensor] = []

    def handler(module: nn.Module, args: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        seen.append(args[0])
        return 2 * run()

    with intercept_calls([made.last], handler):
        assert torch.equal(made(torch.ones(2, 3)), 2 * wanted)
    assert len(seen) == 1
    with pytest.raises(RuntimeError), intercept_calls([made.last, made.outer], handler):
        made(torch.ones(2, 4))
    assert same_state(before, state_of(made))
    assert torch.equal(made(torch.ones(2, 3)), wanted)


def test_frozen_networks_are_in_eval_mode_and_come_back() -> None:
    made = network().train()
    made.block1.eval()
    made.head.weight.requires_grad_(False)
    before = state_of(made)
    with freeze(made):
        assert not any(m.training for m in made.modules())
        assert not made(images(2)).requires_grad
    assert same_state(before, state_of(made))
