"""Every pair of kinds of representation, every family of maps, direct and task loss matching, in one
table."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suture
from suture import AlignmentRule, Family, Paired, SutureError, TaskRecipe
from suture.networks.sites import SitedNetwork
from suture.numbers.spectra import Pair
from suture.representations.aligned_moments import AlignedMoments
from suture.representations.alignment import Alignment
from suture.representations.shapes import Kind, Shape, get_token_mask, recognise_shape
from suture.stitching import StitchingLayer, direct_match
from suture.stitching.recipe import derive_cell_seed
from tests.support import references
from tests.support.tiny import seeded

N, CLASSES, SIDE = 120, 4, 8
SHAPES = {
    "map 8x8": Shape(Kind.MAP, 6, (8, 8)), "map 4x4": Shape(Kind.MAP, 6, (4, 4)),
    "map 3x5": Shape(Kind.MAP, 7, (3, 5)), "vector": Shape(Kind.VECTOR, 6),
    "patches 4x4": Shape(Kind.TOKENS, 6, (16,), 0, (4, 4)),
    "class token, 4x4": Shape(Kind.TOKENS, 6, (17,), 1, (4, 4)),
    "class token, 2x2": Shape(Kind.TOKENS, 7, (5,), 1, (2, 2)),
    "registers, 4x4": Shape(Kind.TOKENS, 6, (19,), 3, (4, 4)),
    "sequence 12": Shape(Kind.TOKENS, 6, (12,)), "sequence 7": Shape(Kind.TOKENS, 5, (7,)),
    "last 4x4": Shape(Kind.MAP, 6, (4, 4), last=True), "last 3x5": Shape(Kind.MAP, 7, (3, 5), last=True),
    "text 12": Shape(Kind.TOKENS, 6, (12,), varies=True),
    "text 12, prefix": Shape(Kind.TOKENS, 6, (12,), 1, varies=True),
}
FAMILIES = ("full", "ridge:0.1", "ridge:cv", "rank:3", "orthogonal", "orthogonal:noscale,noshift", "diagonal",
            "permutation", "identity", "sparse:0.05")


class Kinded(nn.Module):
    """Images (N, 2, 8, 8) or, for a sequence, ids -> a representation of some shape at `site` -> logits.

    A sequence that varies is as long as its ids, another one is shorter.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.text = shape.kind is Kind.TOKENS and shape.grid is None
        self.embed = nn.Embedding(20, shape.width) if self.text else nn.Conv2d(2, shape.width, 3, padding=1)
        self.prefix = nn.Parameter(torch.randn(shape.prefix, shape.width))
        self.site, self.head = nn.Tanh(), nn.Linear(2 * shape.width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x if self.shape.varies or not self.text else x[:, 1:])
        size = self.shape.size if self.shape.kind is Kind.MAP else self.shape.grid
        if not self.text:
            h = nn.functional.adaptive_avg_pool2d(h, size or (1, 1))
        if self.shape.kind is Kind.VECTOR:
            h = h[:, :, 0, 0]
        if self.shape.grid:
            h = h.flatten(2).transpose(1, 2)
            # A class token that has seen the patches, as after attention.
            h = torch.cat([self.prefix + h.max(1, keepdim=True).values, h], 1)
        h = self.site(2 * h.permute(0, 2, 3, 1) if self.shape.last else 2 * h)
        h = h.permute(0, 3, 1, 2) if self.shape.last else h
        channels = 1 if self.shape.kind is not Kind.TOKENS else 2
        rows = (h.flatten(2).transpose(1, 2) if channels == 1 and h.ndim == 4 else h if h.ndim == 3
                else h[:, None])
        return self.head(torch.cat([rows[:, 0], rows.mean(1)], 1))


def inputs_for(shape: Shape, n: int = N, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 2, SIDE, SIDE, generator=g)
    if shape.kind is Kind.TOKENS and shape.grid is None:
        return (images.flatten(1)[:, :shape.size[0] + (not shape.varies)] * 5).long().remainder(20)
    return images


def network(name: str, seed: int = 0) -> nn.Module:
    return seeded(lambda: Kinded(SHAPES[name]), seed).eval()


def allowed(source: Shape, target: Shape) -> bool:
    """A map and tokens that are no patches have no positions in common, a text and what does not vary
    neither."""
    kinds = {source.kind, target.kind}
    text = any(s.kind is Kind.TOKENS and s.grid is None for s in (source, target))
    if target.kind is Kind.TOKENS and (source.varies or target.varies):
        return source.varies and target.varies and source.prefix == target.prefix
    return not (text and kinds == {Kind.MAP, Kind.TOKENS})


PAIRS = [(a, b) for a, b in product(SHAPES, SHAPES) if allowed(SHAPES[a], SHAPES[b])]


def batch(shape: Shape, n: int = 30, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape.dims, generator=g) + 3


def aligned(x: Tensor, y: Tensor, source: Shape, target: Shape, prefix: str = "map") -> tuple[Tensor, Tensor]:
    """`references.aligned`, which knows maps (N, C, H, W)."""
    x, y = (t.movedim(-1, 1) if s.last else t for t, s in ((x, source), (y, target)))
    return references.aligned(x, y, replace(source, last=False), replace(target, last=False), prefix)


