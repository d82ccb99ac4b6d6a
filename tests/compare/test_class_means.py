"""Class means of rows are those of all examples' rows, also where examples are averaged before their rows."""

from __future__ import annotations

import pytest
import torch

from suture import OOD, zoo
from suture._base import seed_torch
from suture.compare import CompareOptions, ExampleRows, set_up
from suture.networks.architectures import ImageViT
from suture.representations import pick_rows


@pytest.mark.parametrize("self_stitching", [True, False])
def test_class_means_are_the_means_of_rows(self_stitching: bool) -> None:
    network = zoo.build("resnet_digits", seed=1)
    with seed_torch(0):
        other = None if self_stitching else ImageViT(8, 2, 1, dim=12, depth=2)
    data = zoo.digits("train").subset(50)
    setup = set_up(CompareOptions(network, other, data=data, test=zoo.digits("test").subset(20),
                                  batch_size=16, methods=["dm"], indices=(), ood=OOD(())))
    means = ExampleRows(setup).means
    assert means is not None
    kept = [c for c in range(10) if int((data.labels == c).sum()) >= 3]
    with torch.no_grad():
        natives = setup.target.pick_representations(setup.target.run_full(data.inputs))
        xs = setup.source.front(data.inputs)
    for j, (x, shape) in enumerate(zip(natives, setup.target.shapes, strict=True)):
        rows = pick_rows(x, shape, None, 32)
        slow = torch.stack([rows[data.labels == c].mean(0) for c in kept])
        torch.testing.assert_close(means.of[j], slow, rtol=1e-4, atol=1e-5)
    aligned = ExampleRows(setup)._align(xs, None, None)
    for key, rows in aligned.items():
        slow = torch.stack([rows[data.labels == c].mean(0) for c in kept])
        torch.testing.assert_close(means.of[key], slow, rtol=1e-4, atol=1e-5)
