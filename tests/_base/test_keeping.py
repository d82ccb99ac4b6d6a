"""A signal is never lost, and a state that cannot be written costs one trial a minute."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from suture._base import Keeper, listen_to_signals
from suture._base.keeping.checkpoints import INTERVAL
from suture._base.keeping.interruptions import Interruption, delay_interruption

pytestmark = pytest.mark.fast


def test_a_signal_after_the_last_step_ends_the_run_when_the_pass_ends() -> None:
    passed: list[str] = []

    def run() -> None:
        with listen_to_signals():
            with delay_interruption():
                with delay_interruption():
                    os.kill(os.getpid(), signal.SIGTERM)
                    passed.append("inner block")
                passed.append("outer block")
            passed.append("the rest of the run")

    with pytest.raises(Interruption) as caught:
        run()
    assert (passed, caught.value.number) == (["inner block", "outer block"], signal.SIGTERM)


def test_a_signal_beside_an_error_does_not_end_a_later_run(tmp_path: Path) -> None:
    def fail() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise KeyError

    with pytest.raises(KeyError), listen_to_signals(), delay_interruption():
        fail()
    with Keeper(tmp_path).keep("a pass", {}) as kept:
        kept.step(1)


def test_a_state_of_foreign_code_is_not_tried_again_after_every_batch(tmp_path: Path) -> None:
    tried: list[int] = []
    keeper = Keeper(tmp_path)
    keeper._saved -= 2 * INTERVAL
    with keeper.keep("a pass", {"foreign": object()}, shorten=lambda: tried.append(1)) as kept:
        for k in range(5):
            kept.step(k)
    assert tried == [1]
    assert os.listdir(tmp_path) == []
