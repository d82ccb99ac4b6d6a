"""Class means of rows are those of all examples' rows, also where examples are averaged before their rows."""

from __future__ import annotations

import pytest
import torch

from suture import OOD, zoo
from suture.compare import CompareOptions, ExampleRows, set_up
from suture.representations import pick_rows


@pytest.mark.parametrize("source", [None, "resnet_digits"])
def test_class_means_are_the_means_of_rows(source: str | None) -> None:
    target = zoo.build("vit_digits" if source else "resnet_digits", seed=1).eval()
    data = zoo.digits("train").subset(50)
    setup = set_up(CompareOptions(zoo.build(source, seed=2) if source else target,
                                  target if source else None, data=data, test=zoo.digits("test").subset(20),
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
