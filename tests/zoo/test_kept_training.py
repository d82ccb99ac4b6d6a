"""A training that is stopped goes on to the weights of an unbroken one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from suture import SutureError, zoo
from suture.networks import Recipe
from suture.zoo import train_and_save
from tests.support.tiny import small_digits

RECIPE = Recipe(epochs=3, batch_size=16, crop=1, schedule="onecycle")


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if done == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    threads, out = torch.get_num_threads(), tmp_path / "w.safetensors"
    torch.set_num_threads(1)
    try:
        whole, report = zoo.train_network("resnet_digits", 0, RECIPE, small_digits())
        with pytest.raises(KeyboardInterrupt, match=r"kept in .*checkpoint-train"):
            train_and_save("resnet_digits", out, 0, RECIPE, small_digits(), stop)
        assert os.listdir(tmp_path) == ["w.safetensors.checkpoint-train"]
        with pytest.raises(SutureError, match="restart"):
            train_and_save("resnet_digits", out, 1, RECIPE, small_digits())
        made, again = train_and_save("resnet_digits", out, 0, RECIPE, small_digits())
    finally:
        torch.set_num_threads(threads)
    assert again.history == report.history
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), made.state_dict().values(),
                                                  strict=True))
    assert os.listdir(tmp_path) == ["w.safetensors"]
