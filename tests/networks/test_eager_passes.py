"""Passes inside `torch.inference_mode`, and passes of several threads at once."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import checkpoint

import suture
from suture import TaskRecipe
from suture._base import SharedChange, exact_products
from suture.networks.arguments import apply
from suture.networks.sites.capture_and_replay import PLAIN_CHECKPOINTS
from tests.support import tiny

X = tiny.images(8)
DATA = X, torch.arange(8) % 3
CALLS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "find_sites": suture.find_sites, "capture": lambda net, x: suture.capture(net, x)["block2"],
    "run_tail": lambda net, x: suture.run_tail(net, x, "block1", torch.ones(8, 3, 6, 6)),
    "dry_run": lambda net, x: suture.dry_run(
        net, None, (x, DATA[1]), device="cpu", ood=None, methods=["dm"]).source,
    "compare": lambda net, x: suture.compare(
        net, None, (x, DATA[1]), device="cpu", ood=None, indices=["cka"], methods=["tlm"],
        tlm=TaskRecipe(epochs=1)).matrix("tlm.accuracy").values}


@pytest.mark.parametrize("made_there", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_inference_mode_around_a_call_changes_nothing(call: str, made_there: bool) -> None:
    wanted = CALLS[call](tiny.network(), X)
    net = tiny.network()
    with torch.inference_mode():
        found = CALLS[call](*((tiny.network(), X.clone()) if made_there else (net, X)))
        assert torch.is_inference_mode_enabled()
    assert str(found) == str(wanted)


def test_a_network_made_in_inference_mode_runs_outside_of_it_and_keeps_its_flags() -> None:
    with torch.inference_mode():
        net, x = tiny.network(), X.clone()
    torch.testing.assert_close(suture.capture(net, x), suture.capture(tiny.network(), X))
    assert all(p.requires_grad for p in net.parameters())


def test_task_loss_matching_trains_where_the_caller_computes_no_gradients() -> None:
    with torch.no_grad():
        found = CALLS["compare"](tiny.network(), X)
    assert str(found) == str(CALLS["compare"](tiny.network(), X))


class Waiting(nn.Module):
    """Runs its own inference mode between two signals, and says if that mode was on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.may_end, self.mode = Event(), Event(), True

    def forward(self, x: Tensor) -> Tensor:
        self.begun.set()
        assert self.may_end.wait(30)
        with torch.inference_mode():
            self.mode = torch.is_inference_mode_enabled()
        return x


def test_passes_of_two_threads_leave_inference_mode_as_it_was() -> None:
    before = torch.inference_mode.__enter__
    first, second = Waiting(), Waiting()
    threads = [Thread(target=apply, args=(net, X)) for net in (first, second)]
    for net, thread in zip((first, second), threads, strict=True):
        thread.start()
        assert net.begun.wait(30)
    with torch.inference_mode():
        assert torch.is_inference_mode_enabled()  # in a thread without a pass
    for net, thread in zip((first, second), threads, strict=True):
        net.may_end.set()
        thread.join(30)
    assert not first.mode
    assert not second.mode
    assert torch.inference_mode.__enter__ is before


def read_precision() -> object:
    matmul = torch.backends.cuda.matmul
    return matmul.fp32_precision if hasattr(matmul, "fp32_precision") else matmul.allow_tf32


@pytest.mark.parametrize(("enter", "read"), [
    (PLAIN_CHECKPOINTS.hold, lambda: checkpoint.CheckpointFunction), (exact_products, read_precision)])
def test_a_change_ends_with_the_last_thread_that_needs_it(
        enter: Callable[[], Any], read: Callable[[], object]) -> None:
    before = read()
    one, other = enter(), enter()
    one.__enter__()
    changed = read()
    other.__enter__()
    one.__exit__(None, None, None)
    assert read() == changed
    other.__exit__(None, None, None)
    assert read() == before


def test_a_shared_change_that_fails_is_made_again() -> None:
    def fail() -> Any:
        raise ValueError("again")

    change = SharedChange(fail)
    for _ in range(2):
        with pytest.raises(ValueError, match="again"), change.hold():
            pass
