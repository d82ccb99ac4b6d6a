"""Kinds that are recognised or overridden: maps with channels last, patches and prefixes, texts of varying
length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import suture
from suture import OOD, EnergyRecipe, Paired, SutureError, TaskRecipe
from suture.data.batch import Batch
from suture.data.batches import Batches
from suture.networks.calls import freeze
from suture.networks.naming import Site
from suture.networks.site_outputs import capture, find_sites, run_tail
from suture.networks.sites import SitedNetwork
from suture.numbers.spectra import Pair
from suture.ood.auxiliary import gather_inputs
from suture.ood.detectors.energy_detector import EnergyDetector
from suture.ood.detectors.energy_training import train_detectors
from suture.ood.detectors.site_features import SiteFeatures
from suture.representations.aligned_moments import AlignedMoments
from suture.representations.alignment import Alignment, AlignmentRule
from suture.representations.shapes import (
    Kind,
    Shape,
    ShapeOverride,
    find_image_size,
    find_sequence_lengths,
    recognise_shape,
)
from suture.stitching import StitchingLayer, direct_match
from suture.stitching.trainer import GroupTrainer
from tests.support import references, tiny
from tests.support.tiny import seeded

CPU = torch.device("cpu")


# -- what is recognised --------------------------------------------------------------------------------------

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


# -- maps with the channels last -----------------------------------------------------------------------------

class Mixer(nn.Module):
    """Works on the last axis, as the blocks of Swin do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.mix(self.norm(x))).roll(1, 1)


