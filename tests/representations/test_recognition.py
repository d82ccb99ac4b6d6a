"""Recognition: what evidence, axes and inputs say of a representation, and what a user says it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from suture import SutureError
from suture.representations.recognition import NO_CHANNELS, Evidence, ShapeOverride, recognise_shape
from suture.representations.shapes import Kind, Shape, find_image_size
from suture.representations.token_masks import find_sequence_lengths


@pytest.mark.parametrize(("axes", "image", "name"), [
    ((56, 56, 96), (224, 224), "map 96x56x56 (channels last)"), ((96, 56, 56), (224, 224), "map 96x56x56"),
    ((7, 7, 7), (224, 224), "map 7x7x7"), ((16, 8, 4), (64, 32), "map 16x8x4"),
    ((8, 12, 5), (31, 47), "map 5x8x12 (channels last)"), ((5, 8, 12), (31, 47), "map 5x8x12"),
    ((1, 1, 9), (8, 8), "map 9x1x1 (channels last)"), ((9, 1, 1), (8, 8), "map 9x1x1"),
    ((4, 9, 9), (8, 8), "map 4x9x9"),
])
def test_without_evidence_the_images_proportions_tell_where_the_channels_are(axes: Any, image: Any,
                                                                             name: str) -> None:
    x = torch.zeros(2, *axes)
    shape = recognise_shape(x, image)
    assert str(shape) == name
    assert shape.dims == axes
    assert shape.fits(x)
    assert not shape.fits(torch.zeros(2, *axes[:2], 99))


@pytest.mark.parametrize(("axes", "channels", "image", "name"), [
    ((8, 64), 1, None, "map 8x64"), ((8, 64), 2, None, "tokens 8x64"), ((8, 64), None, None, "tokens 8x64"),
    ((7, 7, 7), 3, (224, 224), "map 7x7x7 (channels last)"), ((16, 8, 4), 1, (64, 32), "map 16x8x4"),
    ((16, 8, 4), 3, (64, 32), "map 4x16x8 (channels last)"), ((6, 9, 2), 1, (8, 8), "map 6x9x2"),
    ((3, 4, 8, 8), 1, None, "map 3x4x8x8"), ((4, 8, 8, 3), 4, None, "map 3x4x8x8 (channels last)"),
])
def test_evidence_tells_where_the_channels_are(axes: Any, channels: int, image: Any, name: str) -> None:
    x = torch.zeros(2, *axes)
    shape = recognise_shape(x, image, seen=Evidence(channels))
    assert (str(shape), shape.dims, shape.fits(x)) == (name, axes, True)


@pytest.mark.parametrize(("axes", "image", "seen"), [
    ((8, 64), None, Evidence(has_signals=True)), ((5, 8, 9), None, Evidence()),
    ((5, 8, 9), (8, 8), Evidence()), ((3, 4, 8, 8), (8, 8), Evidence()),
    ((2, 16, 16), (8, 8), Evidence(NO_CHANNELS)), ((2, 16, 16), None, Evidence(2)),
])
def test_what_nothing_tells_is_asked_for(axes: Any, image: Any, seen: Evidence) -> None:
    with pytest.raises(SutureError, match=r"@map.*(@map:last|@tokens)"):
        recognise_shape(torch.zeros(2, *axes), image, seen=seen)


@pytest.mark.parametrize(("axes", "channels", "image", "merged", "wanted"), [
    ((17, 3), 2, (8, 8), {16: [(4, 4)]}, Shape(Kind.TOKENS, 3, (17,), 1, (4, 4))),
    ((17, 3), 2, (8, 8), {}, Shape(Kind.TOKENS, 3, (17,))),
    ((17, 3), 2, (8, 8), {16: [()]}, Shape(Kind.TOKENS, 3, (17,), 1, (4, 4))),
    ((17, 3), 2, (8, 8), {16: [(2, 8), (4, 4)]}, Shape(Kind.TOKENS, 3, (17,), 1, (4, 4))),
    ((16, 3), 2, (8, 8), {16: [(2, 8)]}, Shape(Kind.TOKENS, 3, (16,), 0, (2, 8))),
    ((16, 3), 2, None, {16: [(2, 8)]}, Shape(Kind.TOKENS, 3, (16,))),
    ((17, 3), 2, None, {16: [(4, 2, 2)]}, Shape(Kind.TOKENS, 3, (17,), 1, (4, 2, 2))),
    ((3, 16), 1, (8, 8), {16: [(4, 4)]}, Shape(Kind.MAP, 3, (16,), grid=(4, 4))),
    ((3, 17), 1, (8, 8), {16: [(4, 4)]}, Shape(Kind.MAP, 3, (17,))),
])
def test_patches_are_what_the_network_merged(axes: Any, channels: int, image: Any, merged: Any,
                                             wanted: Shape) -> None:
    assert recognise_shape(torch.zeros(2, *axes), image, seen=Evidence(channels, merged)) == wanted


def test_a_map_of_a_text_varies_with_the_text() -> None:
    shape = recognise_shape(torch.zeros(2, 6, 9), None, {9}, Evidence(1))
    assert shape == Shape(Kind.MAP, 6, (9,), varies=True)
    assert str(shape) == "map ~6x9"
    assert shape.fits(torch.zeros(2, 6, 4))
    assert not shape.fits(torch.zeros(2, 4, 6))
    assert recognise_shape(torch.zeros(2, 9, 6), None, {9}, Evidence(2)) == Shape(Kind.TOKENS, 6, (9,),
                                                                                  varies=True)


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
    ("map", (8, 64), None, (), Shape(Kind.MAP, 8, (64,))), ("map", (8, 9), None, (9,),
                                                            Shape(Kind.MAP, 8, (9,), varies=True)),
    ("map:last", (64, 8), None, (), Shape(Kind.MAP, 8, (64,), last=True)),
    ("map", (3, 4, 8, 8), None, (), Shape(Kind.MAP, 3, (4, 8, 8))),
    ("map:last", (4, 8, 8, 3), None, (), Shape(Kind.MAP, 3, (4, 8, 8), last=True)),
    ("tokens:1,2x3x4", (25, 3), None, (), Shape(Kind.TOKENS, 3, (25,), 1, (2, 3, 4))),
    ("map:last", (3, 8, 8), (8, 8), (), Shape(Kind.MAP, 8, (3, 8), last=True)),
    ("vector", (3,), (8, 8), (), Shape(Kind.VECTOR, 3)),
])
def test_what_is_written_is_what_it_is(taken: str, axes: Any, image: Any, lengths: Any,
                                       wanted: Shape) -> None:
    assert ShapeOverride.parse(taken).build_shape(torch.zeros(2, *axes), image, lengths) == wanted


@pytest.mark.parametrize(("taken", "axes", "words"), [
    ("vector", (3, 8, 8), r"expected \(N, D\) for vector, got shape \(2, 3, 8, 8\)"),
    ("tokens", (3, 8, 8), r"expected \(N, T, D\) for tokens, got shape \(2, 3, 8, 8\)"),
    ("map:last", (8,), r"expected \(N, ..., C\) for map, got shape \(2, 8\)"),
    ("vector", (8, 64), r"expected \(N, D\) for vector, got shape \(2, 8, 64\)"),
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
