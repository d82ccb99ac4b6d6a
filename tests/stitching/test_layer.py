"""The stitching layer carries out the map that was fitted: all kinds of representation, all families."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suture
from suture import AlignmentRule, Family, Paired, SutureError, TaskRecipe
from suture._base import derive_seed
from suture.networks import SitedNetwork
from suture.representations.alignment import Alignment
from suture.representations.shapes import Kind, Shape
from suture.stitching import StitchingLayer
from tests.support import references
from tests.support.kinds import PAIRS, SHAPES, aligned, inputs_for, network
from tests.support.moments import SIZES, batch_of
from tests.support.plain_hooks import capture


@pytest.mark.parametrize(("source", "target"), list(product(SIZES, SIZES)))
def test_the_layer_applies_the_very_map_that_was_fitted(source, target):
    """Layer(x) as rows equals W (aligned x) + b, on whichever side the affine map is carried out."""
    x, like = batch_of(source, 4, 0), batch_of(target, 4, 1)
    layer = StitchingLayer(Alignment(source, target)).init_random(3)
    out = layer(x)
    assert out.shape == like.shape
    expected = references.rows(x, like) @ layer.weight.detach().double().T + layer.bias.detach().double()
    torch.testing.assert_close(references.rows(out.detach(), like), expected, rtol=1e-5, atol=1e-5)


FAMILIES = ("full", "ridge:0.1", "ridge:cv", "rank:3", "orthogonal", "orthogonal:noscale,noshift", "diagonal",
            "permutation", "identity", "sparse:0.05")


# -- every pair of kinds, every family, both methods ---------------------------------------------------------


def compared(source: str, target: str, family: str, methods: list[str], recipe: TaskRecipe) -> Any:
    a, b = network(source), network(target, 1)
    data, test = (Paired(*([(inputs_for(SHAPES[k], seed=seed), labels(b, target, seed))]
                           for k in (source, target))) for seed in (0, 1))
    # What detectors see is of the target's kind, whatever the source and the family: each kind once.
    ood: dict[str, Any] = {} if (source, family) == (SEEN_FROM[target], "full") else {"ood": None}
    return suture.compare(a, b, data, test, sites=["site"], family=family, methods=methods, indices=(),
                          tlm=recipe, device="cpu", **ood), a, b


def labels(target: nn.Module, name: str, seed: int) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(target(inputs_for(SHAPES[name], seed=seed))).argmax(1)


def applies(family: str, source: Shape, target: Shape) -> bool:
    if Family.parse(family).square:
        return source.width == target.width
    return "orthogonal" not in family or source.width <= target.width


KINDS = ("map 8x8", "patches 4x4", "class token, 2x2", "sequence 12", "vector")
# Families know no kinds, so what is laid out otherwise is tried with one of them.
NEW = ("last 4x4", "text 12")
TABLE = [(a, b, f) for a, b in PAIRS for f in FAMILIES if {a, b} <= {*KINDS, *NEW}
         and ({a, b} <= {*KINDS} or f == "full")]


SEEN_FROM = {b: a for a, b, f in reversed(TABLE) if f == "full"}
"""A source for each target's kind."""


def choose_brief() -> set[tuple[str, str, str]]:
    """Choose rows of `TABLE` in which each family meets a map, tokens and a vector, as source and as target.

    The full family is tried with all pairs, and what a family refuses once.
    """
    def meets(row: tuple[str, str, str]) -> set[tuple[str, ...]]:
        a, b, family = row
        sides = {("from", SHAPES[a].kind.name, family), ("into", SHAPES[b].kind.name, family)}
        return sides if applies(family, SHAPES[a], SHAPES[b]) else {("refused", family)}

    met = {row: meets(row) for row in TABLE}
    chosen = {row for row in TABLE if row[2] == "full"}
    missing = set().union(*met.values()) - set().union(*(met[row] for row in chosen))
    while missing:
        best = max(TABLE, key=lambda row: len(met[row] & missing))
        chosen.add(best)
        missing -= met[best]
    return chosen


BRIEF = choose_brief()


@pytest.mark.parametrize(("source", "target", "family"), [
    pytest.param(*row, marks=() if row in BRIEF else pytest.mark.slow) for row in TABLE])