class Permuted(nn.Module):
    """The same with channels first."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Windows(nn.Module):
    """(N, 2, 8, 8) -> stem -> two blocks with channels last, or wrapped so that they have them first ->
    (N, 3)."""

    def __init__(self, width: int = 6, last: bool = True) -> None:
        super().__init__()
        self.last = last
        self.stem = nn.Conv2d(2, width, 2, 2)
        self.blocks = nn.ModuleList([Mixer(width), Mixer(width)])
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        # Channels last in name, first in memory: what follows may rely on that, as `.view` does.
        h = h.permute(0, 2, 3, 1) if self.last else h
        for block in self.blocks:
            h = block(h)
        h = h.permute(0, 3, 1, 2) if self.last else h
        return self.head(h.contiguous().view(len(h), h.shape[1], -1).mean(2))


def first(network: Windows) -> Windows:
    """A copy with channels first."""
    other = Windows(network.head.in_features, last=False)
    other.load_state_dict(network.state_dict())
    other.blocks = nn.ModuleList(Permuted(b) for b in other.blocks)
    return other


IMAGES = torch.randn(60, 2, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3


def test_channels_last_gives_the_numbers_of_a_copy_with_channels_first() -> None:
    a, b = seeded(Windows), seeded(lambda: Windows(5), 1)
    recipe = TaskRecipe(epochs=1, batch_size=30, lr=1e-2)
    indices = ["cka", "pwcca", "cka_debiased"]
    made = [suture.compare(x, y, (IMAGES, LABELS), sites="blocks.*", tlm=recipe, indices=indices,
                           device="cpu")
            for x, y in ((a, b), (first(a), first(b)))]
    assert made[0].meta["shapes"]["source"] == ["map 6x4x4 (channels last)"] * 2
    assert made[1].meta["shapes"]["source"] == ["map 6x4x4"] * 2
    assert {"cka", "dm.residual", "tlm.residual", "dm.frechet",
            "dm.ood_mahalanobis"} <= set(made[0].table["measure"])
    np.testing.assert_allclose(made[0].table["value"], made[1].table["value"], rtol=2e-4, atol=2e-5)
    mixed = suture.compare(a, first(b), (IMAGES, LABELS), sites="blocks.*", methods=["dm"], indices=indices,
                           ood=None, device="cpu")
    for name in mixed.measures:
        np.testing.assert_allclose(mixed.matrix(name), made[0].matrix(name), rtol=2e-4, atol=2e-5)


def test_energy_detectors_take_the_channels_where_they_are() -> None:
    shapes = Shape(Kind.MAP, 6, (4, 4)), Shape(Kind.MAP, 6, (4, 4), last=True)
    one, other = (EnergyDetector.make(s, 3, EnergyRecipe(), (8, 8), "site") for s in shapes)
    x = torch.randn(5, 6, 4, 4)
    for d in (one, other):
        d.mean.copy_(torch.arange(6.0))
    torch.testing.assert_close(one.score(SiteFeatures(x, shapes[0])),
                               other.score(SiteFeatures(x.permute(0, 2, 3, 1).contiguous(), shapes[1])))
    with pytest.raises(SutureError, match=r"shape \(N, 4, 4, 6\), got \(5, 6, 4, 4\)"):
        other(x)


class Strided(nn.Module):
    """Views a map in the layout that its own block gives, whatever the order of its axes."""

    def __init__(self, block: nn.Module, order: Sequence[int]) -> None:
        super().__init__()
        self.block, self.order, self.head = block, order, nn.Linear(128, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x).permute(*self.order).view(len(x), -1))


class Turned(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order, self.conv = order, nn.Conv2d(2, 8, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).contiguous().permute(*self.order)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2), (0, 3, 2, 1), (0, 2, 1, 3)])
def test_a_given_map_lies_in_memory_as_the_networks_own(order: tuple[int, ...]) -> None:
    back = tuple(order.index(d) for d in range(4))
    network = seeded(lambda: Strided(Turned(*order), back)).eval()
    x = capture(network, IMAGES[:6], ["block"])["block"]
    with torch.no_grad():
        wanted = network(IMAGES[:6])
    for given in (x, x.contiguous(), x.clone(memory_format=torch.channels_last)):
        torch.testing.assert_close(run_tail(network, IMAGES[:6], "block", given), wanted)
    torch.testing.assert_close(run_tail(network, IMAGES[:6], "block", torch.cat([x, x])),
                               torch.cat([wanted, wanted]))


# -- what a user says ----------------------------------------------------------------------------------------

@pytest.mark.parametrize(("written", "site"), [
    ("blocks.3@tokens:1", Site("blocks.3", taken="tokens:1")),
    ("a#2:x@map:last", Site("a", 2, "x", "map:last")), ("a:1@vector", Site("a", 0, 1, "vector")),
    ("a@tokens:1,14x14", Site("a", taken="tokens:1,14x14")), ("a", Site("a")),
])
def test_a_site_says_how_it_is_taken_and_tables_leave_it_out(written: str, site: Site) -> None:
    assert Site.parse(written) == site
    assert site.written == written
    assert str(site) == written.split("@")[0]


@pytest.mark.parametrize("taken", ["token", "tokens:", "tokens:a", "tokens:1,14", "map:first",
                                   "vector:2", "tokens:-1"])
def test_unknown_ways_to_take_a_site_are_refused_at_once(taken: str) -> None:
    with pytest.raises(SutureError, match=f"tokens:1,14x14 .*, got '{taken}'"):
        Site.parse(f"blocks.3@{taken}")


def test_nothing_behind_the_at_is_refused() -> None:
    with pytest.raises(SutureError, match=r"write 'blocks.\*@tokens:1', or leave out the @"):
        find_sites(seeded(Windows), IMAGES[:4], "blocks.*@")


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
    ("vector", (3, 8, 8), r"expected \(N, D\) to be taken as vector, got shape \(2, 3, 8, 8\)"),
    ("tokens", (3, 8, 8), r"expected \(N, T, D\) to be taken as tokens, got shape \(2, 3, 8, 8\)"),
    ("map:last", (3, 8), r"expected \(N, H, W, C\) to be taken as map, got shape \(2, 3, 8\)"),
    ("tokens:1,4x5", (17, 3), "1 prefix tokens and 4x5 patches, got 17 tokens"),
    ("tokens:17", (17, 3), "more than 17 tokens, got 17 tokens"),
])
def test_what_cannot_be_taken_so_says_what_came(taken: str, axes: Any, words: str) -> None:
    with pytest.raises(SutureError, match=words):
        ShapeOverride.parse(taken).build_shape(torch.zeros(2, *axes))


def test_overrides_of_sites_and_globs() -> None:
    network, x = seeded(Windows), IMAGES[:4]
    shapes = {str(i.site): str(i.shape) for i in find_sites(network, x, ["blocks.*@map", "stem"])}
    assert shapes == {"stem": "map 6x4x4", "blocks.0": "map 4x4x6", "blocks.1": "map 4x4x6"}
    found = find_sites(network, x, ["blocks.1@map", "blocks.*"])
    assert [(str(i.site), i.shape.last) for i in found] == [("blocks.0", True), ("blocks.1", False)]
    assert [i.kind for i in find_sites(network, x, [Site("blocks.0", taken="map:last")])] == [Kind.MAP]
    with pytest.raises(SutureError,
                       match=r"site 'blocks.1' of the network once, got it taken as map and as map:last"):
        find_sites(network, x, ["blocks.*@map", "blocks.1@map:last"])
    with pytest.raises(SutureError, match=r"site 'stem' of the network: expected \(N, D\) to be taken as "
                                          r"vector, got shape \(4, 6, 4, 4\); leave out"):
        find_sites(network, x, ["stem@vector"])


def test_an_override_is_part_of_a_comparisons_key_and_nothing_else_changes() -> None:
    network = seeded(Windows)

    def run(sites: Any) -> Any:
        return suture.compare(network, None, (IMAGES, LABELS), sites=sites, methods=["dm"], indices=["cka"],
                              ood=None, device="cpu")

    plain, same, other = run("blocks.*"), run("blocks.*@map:last"), run(["blocks.0@map", "blocks.1"])
    assert len({r.meta["key"] for r in (plain, same, other)}) == 3
    assert plain.table.equals(same.table)
    assert plain.sources == other.sources
    own, changed = (r.matrix("cka").to_numpy() for r in (plain, other))
    assert own[1, 1] == pytest.approx(changed[1, 1], rel=1e-6)
    assert abs(own[0, 1] - changed[0, 1]) > 1e-3


# -- texts of varying length ---------------------------------------------------------------------------------

class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        mask = None if kept is None else kept[:, None].expand(-1, x.shape[1], -1)
        return x + torch.tanh(self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))


class Text(nn.Module):
    """Ids (N, T) -> logits (N, 3); `pool` is a vector of the text."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, width)
        self.blocks = nn.ModuleList([Layer(width), Layer(width)])
        self.pool, self.head = nn.Linear(width, 5), nn.Linear(5, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        kept = None if attention_mask is None else attention_mask.bool()
        h = self.embed(input_ids)
        for block in self.blocks:
            h = block(h, kept)
        weight = torch.ones_like(h[..., :1]) if kept is None else kept[..., None].float()
        return self.head(torch.tanh(self.pool((h * weight).sum(1) / weight.sum(1))))


def texts(n: int = 30, seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 30, (int(torch.randint(2, 10, (1,), generator=g)),), generator=g)
            for _ in range(n)]


