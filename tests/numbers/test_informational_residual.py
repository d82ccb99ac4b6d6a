"""The informational residual: planted cases, its null against all permutations, its rate of false alarms."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch

from suture.numbers import estimate_informational_residual, find_class_places, informational_residual

CLASSES = torch.arange(60) % 3
MEANS = 5 * torch.randn(3, 8, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def draw(seed):
    return torch.randn(60, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def measure(stitched, native, means=MEANS, classes=CLASSES):
    return estimate_informational_residual(stitched, native, means, MEANS, classes)


def test_planted_cases():
    native = MEANS[CLASSES] + draw(0)
    same = measure(native, native)
    assert (same.free.value, same.strict.value, same.p < 1e-9) == (pytest.approx(0), pytest.approx(0), True)
    collapsed = measure(MEANS[CLASSES], native)
    assert (collapsed.free.value, collapsed.strict.value, collapsed.p) == (1, pytest.approx(1), 1)
    swapped = measure(native[torch.arange(60).roll(3)], native)
    assert swapped.strict.value > 1.5
    assert swapped.free.value > 0.9
    shrunken = measure(MEANS[CLASSES] + 0.5 * draw(0), native)
    assert (shrunken.free.value, shrunken.strict.value) == (pytest.approx(0), pytest.approx(0.25))
    offset = measure(native + 7, native, MEANS + 7)
    assert (offset.free.value, offset.strict.value > 10) == (pytest.approx(0), True)
    half = measure(MEANS[CLASSES] + draw(0) + draw(1), native)
    assert half.free.value == pytest.approx(0.5, abs=0.1)
    assert half.free.low < half.free.value < half.free.high


def test_the_null_is_that_of_all_permutations_within_classes(monkeypatch):
    monkeypatch.setattr(informational_residual, "FEWEST_PERMUTATIONS", 1)
    classes = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    native, stitched = draw(0)[:7], draw(1)[:7]
    zero = torch.zeros(2, 8, dtype=torch.float64)
    found = estimate_informational_residual(stitched, native, zero, zero, classes)
    sums = [float((stitched[list(a) + list(b)] * native).sum())
            for a in permutations(range(3)) for b in permutations(range(3, 7))]
    z = (float((stitched * native).sum()) - np.mean(sums)) / np.std(sums)
    assert found.p == pytest.approx(0.5 * math.erfc(z / math.sqrt(2)), rel=1e-9)


def test_independent_representations_are_rarely_told_from_their_null():
    ps = [measure(MEANS[CLASSES] + draw(seed), MEANS[CLASSES] + draw(seed + 1000)).p for seed in range(400)]
    assert 0.02 < np.mean(np.array(ps) < 0.05) < 0.09


def test_examples_without_a_class_mean_are_left_out():
    native, stitched = MEANS[CLASSES] + draw(0), MEANS[CLASSES] + draw(0) + draw(1)
    places = find_class_places(10 * CLASSES, torch.tensor([0, 20]))
    assert places.tolist() == [{0: 0, 10: -1, 20: 1}[c] for c in (10 * CLASSES).tolist()]
    has, means = CLASSES != 1, MEANS[[0, 2]]
    assert estimate_informational_residual(stitched, native, means, means, places) == (
        estimate_informational_residual(stitched[has], native[has], MEANS, MEANS, CLASSES[has]))
    none = find_class_places(CLASSES, torch.tensor([], dtype=torch.long))
    missing = estimate_informational_residual(stitched, native, MEANS[:0], MEANS[:0], none)
    assert "no example has a class" in missing.free.reason


def test_representations_that_are_constant_within_classes_hold_nothing_more():
    """Exactly constant ones, but not at the means of the classes, which come from other examples."""
    native = MEANS[CLASSES] + draw(0)
    found = estimate_informational_residual(MEANS[CLASSES], native, MEANS + 1, MEANS, CLASSES)
    assert (found.p, found.null) == (1.0, found.free.value)
    assert found.free.value > 0.8


def test_what_cannot_be_known_has_a_reason():
    native = MEANS[CLASSES] + draw(0)
    assert "constant within classes" in measure(native, MEANS[CLASSES]).free.reason
    alone = estimate_informational_residual(native, native + draw(2), torch.zeros(60, 8), torch.zeros(60, 8),
                                            torch.arange(60))
    assert math.isnan(alone.p)
    for n, known in ((6, False), (7, True)):  # 720 and 5040 permutations: p-values below 0.001 take 1000
        few = measure(native[:n], native[:n], classes=torch.zeros(n, dtype=torch.long))
        assert (few.p < 1, few.null < 1) == (known, known)
