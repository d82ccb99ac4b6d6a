"""Moments of aligned representations, read off one pass."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import suture
from suture import SutureError, indices
from suture.networks import SitedNetwork, capture, freeze
from suture.numbers import Pair
from suture.representations.aligned_moments import AlignedMoments
from suture.representations.alignment import Alignment, AlignmentRule
from suture.representations.shapes import Kind, Shape
from suture.representations.token_masks import TokenMasks, get_token_mask
from suture.stitching import StitchingLayer, direct_match
from tests.support import references
from tests.support.kinds import SHAPES, batch
from tests.support.moments import SIZES, assert_equal_moments, batch_of, grid_moments
from tests.support.sequences import PADDINGS, TEXTS, Text, alone, collated, two


def test_self_moments_are_those_of_two_equal_lists():
    xs = [batch_of(s, 9, k, 3.0) for k, s in enumerate(SIZES)]
    own, two = grid_moments(xs, xs, [4, 5], same=True), grid_moments(xs, xs, [9])
    for i, j in product(range(len(xs)), repeat=2):
        assert_equal_moments(own.get_moments(i, j), two.get_moments(i, j))


def test_float32_moments_do_not_lose_digits_to_a_large_mean():
    """A peer reports a CKA of 1.000 where the truth is 0.949 once the mean is ten standard deviations."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(600, 6, generator=g)
    y = (x + 0.4 * torch.randn(600, 6, generator=g)) * torch.linspace(0.2, 2, 6)
    for mean in (0.0, 10.0, 1000.0):
        shifted = [x + mean, y - mean]
        grid = grid_moments([shifted[0]], [shifted[1]], [150] * 4, precision=torch.float32)
        truth = references.cka(*(m.double().numpy() for m in shifted))
        assert indices.of_moments(grid.get_moments(0, 0))["cka"].value == pytest.approx(truth, abs=2e-6), mean


FREE, SHORT = Shape(Kind.TOKENS, 6, (12,), varies=True), Shape(Kind.TOKENS, 6, (9,), varies=True)


def pieces_of_moments(a: Text, b: Text, size: int, length: int | None, rule: AlignmentRule) -> AlignedMoments:
    batches = collated(TEXTS, size, length)
    one, two = (SitedNetwork(n, batches[0][0], s) for n, s in ((a, ["blocks.0", "blocks.1@tokens:1"]),
                                                               (b, ["blocks.1", "pool"])))
    grid = AlignedMoments([one.shapes[0]], two.shapes, rule, precision=torch.float64, folds=2)
    with freeze(a, b), torch.no_grad():
        for inputs, _ in batches:
            mask = inputs["attention_mask"].bool()
            grid.update(one.front(inputs)[:1], two.front(inputs), mask, mask)
    return grid


@pytest.mark.parametrize("name", PADDINGS)
def test_moments_of_texts_know_neither_batches_nor_padding(name: str) -> None:
    a, b = two()
    grid = pieces_of_moments(a, b, *PADDINGS[name], AlignmentRule())
    x, y = alone(a, "blocks.0"), alone(b, "blocks.1")
    vectors = torch.stack([capture(b, {"input_ids": t[None]}, ["pool"])["pool"][0].double() for t in TEXTS])
    for j, (rx, ry) in enumerate([(torch.cat(x), torch.cat(y)),
                                  (torch.stack([t.mean(0) for t in x]), vectors)]):
        wanted, found = suture.numbers.moments.Moments.of(rx, ry), grid.get_moments(0, j)
        assert found.n == len(rx)
        for part in ("sxx", "sxy", "syy"):
            torch.testing.assert_close(getattr(found, part), getattr(wanted, part), rtol=1e-5, atol=1e-6)
    even = [t for k, t in enumerate(x) if k % 2 == 0]
    assert grid.get_folds(0, 0)[0].n == sum(map(len, even))
    match = direct_match(Pair.of(grid.get_moments(0, 0)))
    weight, bias = references.least_squares(torch.cat(x), torch.cat(y))
    best = torch.cat(x) @ weight.T + bias
    assert (torch.cat(x) @ match.weight.T + match.bias - best).norm() <= 1e-5 * best.norm()


def test_lengths_that_differ_in_a_later_batch_are_refused() -> None:
    x, y = torch.randn(4, 12, 6), torch.randn(4, 12, 6)
    moments = AlignedMoments([FREE], [FREE])
    moments.update([x], [y])
    with pytest.raises(SutureError,
                       match="as many tokens on both sides, got 7 for the source and 9 for the target"):
        moments.update([x[:, :7]], [y[:, :9]])


# -- masks ---------------------------------------------------------------------------------------------------


def test_padded_tokens_enter_neither_moments_nor_means() -> None:
    s, t, v = SHAPES["sequence 12"], Shape(Kind.TOKENS, 5, (12,)), Shape(Kind.VECTOR, 4)
    x, y, z = batch(s), batch(t, seed=1), batch(v, seed=2)
    mask = torch.arange(12) < (torch.arange(30) % 11 + 1)[:, None]
    both = mask & (torch.arange(12) != 3)
    x[~mask] = torch.nan
    moments = AlignedMoments([s], [t, v], precision=torch.float64)
    for rows in (slice(0, 7), slice(7, 30)):
        moments.update([x[rows]], [y[rows], z[rows]], mask[rows], None)
    one, two = moments.get_moments(0, 0), moments.get_moments(0, 1)
    assert (one.n, two.n) == (int(mask.sum()), 30)
    close(one, x.double()[mask], y.double()[mask])
    mean = torch.stack([r[m].mean(0) for r, m in zip(x.double(), mask, strict=True)])
    close(two, mean, z.double())
    layer = StitchingLayer(Alignment(s, v)).init_random(0)
    torch.testing.assert_close(layer(x.nan_to_num(1e6), mask), mean.float() @ layer.weight.T + layer.bias)
    paired = AlignedMoments([s], [t], precision=torch.float64)
    paired.update([x], [y], mask, mask.clone())
    close(paired.get_moments(0, 0), x.double()[mask], y.double()[mask])
    with pytest.raises(SutureError,
                       match="the attention masks differ: 4 unpadded tokens for the source and 3 "
                             "for the target in example 3; use one tokenizer"):
        paired.update([x], [y], mask, both)
    with pytest.raises(SutureError,
                       match="as many tokens on both sides, got 12 for the source and 5 for the target"):
        paired.update([x], [y], mask, both[:, :5])
    # Where no token meets a token, each side has its own mask.
    pooled = AlignedMoments([s], [v], precision=torch.float64)
    pooled.update([x], [z], mask, both[:, :5])
    close(pooled.get_moments(0, 0), mean, z.double())
    assert get_token_mask({"attention_mask": mask.long()}) is not None
    assert get_token_mask(x) is None