def collated(of: Sequence[Tensor], size: int,
             length: int | None = None) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Batches padded to a length, or each to its longest text, as collators do by default."""
    batches = []
    for k in range(0, len(of), size):
        part = of[k:k + size]
        longest = length or max(map(len, part))
        ids = torch.stack([F.pad(t, (0, longest - len(t))) for t in part])
        inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
        batches.append((inputs, torch.arange(k, k + len(part)) % 3))
    return batches


TEXTS = texts()
PADDINGS = {"each batch its own": (7, None), "one long batch": (30, None), "two more": (11, 12)}


def two() -> tuple[Text, Text]:
    return seeded(Text).eval(), seeded(lambda: Text(6), 1).eval()


def alone(network: nn.Module, site: str) -> list[Tensor]:
    """Representations of the texts one by one, without padding: the slow reference."""
    return [capture(network, {"input_ids": t[None]}, [site])[site][0].double() for t in TEXTS]


def test_the_tail_of_a_text_is_its_network_at_every_length_and_for_copies() -> None:
    network = two()[0]
    for sites in ("blocks.*", "embed"):
        sited = SitedNetwork(network, collated(TEXTS[:4], 4)[0][0], sites)
        lengths = set()
        for inputs, _ in collated(TEXTS, 7):
            with freeze(network), torch.no_grad():
                done = sited.run_full(inputs)
                for j, x in enumerate(sited.pick_representations(done)):
                    lengths.add(x.shape[1])
                    torch.testing.assert_close(sited.tail(j, x, done), done.output)
                    torch.testing.assert_close(sited.tail(j, torch.cat([x, x, x]), done),
                                               done.output.repeat(3, 1))
        assert len(lengths) > 1


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


def test_a_comparison_of_texts_knows_neither_batches_nor_padding() -> None:
    a, b = two()
    made = [suture.compare(a, b, collated(TEXTS, *how), sites=["blocks.0", "blocks.1"], methods=["dm"],
                           device="cpu", target_sites=["blocks.1", "pool"],
                           ood=OOD(("mahalanobis", "neighbours"))) for how in PADDINGS.values()]
    tables = [r.table[~r.table["measure"].str.contains("residual_batches|two_sample")] for r in made]
    for other in tables[1:]:
        np.testing.assert_allclose(tables[0]["value"], other["value"], rtol=1e-3, atol=1e-4)
    x, y = torch.cat(alone(a, "blocks.0")).numpy(), torch.cat(alone(b, "blocks.1")).numpy()
    assert made[0].matrix("cka").iloc[0, 0] == pytest.approx(references.cka(x, y), rel=1e-4)
    assert made[0].matrix("dm.r2").iloc[0, 0] == pytest.approx(references.r2(x, y), rel=1e-3)
    assert np.isfinite(tables[0]["value"]).all()


def test_layers_of_texts_are_trained_on_batches_of_any_length() -> None:
    a, b = two()
    batches = Batches(collated(TEXTS, 7))
    one, other = (SitedNetwork(n.requires_grad_(False), next(iter(batches)).source, s) for n, s in (
        (a, ["blocks.0@tokens:1", "blocks.1@tokens:1"]), (b, ["blocks.0@tokens:1", "pool"])))
    rules: tuple[Any, ...] = (("auto", "only", "hard"), ("learn", "drop", "soft"), ("drop", "auto", "match"))
    for into_tokens, into_vector, objective in rules:
        layers = {(i, j): StitchingLayer(Alignment(s, t, AlignmentRule(prefix=(into_tokens, into_vector)[j])))
                  .init_random(1) for i, s in enumerate(one.shapes) for j, t in enumerate(other.shapes)}
        recipe = TaskRecipe(epochs=2, lr=1e-2, objective=objective)
        curves = GroupTrainer(one, other, layers, recipe, 4).fit(batches, CPU)
        assert not curves.failed
        assert all(np.isfinite(v).all() and v[1] < v[0] for v in curves.loss.values())


FREE, SHORT = Shape(Kind.TOKENS, 6, (12,), varies=True), Shape(Kind.TOKENS, 6, (9,), varies=True)


@pytest.mark.parametrize(("source", "target", "words"), [
    (Shape(Kind.TOKENS, 6, (12,)), FREE, "another number in each batch, and the others are always as many"),
    (FREE, Shape(Kind.TOKENS, 6, (12,)), "another number in each batch, and the others are always as many"),
    (Shape(Kind.TOKENS, 6, (17,), 1, (4, 4)), FREE, "stitch sequences to sequences or into a vector"),
    (Shape(Kind.VECTOR, 6), FREE, "another number in each batch, and a vector has no positions"),
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


@pytest.mark.parametrize(("change", "words"), [
    (lambda t: t[1:], "for the same examples; use one tokenizer"),
    (lambda t: t if len(t) == 9 else t[1:],
     "one attention mask on both sides, got . tokens that count for the source and . for the target in "
     "example . of a batch; use one tokenizer"),
])
def test_two_tokenizers_are_refused(change: Any, words: str) -> None:
    a, b = two()
    one, other = collated(TEXTS, 30), collated([change(t) for t in TEXTS], 30)
    with pytest.raises(SutureError, match=words):
        suture.compare(a, b, Paired(one, other), sites="blocks.*", methods=["dm"], device="cpu", ood=None)
    # Into a vector each side averages over its own tokens.
    made = suture.compare(a, b, Paired(one, other), sites="blocks.*", target_sites=["pool"], methods=["dm"],
                          indices=["cka"], device="cpu", ood=None)
    assert np.isfinite(made.matrix("cka").to_numpy()).all()


def test_lengths_that_differ_in_a_later_batch_are_refused() -> None:
    x, y = torch.randn(4, 12, 6), torch.randn(4, 12, 6)
    moments = AlignedMoments([FREE], [FREE])
    moments.update([x], [y])
    with pytest.raises(SutureError,
                       match="as many tokens on both sides, got 7 for the source and 9 for the target"):
        moments.update([x[:, :7]], [y[:, :9]])


class Halved(Text):
    """Gives every other token, so that no number of tokens but the first batch's is the inputs'."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        h = self.blocks[0](self.embed(input_ids)[:, :6])
        return self.head(torch.tanh(self.pool(h.mean(1))))


