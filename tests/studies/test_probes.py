"""Linear probes against a plain training loop over features of representations that were cut one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import suture
from suture import SutureError
from suture.networks import ViT, augment
from suture.studies import ProbeRecipe
from suture.studies.probes.principal_components import choose_ranks, grade_ranks, read_ranks
from suture.studies.probes.training import draw_probes
from tests.support.cuts import cut, find_components, list_rows
from tests.support.languages import Language
from tests.support.tiny import Tiny

RECIPE = ProbeRecipe(epochs=5, batch_size=10, lr=0.3, drop=4, weight_decay=0.01, seed=3)
SITES = ("block1", "block2")


def make_images(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images whose class is a colour and a brightness."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=g)
    return torch.rand(n, 2, 8, 8, generator=g) + labels[:, None, None, None] * torch.tensor(
        [[[0.3]], [[-0.2]]]), labels


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tiny().eval()


def train_plainly(site: str, epochs: list[Tensor], labels: Tensor, recipe: ProbeRecipe) -> nn.Linear:
    """The loop that everybody writes; the features (N, p) of each epoch in float32."""
    start = draw_probes(recipe.seed, site, 1, 3, epochs[0].shape[1])
    layer = nn.Linear(epochs[0].shape[1], 3)
    with torch.no_grad():
        layer.weight.copy_(start.weight[0])
        layer.bias.copy_(start.bias[0])
    optimizer = torch.optim.Adam(layer.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    order = torch.Generator().manual_seed(recipe.seed)
    for epoch, features in enumerate(epochs):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr if epoch < (recipe.drop or 99) else recipe.lr / 10
        for rows in torch.randperm(len(labels), generator=order).split(recipe.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(layer(features[rows]), labels[rows]).backward()
            optimizer.step()
    return layer


def find_hits(layer: nn.Linear, features: Tensor, labels: Tensor) -> np.ndarray:
    return (layer(features).argmax(1) == labels).numpy()


@pytest.mark.parametrize("crop", [0, 1])
def test_probes_at_every_rank_are_those_of_a_plain_loop(network: nn.Module, crop: int) -> None:
    recipe = replace(RECIPE, crop=crop)
    (x, labels), (new, wanted) = make_images(50, 0), make_images(40, 1)
    found = suture.probe(network, (x, labels), (new, wanted), sites=SITES, ranks=[3, 1], recipe=recipe,
                         batch_size=20, device="cpu")
    g = torch.Generator().manual_seed(3)
    images = [torch.cat([augment(b, g, crop, False) for b in x.split(20)]) if crop else x for _ in range(5)]
    states = [suture.capture(network, of, SITES) for of in (*images, x, new)]
    for site, width in (("block1", 3), ("block2", 4)):
        components = find_components(list_rows(states[-2][site]))
        assert [r for s, r in found.hits if s == site] == sorted({width, 3, 1}, reverse=True)
        for rank in {width, 3, 1}:
            *epochs, fit, test = (cut(of[site], rank, *components).mean((2, 3)).float() for of in states)
            layer = train_plainly(site, epochs, labels, recipe)
            hits = find_hits(layer, test, wanted)
            np.testing.assert_array_equal(found.hits[site, rank], hits)
            row = found.table.set_index(["site", "rank"]).loc[(site, rank)]
            assert row["accuracy"] == pytest.approx(hits.mean())
            assert row["train_accuracy"] == pytest.approx(find_hits(layer, fit, labels).mean())
            assert row["change"] == pytest.approx(hits.mean() - found.hits[site, width].mean())
    assert found.table["accuracy"].max() > 0.55


def test_components_of_each_batch(network: nn.Module) -> None:
    (x, labels), (new, wanted) = make_images(50, 0), make_images(40, 1)
    found = suture.probe(network, (x, labels), (new, wanted), sites=["block2"], ranks=[2], recipe=RECIPE,
                         basis="batch", batch_size=20, device="cpu")

    def pool(inputs: Tensor) -> Tensor:
        parts = [suture.capture(network, b, ["block2"])["block2"] for b in inputs.split(20)]
        return torch.cat([cut(p, 2, *find_components(list_rows(p))) for p in parts]).mean((2, 3)).float()

    layer = train_plainly("block2", [pool(x)] * 5, labels, RECIPE)
    np.testing.assert_array_equal(found.hits["block2", 2], find_hits(layer, pool(new), wanted))


def test_class_tokens_are_read_where_there_are_any() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vit = ViT(5, 4, 3, dim=6, depth=1, heads=1).eval()
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (40,), generator=g)
    x = torch.randn(40, 4, 5, generator=g) + labels[:, None, None]
    states = suture.capture(vit, x, ["blocks.0@tokens:1"])["blocks.0"]
    components = find_components(list_rows(states))
    for features, read in (("auto", lambda t: t[:, 0]), ("pooled", lambda t: t[:, 1:].mean(1))):
        recipe = ProbeRecipe(epochs=3, batch_size=16, lr=0.05, features=features)
        found = suture.probe(vit, (x, labels), sites=["blocks.0@tokens:1"], ranks=[2], recipe=recipe,
                             device="cpu")
        made = read(cut(states, 2, *components)).float()
        layer = train_plainly("blocks.0", [made] * 3, labels, recipe)
        np.testing.assert_array_equal(found.hits["blocks.0", 2], find_hits(layer, made, labels))
        assert found.notes


def test_padding_tokens_count_for_nothing() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Language().eval()
    g = torch.Generator().manual_seed(0)
    labels, ids = torch.randint(0, 3, (30,), generator=g), torch.randint(0, 13, (30, 7), generator=g)
    ids[:, 0] = labels
    mask = torch.arange(7) < torch.randint(2, 8, (30, 1), generator=g)
    found = suture.probe(network, [({"input_ids": ids, "attention_mask": mask.long()}, labels)],
                         sites=["blocks.1"], ranks=[2], recipe=RECIPE, device="cpu")
    states = suture.capture(network, {"input_ids": ids, "attention_mask": mask.long()}, ["blocks.1"])
    x = states["blocks.1"]
    made = cut(x, 2, *find_components(x[mask].double().numpy()))
    pooled = torch.stack([made[k][mask[k]].mean(0) for k in range(30)]).float()
    layer = train_plainly("blocks.1", [pooled] * 5, labels, RECIPE)
    np.testing.assert_array_equal(found.hits["blocks.1", 2], find_hits(layer, pooled, labels))


def test_a_probe_does_not_depend_on_the_others(network: nn.Module) -> None:
    data = make_images(50, 0)
    many = suture.probe(network, data, sites=SITES, ranks="graded", recipe=RECIPE, device="cpu")
    one = suture.probe(network, data, sites=["block2"], ranks=[2], recipe=RECIPE, device="cpu")
    np.testing.assert_array_equal(many.hits["block2", 2], one.hits["block2", 2])
    plain = suture.probe(network, data, sites=["block2"], recipe=RECIPE, device="cpu")
    np.testing.assert_array_equal(many.hits["block2", 4], plain.hits["block2", 4])


def test_graded_ranks_are_those_of_the_paper_and_end_at_the_width() -> None:
    assert grade_ranks(512) == (512, 448, 384, 320, 256, 192, 128, 64, 32, 16, 8, 4, 2, 1)
    assert grade_ranks(1) == (1,)
    assert all(grade_ranks(w)[0] == w and grade_ranks(w)[-1] == 1 for w in range(1, 100))
    assert choose_ranks(read_ranks(r for r in (np.int64(8), 2)), [4, 8]) == [(4, 2), (8, 2)]


@pytest.mark.parametrize(("options", "named"), [
    ({"ranks": [9, 2]}, "4, got 9"), ({"ranks": [0]}, "0"), ({"ranks": [1.5]}, "1.5"),
    ({"ranks": []}, "none"),
    ({"ranks": "all"}, "'all'"), ({"ranks": [True]}, "True"),
    ({"recipe": ProbeRecipe(features="token")}, "class token"),
    ({"data": make_images(9, 0)[0]}, "labels"),
    ({"data": (make_images(9, 0)[0], torch.rand(9, 2))}, "class number"),
    ({"data": (make_images(4, 0)[0], torch.tensor([0, 1, -2, 1]))}, "-2"),
    ({"data": (make_images(9, 0)[0], torch.rand(9))}, "class number"),
    ({"recipe": ProbeRecipe(lr=1e38, epochs=3, drop=None)}, "loss")])
def test_bad_input_is_one_line(network: nn.Module, options: dict[str, Any], named: str) -> None:
    with pytest.raises(SutureError, match=named) as error:
        suture.probe(network, **{"data": make_images(9, 0), "sites": SITES, "device": "cpu", **options})
    assert "\n" not in str(error.value)


def test_nan_names_the_site(network: nn.Module) -> None:
    images, labels = make_images(9, 0)
    images[5] = float("nan")
    with pytest.raises(SutureError, match=r"block1.*batch 1"):
        suture.probe(network, (images, labels), sites=SITES, batch_size=4, device="cpu")
