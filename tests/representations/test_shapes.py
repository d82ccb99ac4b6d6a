"""Shapes: what is recognised of a representation, and what a user says it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from suture import SutureError
from suture.representations.shapes import (
    Kind,
    Shape,
    ShapeOverride,
    find_image_size,
    recognise_shape,
)
from suture.representations.token_masks import find_sequence_lengths


@pytest.mark.parametrize(("axes", "image", "inner", "name"), [
    ((56, 56, 96), (224, 224), None, "map 96x56x56 (channels last)"),
    ((96, 56, 56), (224, 224), None, "map 96x56x56"),
    ((7, 7, 7), (224, 224), 7, "map 7x7x7"), ((16, 8, 4), (64, 32), 4, "map 4x16x8 (channels last)"),
    ((16, 8, 4), (64, 32), 16, "map 16x8x4"), ((16, 8, 4), (64, 32), None, "map 16x8x4"),
    ((8, 12, 5), (31, 47), None, "map 5x8x12 (channels last)"), ((5, 8, 12), (31, 47), None, "map 5x8x12"),
    ((1, 1, 9), (8, 8), None, "map 9x1x1 (channels last)"), ((9, 1, 1), (8, 8), None, "map 9x1x1"),
    ((56, 56, 96), None, 96, "map 56x56x96"), ((4, 9, 9), (8, 8), None, "map 4x9x9"),
])
def test_where_the_channels_are_is_told_by_the_images_proportions(axes: Any, image: Any, inner: Any,
                                                                  name: str) -> None:
    x = torch.zeros(2, *axes)
    shape = recognise_shape(x, image, inner=inner)
    assert str(shape) == name
    assert shape.dims == axes
    assert shape.fits(x)
    assert not shape.fits(torch.zeros(2, *axes[:2], 99))


@pytest.mark.parametrize(("tokens", "image", "prefix", "grid"), [
    (18, (32, 32), 2, (4, 4)), (21, (32, 32), 5, (4, 4)), (25, (32, 48), 1, (4, 6)),
    (78, (30, 45), 1, (7, 11)),
    (77, (30, 45), 0, (7, 11)), (54, (32, 48), 0, (6, 9)), (53, (30, 45), 0, None),
])
def test_prefixes_and_patches_that_leave_a_rest_over(tokens: int, image: Any, prefix: int, grid: Any) -> None:
    shape = recognise_shape(torch.zeros(2, tokens, 3), image)
    assert (shape.prefix, shape.grid) == (prefix, grid)


def test_what_the_inputs_say() -> None:
    images, mask, ids = torch.rand(2, 3, 8, 6), torch.ones(2, 5), torch.ones(2, 7, dtype=torch.int64)
    assert find_image_size({"bool_masked_pos": mask.bool(), "labels": ids, "pixel_values": images}) == (8, 6)
    assert find_image_size({"noise": torch.rand(2, 1, 4, 4), "pixel_values": images}) == (8, 6)
    assert find_image_size((mask, [images])) == (8, 6)
    assert find_image_size({"input_ids": ids}) is None
    assert find_image_size((images * 255).byte()) is None
    assert find_sequence_lengths({"input_ids": ids, "attention_mask": mask}) == {5}
    assert find_sequence_lengths((ids, ids[:, :2])) == {7, 2}
    assert find_sequence_lengths({"bool_masked_pos": mask.bool(), "x": mask, "labels": ids[:, 0]}) == set()


def test_tokens_of_a_text_are_no_patches_whatever_their_number() -> None:
    text = recognise_shape(torch.zeros(2, 17, 3), (8, 8), {17})
    assert text == Shape(Kind.TOKENS, 3, (17,), varies=True)
    assert str(text) == "tokens ~17x3"
    assert str(Shape(Kind.TOKENS, 3, (17,), 1, varies=True)) == "tokens ~17x3 (1 prefix)"
    assert text == recognise_shape(torch.zeros(2, 5, 3), None, {5})
    assert hash(text) == hash(recognise_shape(torch.zeros(2, 5, 3), None, {5}))
    assert text != recognise_shape(torch.zeros(2, 17, 3))
    assert text.fits(torch.zeros(1, 4, 3))
    assert not text.fits(torch.zeros(1, 17, 4))
    assert not Shape(Kind.TOKENS, 3, (17,), 4, varies=True).fits(torch.zeros(1, 4, 3))


@pytest.mark.parametrize(("taken", "axes", "image", "lengths", "wanted"), [
    ("tokens", (17, 3), (8, 8), (), Shape(Kind.TOKENS, 3, (17,))),
    ("tokens", (16, 3), (8, 8), (), Shape(Kind.TOKENS, 3, (16,), 0, (4, 4))),
    ("tokens:1", (17, 3), (8, 8), (), Shape(Kind.TOKENS, 3, (17,), 1, (4, 4))),
    ("tokens:8", (17, 3), (8, 8), (), Shape(Kind.TOKENS, 3, (17,), 8, (3, 3))),
    ("tokens:2", (17, 3), (8, 8), (), Shape(Kind.TOKENS, 3, (17,), 2)),
    ("tokens:2,5x3", (17, 3), (8, 8), (), Shape(Kind.TOKENS, 3, (17,), 2, (5, 3))),
    ("tokens:2,5x3", (17, 3), None, (17,), Shape(Kind.TOKENS, 3, (17,), 2, (5, 3))),
    ("tokens:1", (17, 3), None, (17,), Shape(Kind.TOKENS, 3, (17,), 1, varies=True)),
    ("map", (8, 8, 3), (8, 8), (), Shape(Kind.MAP, 8, (8, 3))),
    ("map:last", (3, 8, 8), (8, 8), (), Shape(Kind.MAP, 8, (3, 8), last=True)),
    ("vector", (3,), (8, 8), (), Shape(Kind.VECTOR, 3)),
])
def test_what_is_written_is_what_it_is(taken: str, axes: Any, image: Any, lengths: Any,
                                       wanted: Shape) -> None:
    assert ShapeOverride.parse(taken).build_shape(torch.zeros(2, *axes), image, lengths) == wanted


@pytest.mark.parametrize(("taken", "axes", "words"), [
    ("vector", (3, 8, 8), r"expected \(N, D\) for vector, got shape \(2, 3, 8, 8\)"),
    ("tokens", (3, 8, 8), r"expected \(N, T, D\) for tokens, got shape \(2, 3, 8, 8\)"),
    ("map:last", (3, 8), r"expected \(N, H, W, C\) for map, got shape \(2, 3, 8\)"),
    ("tokens:1,4x5", (17, 3), "1 prefix tokens and 4x5 patches, got 17 tokens"),
    ("tokens:17", (17, 3), "more than 17 tokens, got 17 tokens"),
])
def test_what_cannot_be_taken_so_says_what_came(taken: str, axes: Any, words: str) -> None:
    with pytest.raises(SutureError, match=words):
        ShapeOverride.parse(taken).build_shape(torch.zeros(2, *axes))


@pytest.mark.parametrize(("tokens", "image", "prefix", "grid"), [
    (197, (224, 224), 1, (14, 14)), (196, (224, 224), 0, (14, 14)), (198, (224, 224), 2, (14, 14)),
    (201, (224, 224), 5, (14, 14)), (65, (32, 32), 1, (8, 8)), (129, (16, 32), 1, (8, 16)),
    (12, None, 0, None), (1, (8, 8), 0, (1, 1)), (30, (8, 8), 5, (5, 5)), (48, (8, 8), 0, None),
])
def test_patches_and_prefix_are_recognised(tokens: int, image: Any, prefix: int, grid: Any) -> None:
    shape = recognise_shape(torch.zeros(2, tokens, 3), image)
    assert (shape.prefix, shape.grid) == (prefix, grid)