def test_tokens_that_are_not_those_of_the_text_are_refused_where_the_text_is_another() -> None:
    network = seeded(Halved).eval()
    ids = torch.ones(4, 9, dtype=torch.int64)
    sited = SitedNetwork(network, {"input_ids": ids[:, :6]}, ["blocks.0"])
    assert sited.shapes[0].varies
    with pytest.raises(SutureError, match=r"as many tokens at site 'blocks.0' of the network as its inputs "
                                          "have, 9, got 6; leave this site out"):
        sited.front({"input_ids": ids})


@pytest.mark.parametrize("features", ["mean", "spread", "rows"])
def test_what_detectors_see_of_a_text_does_not_depend_on_its_padding(features: str) -> None:
    x = torch.randn(5, 8, 6)
    mask = torch.arange(8) < torch.tensor([1, 3, 5, 2, 4])[:, None]
    shape = Shape(Kind.TOKENS, 6, (8,), varies=True)
    full, cut = SiteFeatures(x, shape, mask), SiteFeatures(x[:, :5], shape, mask[:, :5])
    if features == "rows":
        assert full.counted is not None
        assert cut.counted is not None
        torch.testing.assert_close(full.rows[full.counted], cut.rows[cut.counted])
        return
    torch.testing.assert_close(getattr(full, features), getattr(cut, features))
    one = SiteFeatures(x[:1, :1], shape, mask[:1, :1])
    torch.testing.assert_close(getattr(one, features), getattr(full, features)[:1])