def test_a_mask_of_other_tokens_is_not_taken_for_one_of_these() -> None:
    s, v = SHAPES["sequence 12"], SHAPES["vector"]
    x, z, other = batch(s), batch(v, seed=1), torch.zeros(30, 5, dtype=torch.bool)
    moments = AlignedMoments([s], [s, v], precision=torch.float64)
    moments.update([x], [x, z], other, None)
    close(moments.get_moments(0, 0), x.double().flatten(0, 1), x.double().flatten(0, 1))
    close(moments.get_moments(0, 1), x.double().mean(1), z.double())
    layer = StitchingLayer(Alignment(s, v)).init_random(0)
    assert torch.equal(layer(x, other), layer(x))


def close(moments: Any, x: Tensor, y: Tensor) -> None:
    wanted = suture.numbers.moments.Moments.of(x, y)
    torch.testing.assert_close(moments.sxx, wanted.sxx)
    torch.testing.assert_close(moments.sxy, wanted.sxy)
    torch.testing.assert_close(moments.syy, wanted.syy)
    torch.testing.assert_close(moments.y.mean, wanted.y.mean)


@pytest.mark.parametrize("prefix", ["map", "drop"])
@pytest.mark.parametrize("x_first", [True, False])
def test_a_network_with_itself_has_the_spectra_of_the_rows_of_each_side(prefix: str, x_first: bool) -> None:
    shapes = [Shape(Kind.TOKENS, width, (5,), 1, (2, 2)) for width in (3, 4)]
    generator = torch.Generator().manual_seed(0)
    xs = [torch.randn(6, 5, s.width, generator=generator, dtype=torch.float64) for s in shapes]
    moments = AlignedMoments(shapes, shapes, AlignmentRule(prefix=prefix), same=True, precision=torch.float64)
    moments.update(xs, xs)
    for i, j in product(range(2), repeat=2):
        pair = moments.get_pair(i, j)
        for side in ("x", "y") if x_first else ("y", "x"):
            wanted = torch.linalg.eigvalsh(getattr(pair.moments, side).gram).flip(0)
            torch.testing.assert_close(getattr(pair, side).values, wanted)


def test_rows_that_a_mask_of_one_target_leaves_out_have_a_spectrum_of_their_own() -> None:
    sources, targets = [Shape(Kind.VECTOR, 3)], [Shape(Kind.TOKENS, 4, (5,)), Shape(Kind.MAP, 4, (1, 5))]
    generator = torch.Generator().manual_seed(0)
    x, *ys = (torch.randn(9, *s.dims, generator=generator, dtype=torch.float64) for s in (*sources, *targets))
    moments = AlignedMoments(sources, targets, precision=torch.float64)
    moments.update([x], ys, mask_y=torch.arange(5) <= torch.arange(9)[:, None])
    for j in range(2):
        pair = moments.get_pair(0, j)
        torch.testing.assert_close(pair.x.values, torch.linalg.eigvalsh(pair.moments.sxx).flip(0))


# -- sequences of one length ---------------------------------------------------------------------------------


def test_tokens_of_two_sequences_of_one_length_keep_their_own_masks() -> None:
    """Both have 12 tokens at every site: their masks must not take each other's place."""
    first, second = (Shape(Kind.TOKENS, 4, (12,), sequence=k) for k in range(2))
    x, y = batch(first), batch(second, seed=1)
    masks = [torch.arange(12) < (torch.arange(30) % k + 1)[:, None] for k in (11, 7)]
    moments = AlignedMoments([first, second], [first, second], same=True, precision=torch.float64)
    moments.update([x, y], [x, y], TokenMasks(tuple(masks)))
    for k, (tensor, mask) in enumerate(zip((x, y), masks, strict=True)):
        close(moments.get_moments(k, k), *[tensor.double()[mask]] * 2)
    assert sorted(moments.unaligned) == [(0, 1), (1, 0)]
    assert "two input sequences" in moments.unaligned[0, 1]


def test_masks_of_patches_that_differ_are_refused() -> None:
    shape = Shape(Kind.TOKENS, 5, (12,), grid=(3, 4))
    x, y = batch(shape), batch(shape, seed=1)
    mask = torch.arange(12) < (torch.arange(30) % 11 + 1)[:, None]
    moments = AlignedMoments([shape], [shape], precision=torch.float64)
    moments.update([x], [y], mask, mask.clone())
    close(moments.get_moments(0, 0), x.double()[mask], y.double()[mask])
    with pytest.raises(SutureError, match="the attention masks differ: 4 unpadded tokens for the source and "
                                          "3 for the target in example 3"):
        moments.update([x], [y], mask, mask & (torch.arange(12) != 3))
