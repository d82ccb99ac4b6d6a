"""Law 1 and default sites on architectures of transformers, random weights."""

from __future__ import annotations

import torch

import suture
import suture.networks.module_outputs
from tests.support.architectures import ARCHITECTURES, N, images, texts


def test_two_architectures_are_compared_in_both_directions() -> None:
    labels = torch.arange(N) % 2
    for one, other, inputs in (("vit", "resnet", images()), ("bert", "roberta", texts())):
        networks = [ARCHITECTURES[n].build() for n in (one, other)]
        for a, b in (networks, networks[::-1]):
            found = suture.compare(a, b, [(inputs, labels)], methods=["dm"], ood=None, device="cpu")
            assert found.matrix("cka").notna().all(axis=None)
            assert found.matrix("dm.agreement").notna().all(axis=None)