def test_energy_detectors_of_texts_know_no_positions() -> None:
    shape = Shape(Kind.TOKENS, 6, (8,), varies=True)
    detector = EnergyDetector.make(shape, 3, EnergyRecipe(), None, "site")
    x = torch.randn(5, 12, 6)
    mask = torch.arange(12) < torch.tensor([1, 3, 5, 2, 4])[:, None]
    score = detector.score(SiteFeatures(x, shape, mask))
    torch.testing.assert_close(score, detector.score(SiteFeatures(x[:, :5], shape, mask[:, :5])))
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(score[2:3], detector.score(SiteFeatures(x[2:3, order], shape)))


def test_energy_detectors_are_trained_on_texts_and_auxiliary_ones_of_other_lengths() -> None:
    network, auxiliary, recipe = (two()[0], collated(texts(12, 5), 12, 12)[0][0],
                                  EnergyRecipe(epochs=1, tune_epochs=1))
    inputs = collated(TEXTS, 5)[0][0]
    scores = []
    for length in (None, 12):  # 12: all as long as the auxiliary ones
        batches = Batches(collated(TEXTS, 7, length))
        sited = SitedNetwork(network, next(iter(batches)).target, "blocks.*")
        made = train_detectors(sited, batches, auxiliary, recipe, CPU, classes=3, sites=[0, 1], micro_batch=4)
        with freeze(network), torch.no_grad():
            seen = [SiteFeatures(x, shape, inputs["attention_mask"].bool())
                    for x, shape in zip(sited.front(inputs), sited.shapes, strict=True)]
        scores.append(torch.stack([made[j].score(s) for j, s in enumerate(seen)]))
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-3, atol=1e-4)