def test_every_pair_of_kinds_every_family_both_methods(source: str, target: str, family: str) -> None:
    s, t = SHAPES[source], SHAPES[target]
    parsed, recipe = Family.parse(family), TaskRecipe(epochs=2, batch_size=60, lr=1e-2)
    if not applies(family, s, t):
        with pytest.raises(SutureError, match=r"p|width|channels"):
            compared(source, target, family, ["dm"], recipe)
        return
    trains = parsed.trainable and not parsed.needs_folds
    result, a, b = compared(source, target, family, ["dm", "tlm"] if trains else ["dm"], recipe)
    x, y = (capture(n, inputs_for(shape), ["site"])["site"] for n, shape in ((a, s), (b, t)))
    rx, ry = aligned(x, y, s, t)
    # Law 4: what is left of the target is orthogonal to the inputs of the full family, and never less than
    # there.
    weight, bias = (torch.as_tensor(result.arrays[f"dm.{k}/0/0"]).double() for k in ("weight", "bias"))
    off = ry - rx @ weight.T - bias
    best_weight, best_bias = references.least_squares(rx, ry)
    best = ry - rx @ best_weight.T - best_bias
    if family == "full":
        assert (off.T @ (rx - rx.mean(0))).norm() <= 1e-4 * ry.norm() * rx.norm()
    assert off.norm() >= best.norm() * (1 - 1e-5)
    spread = (ry - ry.mean(0)).square().sum()
    wanted = float(off.square().sum() / spread)
    assert result.arrays["dm.fit_residual"][0, 0] == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    values = result.table.set_index("measure")["value"]  # of the only cell
    for method in ("dm", "tlm") if trains else ("dm",):
        assert 0 <= values[f"{method}.accuracy"] <= 1
        assert np.isfinite(values[f"{method}.residual"])
    if family == "full":
        assert values["dm.residual"] <= values["tlm.residual"]
    if trains:
        start = StitchingLayer(Alignment(s, t),
                               parsed).init_random(derive_seed(recipe.seed, "site", "site"))
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


@pytest.mark.parametrize("prefix", ["drop", "map"])
def test_every_use_of_prefix_tokens_through_compare(prefix: Any) -> None:
    a, b = network("class token, 4x4"), network("class token, 4x4", 1)
    x = inputs_for(SHAPES["class token, 4x4"])
    result = suture.compare(a, b, (x, labels(b, "class token, 4x4", 0)), sites=["site"], indices=(),
                            ood=None, device="cpu",
                            alignment=AlignmentRule(prefix=prefix), tlm=TaskRecipe(epochs=2, batch_size=60))
    assert np.isfinite(result.matrix("dm.residual").iloc[0, 0])


FREE, SHORT = Shape(Kind.TOKENS, 6, (12,), varies=True), Shape(Kind.TOKENS, 6, (9,), varies=True)


@pytest.mark.parametrize(("source", "target", "words"), [
    (Shape(Kind.TOKENS, 6, (12,)), FREE, "another length in each batch"),
    (FREE, Shape(Kind.TOKENS, 6, (12,)), "another length in each batch"),
    (Shape(Kind.TOKENS, 6, (17,), 1, (4, 4)), FREE, "stitch sequences to sequences"),
    (Shape(Kind.VECTOR, 6), FREE, "another length in each batch"),
    (FREE, SHORT, "12 and 9 tokens for the same examples; use one tokenizer and one padding"),
    (FREE, Shape(Kind.TOKENS, 6, (12,), 1, varies=True), "equally many prefix tokens"),
    (FREE, Shape(Kind.MAP, 6, (4, 4)), "no patches of an image"),
    (Shape(Kind.MAP, 6, (4, 4)), FREE, "no patches"),
])
def test_texts_that_cannot_be_aligned_say_why(source: Shape, target: Shape, words: str) -> None:
    with pytest.raises(SutureError, match=words) as e:
        Alignment(source, target)
    assert str(source) in str(e.value)
    assert str(target) in str(e.value)


@pytest.mark.parametrize("family", ["ridge:0.1", "sparse:0.5"])
def test_a_family_without_a_proximal_step_leaves_its_weight_alone(family: str) -> None:
    layer = StitchingLayer(Alignment(Shape(Kind.VECTOR, 4), Shape(Kind.VECTOR, 3)), Family.parse(family))
    before = layer.weight._version
    layer.shrink(0.1)
    assert (layer.weight._version > before) == ("sparse" in family)
