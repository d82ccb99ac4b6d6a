"""Kept examples of nulls: they are the rows of the index itself, whatever the batches and the padding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from suture.indices import INDICES, Value, chosen
from suture.numbers import Exchange
from suture.representations import Accumulators, AccumulatorSettings, Kind, Shape

N = 40
NAMES = [name for name, index in INDICES.items() if "stitch" in index.alignments and index.paired]
MAP, SMALL, ONE = Shape(Kind.MAP, 3, (4, 4)), Shape(Kind.MAP, 4, (2, 2)), Shape(Kind.MAP, 4, (1, 1))
VECTOR = Shape(Kind.VECTOR, 4)


def _draw(shape: Shape, seed: int) -> Tensor:
    """Draw representations of one signal, with neighbouring positions alike."""
    g = torch.Generator().manual_seed(seed)
    signal = torch.randn(N, 3, 1, 1, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    weight = torch.randn(3, shape.width, generator=g, dtype=torch.float64)
    noise = torch.randn(N, shape.width, *(shape.size or (1, 1)), generator=g, dtype=torch.float64)
    made = torch.einsum("nchw,cd->ndhw", signal, weight) + noise.cumsum(2).cumsum(3)
    return made if shape.size else made[:, :, 0, 0]


def _compute(shapes: tuple[Shape, Shape], batches: Iterable[tuple[Tensor, ...]], names: Any,
             **settings: Any) -> dict[str, Value]:
    """Compute indices and nulls from batches (x, y, mask); every batch is overwritten once it was seen."""
    made = Accumulators([shapes[0]], [shapes[1]],
                        AccumulatorSettings(chosen(names), nulls=20, precision=torch.float64, **settings))
    for x, y, *masks in batches:
        seen = [x.clone()], [y.clone()]
        made.update(*seen, *(2 * masks))
        for side in seen:
            side[0].fill_(1.0)
    return made.compute_values(0, 0)


@pytest.mark.parametrize(("source", "target"), [(MAP, SMALL), (MAP, ONE), (ONE, SMALL), (ONE, ONE),
                                                (MAP, VECTOR), (VECTOR, SMALL)], ids=str)
def test_the_tested_value_is_that_of_the_index_where_all_examples_are_kept(source: Shape,
                                                                           target: Shape) -> None:
    x, y = _draw(source, 1), _draw(target, 2)
    batches = [(x[k:k + 16], y[k:k + 16]) for k in range(0, N, 16)]
    known = 0
    for name, value in _compute((source, target), batches, NAMES).items():
        assert value.null is not None
        if not value.null.reason:
            assert value.null.value == pytest.approx(value.value, abs=1e-8), name
            known += 1
    assert known > 20


@pytest.mark.parametrize(("shape", "names", "kept"), [
    (SMALL, ["cka"], False), (SMALL, ["cka", "cka_debiased"], True), (VECTOR, ["cka"], True),
    (ONE, ["cka"], True), (ONE, ["opd"], False)], ids=str)
def test_sums_of_higher_order_are_kept_only_where_a_null_or_an_index_needs_them(
        shape: Shape, names: list[str], kept: bool) -> None:
    made = Accumulators([shape], [shape], AccumulatorSettings(chosen(names)))
    made.update([_draw(shape, 1)], [_draw(shape, 2)])
    cross = made.stitch.get_moments(0, 0).cross
    assert bool(cross.xx_yy.isfinite()) == bool(cross.x_yy.isfinite().all()) == kept


def test_rows_of_a_map_of_one_position_are_independent() -> None:
    found = _compute((MAP, ONE), [(_draw(MAP, 1), _draw(ONE, 2))], ["cka", "r2", "jaccard:3"])
    methods = [value.null.method for value in found.values() if value.null is not None]
    assert methods == ["closed form", "20 permutations of examples", "20 permutations of examples"]


def _pad(texts: list[Tensor], length: int, *, left: bool) -> Tensor:
    return torch.stack([torch.cat([t.new_zeros(length - len(t), *t.shape[1:]), t][::1 if left else -1])
                        for t in texts])


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_texts_change_places_whatever_their_batch_is_padded_to(left: bool) -> None:
    shapes = tuple(Shape(Kind.TOKENS, width, (9,), varies=True) for width in (3, 2))
    g = torch.Generator().manual_seed(0)
    lengths = [int(k) for k in torch.randint(3, 7, (N,), generator=g)]
    texts = [[torch.randn(n, s.width, generator=g, dtype=torch.float64) for n in lengths] for s in shapes]
    whole = [torch.ones(n, dtype=torch.bool) for n in lengths]

    def batch(size: int, extra: int) -> Iterable[tuple[Tensor, ...]]:
        for k in range(0, N, size):
            longest = max(lengths[k:k + size]) + (extra if k % 2 else 0)
            yield tuple(_pad(of[k:k + size], longest, left=left) for of in (*texts, whole))

    one, other = (_compute((shapes[0], shapes[1]), batch(*how), ["cka", "r2"]) for how in ((N, 0), (5, 3)))
    for name in one:
        a, b = one[name].null, other[name].null
        assert a is not None
        assert b is not None
        assert a.n == sum(lengths)
        assert (b.n, b.value, b.mean, b.std) == pytest.approx((a.n, a.value, a.mean, a.std), rel=1e-9)


def test_held_out_values_of_permuted_examples_leave_out_whole_examples() -> None:
    x, y = _draw(MAP, 1), _draw(Shape(Kind.MAP, 4, (4, 4)), 2)
    shapes = MAP, Shape(Kind.MAP, 4, (4, 4))
    found = _compute(shapes, [(x, y)], "r2_folds", seed=3)["r2_folds"].null
    orders = Exchange.of(np.arange(N), np.zeros(N, int)).draw(20, 3)
    values = [_compute(shapes, [(x, y[order])], "r2_folds")["r2_folds"].value for order in orders]
    assert found is not None
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.std == pytest.approx(np.std(values), rel=1e-7)


def test_planned_memory_is_that_of_the_groups_that_are_chosen() -> None:
    labels = np.arange(N) // 10
    few, more = (Accumulators([MAP], [SMALL], AccumulatorSettings(chosen("r2"), nulls=20, sample=4,
                                                                  groups=groups)).nbytes_planned
                 for groups in (None, labels))
    assert more - few == 16 * 4 * (3 * 16 + 4 * 4)