def test_a_sample_of_texts_is_padded_to_the_longest() -> None:
    batches = collated(TEXTS, 7)
    made = gather_inputs(Batches(batches), 25)
    assert made["input_ids"].shape == (25, 9)
    assert ([row[m.bool()].tolist() for row, m in zip(made["input_ids"], made["attention_mask"], strict=True)]
            == [t.tolist() for t in TEXTS[:25]])
    # Without a mask nothing says what is padding.
    raw = [Batch(b["input_ids"], b["input_ids"], None) for b, _ in batches]
    taken = gather_inputs(Batches(raw), 25)
    same = [b.target for b in raw if b.target.shape[1] == raw[0].target.shape[1]]
    assert torch.equal(taken, torch.cat(same)[:25])
    with pytest.raises(SutureError, match=r"per example \('T',\) int64 and \('T',\) int64, got \(5,\) int64"):
        gather_inputs(Batches([Batch(torch.ones(2, 5).long(), torch.ones(2, 5).long(), None)]), 2, made)


# -- networks of transformers --------------------------------------------------------------------------------

SMALL = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
PIXELS = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
VISION: dict[str, Any] = {
    "DeiT": (lambda t: t.DeiTForImageClassification(t.DeiTConfig(**SMALL, image_size=32, patch_size=8)),
             {"pixel_values": PIXELS}, "deit.layers.0", "tokens 18x8 (2 prefix, 4x4 patches)"),
    "registers": (lambda t: t.Dinov2WithRegistersForImageClassification(t.Dinov2WithRegistersConfig(
        **SMALL, mlp_ratio=1, image_size=32, patch_size=8, num_register_tokens=4)), {"pixel_values": PIXELS},
        "dinov2_with_registers.encoder.layer.0", "tokens 21x8 (5 prefix, 4x4 patches)"),
    "not square":
    (lambda t: t.ViTForImageClassification(t.ViTConfig(**SMALL, image_size=(32, 20), patch_size=8)),
     {"pixel_values": PIXELS[..., :20]}, "vit.layers.0", "tokens 9x8 (1 prefix, 4x2 patches)"),
    "masked": (lambda t: t.ViTModel(t.ViTConfig(**SMALL, image_size=32, patch_size=8), use_mask_token=True),
               {"bool_masked_pos": torch.ones(4, 16, dtype=torch.bool), "pixel_values": PIXELS}, "layers.0",
               "tokens 17x8 (1 prefix, 4x4 patches)"),
    "ConvNeXt": (lambda t: t.ConvNextForImageClassification(t.ConvNextConfig(
        hidden_sizes=[6, 8], depths=[1, 1], num_stages=2, patch_size=2)), {"pixel_values": PIXELS},
                 "convnext.encoder.stages.0.layers.0.pwconv1", "map 24x16x16 (channels last)"),
}


@pytest.mark.parametrize("name", VISION)
def test_vision_transformers_are_recognised(name: str) -> None:
    make, inputs, site, shape = VISION[name]
    network = seeded(lambda: make(pytest.importorskip("transformers")))
    sited = SitedNetwork(network, inputs, [site], allow_bypass=True)
    assert str(sited.shapes[0]) == shape
    with freeze(network), torch.no_grad():
        done = sited.run_full(inputs)
        x = sited.pick_representations(done)[0]
        mine, own = (next(iter(o.values())) for o in (sited.tail(0, x, done), done.output))
    torch.testing.assert_close(mine, own, rtol=1e-4, atol=1e-5)


class SequenceFirst(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(0, 1)).transpose(0, 1).mean(1)


def test_batches_on_the_second_axis_are_refused_with_what_to_write() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8), 2, enable_nested_tensor=False)
    with pytest.raises(SutureError,
                       match=r"batch as first axis at site 'inner.layers.0' of the network, got shape \(9, "
                             r"4, 8\) for 4 examples; make the network with batch_first=True"):
        find_sites(SequenceFirst(encoder), torch.randn(4, 9, 8), ["inner.layers.0"])


def test_a_saved_stitched_network_keeps_how_its_sites_are_taken(tmp_path: Path) -> None:
    network, x = tiny.network(), tiny.images()
    made = suture.stitch(network, "block1@map:last", network, "block1@map:last",
                         (x, tiny.labels()), device="cpu")
    made.save(tmp_path / "layer.safetensors")
    found = suture.load_stitched(tmp_path / "layer.safetensors", network, network)
    assert [s.written for s in found.sites] == ["block1@map:last"] * 2
    torch.testing.assert_close(found(x), made(x))
