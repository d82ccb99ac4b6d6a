"""Moments and layers share the alignment that the kinds of two representations mean."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from suture import AlignmentRule, SutureError
from suture.numbers import Pair
from suture.representations.aligned_moments import AlignedMoments
from suture.representations.alignment import Alignment
from suture.representations.shapes import Kind, Shape
from suture.stitching import StitchingLayer, direct_match
from tests.support import references
from tests.support.kinds import PAIRS, SHAPES, aligned, batch


def prefixes(source: Shape, target: Shape) -> tuple[str, ...]:
    if source.prefix + target.prefix == 0:
        return ("auto",)
    return ("auto", "map", "drop") if source.prefix == target.prefix else ("auto", "drop")


CASES = [(a, b, p) for a, b in PAIRS for p in prefixes(SHAPES[a], SHAPES[b])]


def describe(source: str, target: str, prefix: str) -> tuple[Any, ...]:
    """Describe a case without its sizes, of which it counts on which side there are more positions."""
    s, t = SHAPES[source], SHAPES[target]
    kinds = [(of.kind, len(of.grid or of.size), of.last, of.prefix > 0, of.varies, bool(of.grid))
             for of in (s, t)]
    more, fewer = (math.prod(of.grid or of.size) for of in (s, t))
    return *kinds, (more > fewer) - (more < fewer), prefix


FIRST = {describe(*case): case for case in reversed(CASES)}.values()
"""One case of each description; others are of other sizes."""


@pytest.mark.parametrize(("source", "target", "prefix"), [
    pytest.param(*case, marks=() if case in FIRST else pytest.mark.slow) for case in CASES])
def test_moments_and_layers_share_the_alignment_that_the_kinds_mean(source: str, target: str,
                                                                    prefix: Any) -> None:
    s, t, rule = SHAPES[source], SHAPES[target], AlignmentRule(prefix=prefix)
    x, y = batch(s), batch(t, seed=1)
    treated = "map" if prefix != "drop" and s.prefix == t.prefix else "drop"
    rx, ry = aligned(x, y, s, t, treated)
    moments = AlignedMoments([s], [t], rule, precision=torch.float64)
    moments.update([x[:11]], [y[:11]])
    moments.update([x[11:]], [y[11:]])
    match = direct_match(Pair.of(moments.get_moments(0, 0)))
    weight, bias = references.least_squares(rx, ry)
    best = rx @ weight.T + bias
    assert (rx @ match.weight.T + match.bias - best).norm() <= 1e-6 * best.norm()
    layer = StitchingLayer(Alignment(s, t, rule))
    made = layer.set(match.weight, match.bias)(x).detach()
    assert made.shape == y.shape
    rows = aligned(x, made, s, t, treated)[1]
    torch.testing.assert_close(rows, best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("source", "target"),
                         [("map 4x4", "map 3x5"), ("map 3x5", "map 8x8"), ("map 4x4", "map 8x8"),
                          ("class token, 2x2", "class token, 4x4"), ("map 8x8", "patches 4x4"),
                          ("sequence 12", "sequence 7")])
def test_nearest_neighbours_are_an_alignment_too(source: str, target: str) -> None:
    s, t, rule = SHAPES[source], SHAPES[target], AlignmentRule(resize="nearest")
    x, y = batch(s), batch(t, seed=1)
    moments = AlignedMoments([s], [t], rule, precision=torch.float64)
    moments.update([x], [y])
    layer = StitchingLayer(Alignment(s, t, rule)).init_random(0)
    made = layer(x).detach().double()
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()

    def grid(z: Tensor, shape: Shape) -> Tensor:
        return z if shape.kind is Kind.MAP else z[:, shape.prefix:].transpose(1, 2).unflatten(
            2, shape.grid or (1, shape.size[0]))

    small, out, big = grid(x.double(), s), grid(made, t), grid(y.double(), t)
    rows, columns = (((torch.arange(a) + 0.5) * b / a).floor().long()
                     for a, b in zip(out.shape[2:], small.shape[2:], strict=True))
    near = small[:, :, rows][..., columns].permute(0, 2, 3, 1)
    torch.testing.assert_close(out.permute(0, 2, 3, 1), near @ weight.T + bias, rtol=1e-4, atol=1e-4)
    if not s.prefix:
        stacked = near.reshape(-1, s.width)
        wanted = (stacked - stacked.mean(0)).T @ big.permute(0, 2, 3, 1).reshape(-1, t.width)
        torch.testing.assert_close(moments.get_moments(0, 0).sxy, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_order_of_resize_and_map_changes_nothing(source: str, target: str) -> None:
    x = batch(SHAPES[source])
    made = [StitchingLayer(Alignment(SHAPES[source], SHAPES[target], AlignmentRule(order=o)))
            .init_random(1)(x) for o in ("before", "after", "auto")]
    torch.testing.assert_close(made[0], made[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made[0], made[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("source", "target", "prefix", "words"), [
    ("map 4x4", "sequence 12", "auto", "no patches of an image"),
    ("sequence 12", "map 4x4", "auto", "no patches of an image"),
    ("class token, 4x4", "registers, 4x4", "map", "write prefix='drop'"),
    ("class token, 4x4", "vector", "map", "write prefix='drop'"),
    ("map 8x8", "class token, 4x4", "map", "write prefix='drop'"),
    ("signal 12", "map 4x4", "auto", "another number of axes; stitch to a vector"),
    ("volume 2x4x4", "map 4x4", "auto", "another number of axes; stitch to a vector"),
    ("patches 4x4", "sequence 12", "auto", "no patches of an image; stitch sequences"),
    ("flat 4x4", "signal 12", "auto", "another number of axes"),
    ("signal 12", "text 12", "auto", "another length in each batch"),
])
def test_what_cannot_be_aligned_is_refused_with_shapes_and_options(source: str, target: str, prefix: Any,
                                                                   words: str) -> None:
    with pytest.raises(SutureError, match=words) as e:
        Alignment(SHAPES[source], SHAPES[target], AlignmentRule(prefix=prefix))
    assert str(SHAPES[source]) in str(e.value)
    assert str(SHAPES[target]) in str(e.value)


@pytest.mark.parametrize(("dropped", "nearest"), [("keep", "map"), ("learn", "drop"), ("add", "drop"),
                                                  ("only", "drop")])
def test_a_dropped_use_of_prefix_tokens_names_the_nearest(dropped: Any, nearest: str) -> None:
    with pytest.raises(SutureError, match=f"prefix='{dropped}'.*write prefix='{nearest}'"):
        AlignmentRule(prefix=dropped)


@pytest.mark.parametrize("option", ["resize", "order", "prefix"])
def test_unknown_rules_name_the_nearest(option: str) -> None:
    with pytest.raises(SutureError, match=f"unknown {option} 'nearst'"):
        AlignmentRule(**{option: "nearst"})


@pytest.mark.parametrize(("source", "target"), [
    (Shape(Kind.MAP, 3, (1, 7)), Shape(Kind.MAP, 4, (5,))),
    (Shape(Kind.MAP, 3, (5,)), Shape(Kind.MAP, 4, (1, 7))),
    (Shape(Kind.MAP, 3, (1, 4, 6)), Shape(Kind.MAP, 4, (2, 3))),
])
def test_axes_of_one_position_in_front_do_not_count(source: Shape, target: Shape) -> None:
    """A map 1xT is one of length T, and a volume of depth 1 an image."""
    x = batch(source)
    layer = StitchingLayer(Alignment(source, target)).init_random(0)
    made = layer(x).detach()
    assert made.shape == (len(x), *target.dims)
    inner = x.reshape(len(x), 3, *source.size[len(source.size) - min(len(source.size), len(target.size)):])
    wide = references.resized(inner.double(), torch.Size(target.size[-(inner.ndim - 2):]))
    wanted = torch.einsum("qp,np...->nq...", layer.weight.double(), wide).detach()
    torch.testing.assert_close(made.double().reshape(wanted.shape),
                               wanted + layer.bias.detach().double().view(-1, *[1] * (wanted.ndim - 2)),
                               rtol=1e-5, atol=1e-5)