# -- alignment: moments and layers do what the kinds mean ----------------------------------------------------

def prefixes(source: Shape, target: Shape) -> tuple[str, ...]:
    if Kind.TOKENS not in (source.kind, target.kind) or source.prefix + target.prefix == 0:
        return ("auto",)
    return ("auto", *Alignment(source, target)._choices)


CASES = [(a, b, p) for a, b in PAIRS for p in prefixes(SHAPES[a], SHAPES[b])]


@pytest.mark.parametrize(("source", "target", "prefix"), CASES)
def test_moments_and_layers_share_the_alignment_that_the_kinds_mean(source: str, target: str,
                                                                    prefix: Any) -> None:
    s, t, rule = SHAPES[source], SHAPES[target], AlignmentRule(prefix=prefix)
    x, y = batch(s), batch(t, seed=1)
    rx, ry = aligned(x, y, s, t, Alignment(s, t, rule).prefix)
    moments = AlignedMoments([s], [t], rule, precision=torch.float64)
    moments.update([x[:11]], [y[:11]])
    moments.update([x[11:]], [y[11:]])
    match = direct_match(Pair.of(moments.get_moments(0, 0)))
    weight, bias = references.least_squares(rx, ry)
    best = rx @ weight.T + bias
    assert (rx @ match.weight.T + match.bias - best).norm() <= 1e-6 * best.norm()
    layer = StitchingLayer(Alignment(s, t, rule))
    learned = moments.get_prefix_mean(0) if layer.prefix is not None else None
    made = layer.set(match.weight, match.bias, learned)(x).detach()
    assert made.shape == y.shape
    rows = aligned(x, made, s, t, layer.alignment.prefix)[1]
    torch.testing.assert_close(rows, best, rtol=1e-4, atol=1e-4)
    if layer.alignment.keeps_prefix:
        torch.testing.assert_close(made[:, :t.prefix], x[:, :t.prefix])
    if layer.alignment.learns_prefix:
        torch.testing.assert_close(made[:, :t.prefix], y[:, :t.prefix].mean(0).expand(len(x), -1, -1))


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
    ("class token, 4x4", "registers, 4x4", "map", "choose from auto, drop, learn"),
    ("class token, 4x4", "class token, 2x2", "keep", "choose from auto, map, drop, learn"),
    ("class token, 4x4", "vector", "add", "choose from auto, drop, only"),
    ("map 8x8", "class token, 4x4", "map", "choose from auto, drop, learn"),
    ("sequence 12", "map 4x4", "only", "no patches of an image"),
    ("map 4x4", "sequence 12", "only", "no patches"),
])
def test_what_cannot_be_aligned_is_refused_with_shapes_and_options(source: str, target: str, prefix: Any,
                                                                   words: str) -> None:
    with pytest.raises(SutureError, match=words) as e:
        Alignment(SHAPES[source], SHAPES[target], AlignmentRule(prefix=prefix))
    assert str(SHAPES[source]) in str(e.value)
    assert str(SHAPES[target]) in str(e.value)


@pytest.mark.parametrize("option", ["resize", "order", "prefix"])
def test_unknown_rules_name_the_nearest(option: str) -> None:
    with pytest.raises(SutureError, match=f"unknown {option} 'nearst'"):
        AlignmentRule(**{option: "nearst"})


@pytest.mark.parametrize(("tokens", "image", "prefix", "grid"), [
    (197, (224, 224), 1, (14, 14)), (196, (224, 224), 0, (14, 14)), (198, (224, 224), 2, (14, 14)),
    (201, (224, 224), 5, (14, 14)), (65, (32, 32), 1, (8, 8)), (129, (16, 32), 1, (8, 16)),
    (12, None, 0, None), (1, (8, 8), 0, (1, 1)), (30, (8, 8), 5, (5, 5)), (48, (8, 8), 0, None),
])
def test_patches_and_prefix_are_recognised(tokens: int, image: Any, prefix: int, grid: Any) -> None:
    shape = recognise_shape(torch.zeros(2, tokens, 3), image)
    assert (shape.prefix, shape.grid) == (prefix, grid)


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
                       match="one attention mask on both sides, got 4 tokens that count for the source and 3 "
                             "for the target in example 3 of a batch; use one tokenizer"):
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


# -- the table -----------------------------------------------------------------------------------------------

def compared(source: str, target: str, family: str, methods: list[str], recipe: TaskRecipe) -> Any:
    a, b = network(source), network(target, 1)
    data, test = (Paired(*([(inputs_for(SHAPES[k], seed=seed), labels(b, target, seed))]
                           for k in (source, target))) for seed in (0, 1))
    return suture.compare(a, b, data, test, sites=["site"], family=family, methods=methods, indices=(),
                          tlm=recipe, device="cpu"), a, b


def labels(target: nn.Module, name: str, seed: int) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(target(inputs_for(SHAPES[name], seed=seed))).argmax(1)


