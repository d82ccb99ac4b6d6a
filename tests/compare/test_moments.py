"""Moments in a comparison: where the channels are, texts of any padding, a share of tokens, missing maps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import suture
from suture import OOD, Paired, SutureError, TaskRecipe
from suture.compare.fitting import moments
from suture.compare.fitting.token_share import TokenShare
from suture.numbers import NumericalError
from suture.stitching import direct_match
from tests.support import references, tiny
from tests.support.languages import compared, made, padded, texts
from tests.support.sequences import PADDINGS, TEXTS, alone, collated, two
from tests.support.tiny import seeded
from tests.support.windows import IMAGES, LABELS, Windows, first


def test_a_share_of_tokens_is_drawn_by_example_and_place_alone() -> None:
    some, rate, seed = texts(40), 0.4, 7
    drawn = [np.random.default_rng((seed, k)).random(len(t)) < rate for k, t in enumerate(some)]
    network = made()
    with torch.no_grad():
        reps = [torch.cat([x[torch.from_numpy(d)] for x, d in zip(each, drawn, strict=True)]).double().numpy()
                for each in zip(*map(network.representations, some), strict=True)]
    x, y = reps[0], reps[2]
    w = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0][:-1].T
    for length, size in ((12, 8), (20, 40)):
        result = compared(network, some, some, methods=["dm"], token_rate=rate, seed=seed, length=length,
                          size=size, ood=None)
        np.testing.assert_allclose(result.arrays["dm.weight/0/2"], w, rtol=1e-3, atol=1e-4)
        assert result.matrix("cka", "n").iloc[0, 2] == sum(d.sum() for d in drawn)
        assert result.matrix("cka").iloc[0, 2] == pytest.approx(references.cka(x, y), rel=1e-4)
        assert result.arrays["target.tokens"].sum() == sum(len(t) - 1 for t in some)
        assert result.meta["settings"]["token_rate"] == rate
    whole = compared(network, some, some, methods=["dm"], seed=seed, ood=None, size=40, length=20)
    assert whole.meta["key"] != result.meta["key"]


def test_padding_on_the_left_draws_the_same_tokens() -> None:
    mask = padded([torch.ones_like(t) for t in texts()], 15).bool()
    right, left = (TokenShare(0.5, 3).draw(m) for m in (mask, mask.flip(1)))
    for one, other, t in zip(right, left, texts(), strict=True):
        assert torch.equal(one[:len(t)], other[15 - len(t):])
    assert not (right & ~mask).any()
    assert right.sum() / mask.sum() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("rate", [0, -0.1, 1.1, math.nan, "half"])
def test_a_share_outside_its_range_is_refused(rate: Any) -> None:
    with pytest.raises(SutureError, match=rf"token_rate: expected .*, got {rate!r}"):
        compared(made(), texts(), texts(), token_rate=rate)


def test_a_share_of_tokens_needs_tokens_everywhere() -> None:
    with pytest.raises(SutureError,
                       match=r"equally many tokens at every site, got map .* write token_rate=1"):
        suture.compare(tiny.network(), data=(tiny.images(), tiny.labels()), token_rate=0.5, device="cpu")
    with pytest.raises(SutureError, match="only padding tokens"):
        compared(made(), texts(3), texts(3), token_rate=1e-9)


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


@pytest.mark.parametrize(("change", "words"), [
    (lambda t: t[1:], "for the same examples; use one tokenizer"),
    (lambda t: t if len(t) == 9 else t[1:],
     "attention masks differ: . unpadded tokens for the source and . for the target in example ."),
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


def test_a_cell_whose_map_is_not_found_is_missing_with_the_reason_also_after_resuming(
        monkeypatch: pytest.MonkeyPatch) -> None:
    def picky(pair: Any, *args: Any) -> Any:
        if pair.moments.sxy.shape == (3, 4):
            raise NumericalError("no map was found; take another family")
        return direct_match(pair, *args)

    monkeypatch.setattr(moments, "direct_match", picky)
    kept: list[suture.Comparison] = []
    options: dict[str, Any] = {"tlm": tiny.RECIPE, "indices": (), "ood": None, "device": "cpu"}
    whole = suture.compare(tiny.network(), None, *tiny.data(), on_stage=kept.append, **options)
    resumed = suture.compare(tiny.network(), None, *tiny.data(), previous=kept[0], **options)
    for result in (whole, resumed):
        reasons = result.table.set_index(["source", "target", "measure"])["reason"]
        for measure in ("dm.accuracy", "tlm.residual"):
            assert reasons["block1", "block2", measure] == "no map was found; take another family"
            assert reasons["block2", "block1", measure] == ""
    assert whole.table.equals(resumed.table)
    assert whole.arrays.keys() == resumed.arrays.keys()
    assert all(np.array_equal(whole.arrays[k], resumed.arrays[k], equal_nan=True) for k in whole.arrays)
