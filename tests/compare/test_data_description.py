"""What a result says of its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import suture
from suture import Prepared
from suture.compare.opened_data import describe_data
from suture.data import ImagePreprocessing, sources
from tests.support import tiny


@dataclass(frozen=True)
class Scaled:
    """Divide by a number."""

    by: float

    def __call__(self, raw: Tensor) -> Tensor:
        return raw.float() / self.by


def test_a_result_names_its_data_and_how_they_were_prepared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, n in (("train", 24), ("test", 12)):
        np.savez(tmp_path / f"{split}.npz", x=rng.integers(0, 255, (n, 8, 8, 3), np.uint8),
                 y=np.arange(n) % 3)
    train, test = sources.open_pair(tmp_path)
    how = ImagePreprocessing(mean=(0.5,), std=(0.5,))

    def run(data: Any, other: Any) -> suture.Comparison:
        return suture.compare(tiny.seeded(lambda: tiny.Tiny(3)), None, data, other, methods=["dm"], ood=None,
                              device="cpu")

    found = run(Prepared(train, how), Prepared(test, how))
    data = found.meta["data"]
    assert data["fit"]["name"] == train.name
    assert data["fit"]["examples"] == 24
    assert data["test"]["fingerprint"] == test.fingerprint
    assert data["test"]["prepared"] == [repr(how)] * 2
    other = run(Prepared(train.part(torch.arange(23, -1, -1), train.name), how), Prepared(test, how)).meta
    assert other["data"]["fit"]["content"] == data["fit"]["content"]
    assert other["data"]["fit"]["fingerprint"] != data["fit"]["fingerprint"]
    assert other["key"] != found.meta["key"]
    assert run((tiny.images(24, 3), tiny.labels(24)), None).meta["data"] == {}


def test_a_preprocessing_that_is_a_function_gives_the_same_key_in_another_run() -> None:
    class Own:
        def __call__(self, raw: Tensor) -> Tensor:
            return raw.float()

    class Named:
        name, note, is_small = "mine", "", False

        def __len__(self) -> int:
            return 3

    for how, message in ((lambda x: x, "<lambda>"), (Own(), "Own"), (Scaled(2), "Scaled(by=2)")):
        first, second = describe_data(Prepared(Named(), how))["prepared"]
        assert first == second
        assert first.endswith(message)
        assert " at 0x" not in first