def applies(family: str, source: Shape, target: Shape) -> bool:
    name = Family.parse(family).name
    square = name not in ("diagonal", "permutation", "identity") or source.width == target.width
    return square and (name != "orthogonal" or source.width <= target.width)


KINDS = ("map 8x8", "patches 4x4", "class token, 2x2", "sequence 12", "vector")
# Families know no kinds, so what is laid out otherwise is tried with one of them.
NEW = ("last 4x4", "text 12")
TABLE = [(a, b, f) for a, b in PAIRS for f in FAMILIES if {a, b} <= {*KINDS, *NEW}
         and ({a, b} <= {*KINDS} or f == "full")]


@pytest.mark.parametrize(("source", "target", "family"), TABLE)
def test_every_pair_of_kinds_every_family_both_methods(source: str, target: str, family: str) -> None:
    s, t = SHAPES[source], SHAPES[target]
    parsed, recipe = Family.parse(family), TaskRecipe(epochs=2, batch_size=60, lr=1e-2)
    if not applies(family, s, t):
        with pytest.raises(SutureError, match=r"p|width|channels"):
            compared(source, target, family, ["dm"], recipe)
        return
    trains = parsed.trainable and parsed.strength != "cv"
    result, a, b = compared(source, target, family, ["dm", "tlm"] if trains else ["dm"], recipe)
    with torch.no_grad():
        x = suture.capture(a, inputs_for(s), ["site"])["site"]
        y = suture.capture(b, inputs_for(t), ["site"])["site"]
    rx, ry = aligned(x, y, s, t)
    # Law 4: what is left of the target is orthogonal to the inputs of the full family, and never less than
    # there.
    weight, bias = (torch.as_tensor(result.arrays[f"dm.{k}/0/0"]).double() for k in ("weight", "bias"))
    off = ry - rx @ weight.T - bias
    best_weight, best_bias = references.least_squares(rx, ry)
    best = ry - rx @ best_weight.T - best_bias
    if parsed.name == "full":
        assert (off.T @ (rx - rx.mean(0))).norm() <= 1e-4 * ry.norm() * rx.norm()
    assert off.norm() >= best.norm() * (1 - 1e-5)
    spread = (ry - ry.mean(0)).square().sum()
    wanted = float(off.square().sum() / spread)
    assert result.arrays["dm.fit_residual"][0, 0] == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    for method in ("dm", "tlm") if trains else ("dm",):
        assert 0 <= result.matrix(f"{method}.accuracy").iloc[0, 0] <= 1
        assert np.isfinite(result.matrix(f"{method}.residual").iloc[0, 0])
    if parsed.name == "full":
        assert result.matrix("dm.residual").iloc[0, 0] <= result.matrix("tlm.residual").iloc[0, 0]
    if trains:
        start = StitchingLayer(Alignment(s, t),
                               parsed).init_random(derive_cell_seed(recipe.seed, "site", "site"))
        assert (np.abs(result.arrays["tlm.weight/0/0"] - start.weight.detach().numpy()).max()
                > 1e-3), "nothing moved"
    _gradients_only_in_the_layer(a, b, source, target, parsed)


def _gradients_only_in_the_layer(a: nn.Module, b: nn.Module, source: str, target: str,
                                 family: Family) -> None:
    first, second = inputs_for(SHAPES[source], 8), inputs_for(SHAPES[target], 8)
    one, two = (SitedNetwork(n.requires_grad_(False), x, ["site"]) for n, x in ((a, first), (b, second)))
    layer = StitchingLayer(Alignment(one.shapes[0], two.shapes[0]), family).init_random(0)
    with torch.no_grad():
        x, done = one.front(first)[0], two.run_full(second)
    made = layer(x)
    assert made.shape == two.pick_representations(done)[0].shape
    parameters = list(layer.parameters())
    if family.trainable:
        two.tail(0, made, done).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
    else:
        assert not parameters
    assert all(p.grad is None for n in (a, b) for p in n.parameters())


@pytest.mark.parametrize("prefix", ["drop", "learn", "keep", "map"])
def test_every_use_of_prefix_tokens_through_compare(prefix: Any) -> None:
    a, b = network("class token, 4x4"), network("class token, 4x4", 1)
    x = inputs_for(SHAPES["class token, 4x4"])
    result = suture.compare(a, b, (x, labels(b, "class token, 4x4", 0)), sites=["site"], indices=(),
                            device="cpu",
                            alignment=AlignmentRule(prefix=prefix), tlm=TaskRecipe(epochs=2, batch_size=60))
    assert np.isfinite(result.matrix("dm.residual").iloc[0, 0])
    kept = result.arrays.get("dm.prefix/0/0")
    assert (kept is not None) == (prefix == "learn")
    if prefix == "learn":
        y = suture.capture(b, x, ["site"])["site"][:, :1].mean(0)
        np.testing.assert_allclose(kept, y.detach(), rtol=1e-4, atol=1e-5)
        assert np.abs(result.arrays["tlm.prefix/0/0"]).max() > 1e-3, "training starts from zero"
