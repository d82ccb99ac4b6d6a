"""Task loss matching in a comparison: marks of what has not converged, and what makes another comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import suture
from suture import Prepared, TaskRecipe
from tests.support import tiny
from tests.support.tiny import twice_as_large


def compared(recipe: TaskRecipe, **options: Any) -> suture.Comparison:
    return suture.compare(tiny.network(), options.pop("target", None), *tiny.data(), tlm=recipe, device="cpu",
                          **options)


def test_cells_of_a_half_trained_grid_are_marked_and_say_so(tmp_path: Path) -> None:
    seen: list[str] = []
    recipe = TaskRecipe(epochs=3, lr=1e-2, batch_size=8, objective="match")
    made = compared(recipe, progress=lambda stage, done, total: seen.append(stage))
    assert "checking convergence" in seen
    marks = made.marks("tlm.accuracy")
    assert list(marks.index) == list(marks.columns) == ["block1", "block2"]
    assert (marks != "").any(axis=None)
    assert made.marks("tlm.residual").equals(marks)
    assert (made.marks("dm.accuracy") == "").all(axis=None)
    assert (made.marks("cka") == "").all(axis=None)
    n = int((marks != "").sum(axis=None))
    assert any(f"has not converged: {n} of 4 cells" in note for note in made.meta["notes"])
    made.save(tmp_path)
    assert suture.load(tmp_path).equals(made)
    for name in ("tlm", "dm"):
        assert made.arrays[f"{name}.objective"].shape == (2, 2)


def test_the_objective_of_direct_matchings_own_layers_is_the_networks() -> None:
    made = compared(TaskRecipe(epochs=2, lr=1e-2, batch_size=8))
    x, y = tiny.data()[0]
    with torch.no_grad():
        own = float(torch.nn.functional.cross_entropy(tiny.network()(x), y))
    assert np.diag(made.arrays["dm.objective"]) == pytest.approx(own, rel=1e-4)


def test_one_epoch_is_marked_without_another_pass() -> None:
    seen: list[str] = []
    made = compared(TaskRecipe(epochs=1), progress=lambda stage, done, total: seen.append(stage))
    assert made.marks("tlm.agreement").map(lambda m: "one epoch" in m).all(axis=None)
    assert "checking convergence" not in seen
    assert "dm.objective" not in made.arrays


def test_training_that_starts_at_direct_matching_and_hardly_moves_is_not_marked() -> None:
    made = compared(TaskRecipe(epochs=10, init="dm", lr=1e-6), target=tiny.other())
    assert (made.marks("tlm.accuracy") == "").all(axis=None)
    assert not any("converged" in note for note in made.meta["notes"])


def test_training_that_moves_away_from_direct_matching_is_marked() -> None:
    recipe = TaskRecipe(epochs=10, init="dm", lr=3.0, batch_size=8, objective="match")
    made = compared(recipe, target=tiny.other())
    assert made.marks("tlm.accuracy").map(lambda m: "above direct matching" in m).any(axis=None)


BRIEF = TaskRecipe(epochs=1, batch_size=16)


@pytest.fixture(scope="module")
def after_moments() -> suture.Comparison:
    """A result after its first stage, which the same comparison goes on from."""
    kept: list[suture.Comparison] = []
    made = compared(BRIEF, on_stage=kept.append, indices=())
    resumed = compared(BRIEF, previous=kept[0], indices=())
    assert resumed.table.equals(made.table)
    return kept[0]


@pytest.mark.parametrize("change", [
    {"objective": "soft"}, {"temperature": 2.0}, {"mix": 0.1}, {"optimizer": "sgd"}, {"crop": 1},
    {"flip": True},
    {"precision": "bf16"}, {"patience": 1}, {"held_out": 0.2}, {"weight_decay": 0.0}, {"init": "identity"}])
def test_other_settings_are_another_comparison(after_moments: suture.Comparison,
                                               change: dict[str, Any]) -> None:
    with pytest.raises(suture.SutureError, match="other networks, data or settings"):
        compared(replace(BRIEF, **change), previous=after_moments, indices=())


def test_training_with_crops_where_the_networks_want_different_inputs() -> None:
    data = Prepared((tiny.images(24), tiny.labels(24)), twice_as_large, None)
    made = suture.compare(tiny.network(), tiny.other(), data, methods=["tlm"], indices=(), ood=None,
                          device="cpu", tlm=TaskRecipe(epochs=1, batch_size=12, crop=1))
    assert made.matrix("tlm.accuracy").notna().all(axis=None)
