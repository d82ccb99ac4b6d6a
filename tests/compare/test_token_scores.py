"""Scores of language models, and networks without logits, against slow loops and transformers' losses."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr
from torch import Tensor, nn

import suture
from suture import SutureError, TaskRecipe
from suture import numbers as scores
from suture.compare.scoring.evaluation import Evaluator
from suture.compare.scoring.scores import list_quantities, score_cells
from suture.data import Batches
from suture.networks import SitedNetwork
from suture.stitching import Task
from tests.support import references
from tests.support.languages import (
    CPU,
    D,
    Language,
    V,
    compared,
    made,
    slow_rows,
    stream,
    texts,
    wanted_labels,
)


@pytest.fixture(scope="module", params=["next_token", "tokens"])
def pair(request: pytest.FixtureRequest) -> tuple[Language, suture.Comparison]:
    network = made(request.param == "next_token")
    return (network,
            compared(network, texts(), texts(17, 1), labelled=request.param == "tokens", size=5, ood=None))


# -- every number --------------------------------------------------------------------------------------------


@torch.no_grad()
def slow(network: Language, result: suture.Comparison, method: str, i: int, j: int, task: Task,
         some: list[Tensor]) -> dict[str, float]:
    """Every score of a cell, text by text without padding, token by token, from the definitions."""
    w, b = (torch.as_tensor(result.arrays[f"{method}.{k}/{i}/{j}"]).float() for k in ("weight", "bias"))
    labels = wanted_labels(some) if task is Task.TOKENS else [None] * len(some)
    hits, own_hits, agree, kl, gap, error, scale, rows = 0, 0, 0, [], [], 0.0, 0.0, []
    for ids, says in zip(some, labels, strict=True):
        reps = network.representations(ids)
        stitched, kept = reps[i] @ w.T + b, torch.ones(1, len(ids)).bool()
        out = network.behind(j, stitched[None], kept)["logits"][0].double().numpy()
        own = network.behind(j, reps[j][None], kept)["logits"][0].double().numpy()
        error += float((stitched - reps[j]).square().sum())
        scale += float(reps[j].square().sum())
        rows.append(reps[j].double().numpy())
        for t, y in slow_rows(task, ids, says):
            p, q = log_softmax(own[t]), log_softmax(out[t])
            hits += int(q.argmax() == y)
            own_hits += int(p.argmax() == y)
            agree += int(p.argmax() == q.argmax())
            kl.append(rel_entr(np.exp(p), np.exp(q)).sum())
            gap.append(p[y] - q[y])
    n, whole = len(kl), np.concatenate(rows)
    return {"accuracy": hits / n, "relative_accuracy": hits / own_hits, "agreement": agree / n,
            "kl": np.mean(kl), "ce_gap": np.mean(gap), "relative_perplexity": math.exp(np.mean(gap)),
            "residual": error / scale, "r2": 1 - error / ((whole - whole.mean(0)) ** 2).sum()}


@pytest.mark.parametrize("method", ["dm", "tlm"])
def test_every_score_is_what_a_loop_over_texts_finds(pair: Any, method: str) -> None:
    network, result = pair
    task = Task(result.meta["settings"]["task"])
    for (i, s), (j, t) in product(enumerate(result.sources), enumerate(result.targets)):
        for quantity, value in slow(network, result, method, i, j, task, texts(17, 1)).items():
            name = f"{method}.{quantity}"
            assert result.matrix(name).loc[s, t] == pytest.approx(value, rel=5e-4, abs=5e-6), (name, s, t)
            assert result.matrix(name, "low").loc[s, t] <= result.matrix(name).loc[s, t]
            assert result.matrix(name, "high").loc[s, t] >= result.matrix(name).loc[s, t]
            assert result.matrix(name, "n").loc[s, t] == 17


def test_moments_are_those_of_the_tokens_that_count(pair: Any) -> None:
    network, result = pair
    with torch.no_grad():
        reps = [torch.cat(x).double().numpy()
                for x in zip(*map(network.representations, texts()), strict=True)]
    for (i, x), (j, y) in product(enumerate(reps), repeat=2):
        assert result.matrix("cka").iloc[i, j] == pytest.approx(references.cka(x, y), rel=1e-4)
        w = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
        np.testing.assert_allclose(result.arrays[f"dm.weight/{i}/{j}"], w[:-1].T, rtol=1e-3, atol=1e-4)
    assert result.matrix("cka", "n").iloc[0, 0] == sum(map(len, texts()))


def test_the_record_of_every_cell_gives_the_value_in_the_table(pair: Any) -> None:
    _, result = pair
    for method, quantity in product(("dm", "tlm"), list_quantities(Task.TOKENS)):
        name = f"{method}.{quantity}"
        for i, j in product(range(3), repeat=2):
            record = scores.build_record(result.arrays, name, i, j)
            assert result.matrix(name).iloc[i, j] == pytest.approx(record.value, rel=1e-9)


def test_arrays_are_sums_over_the_tokens_of_each_text(pair: Any) -> None:
    _, result = pair
    tokens = result.arrays["target.tokens"]
    assert (tokens.dtype, tokens.shape) == (np.int64, (17,))
    for name in ("correct", "agree", "kl", "ce"):
        array = result.arrays[f"dm.{name}"]
        assert (array.dtype, array.shape) == (np.float32, (3, 3, 17))
    for name in ("correct", "agree"):
        assert ((result.arrays[f"dm.{name}"] >= 0) & (result.arrays[f"dm.{name}"] <= tokens)).all()
    hits = result.arrays["target.correct"].sum() / tokens.sum()
    assert result.meta["target_accuracy"] == pytest.approx(hits)
    assert any("the task is " in note for note in result.meta["notes"])


@pytest.mark.parametrize("labelled", [False, True])
def test_padding_and_batches_change_nothing(labelled: bool) -> None:
    network, options = made(not labelled), {"labelled": labelled, "sites": ["blocks.0", "blocks.2"]}
    detectors = None if labelled else suture.OOD(("mahalanobis", "tail_energy"), range_examples=10)
    one, other, third = (compared(network, texts(), texts(17, 1), **options, length=length, size=size,
                                  methods=methods, ood=ood)
                         for length, size, methods, ood in ((12, 8, ("dm", "tlm"), detectors),
                                                            (20, 8, ("tlm",), None),
                                                            (14, 21, ("dm",), detectors)))
    assert {m.partition(".")[0] for m in one.measures} >= {"dm", "tlm", "cka"}
    for result in (other, third):
        # Batches are what these are means over, and what auxiliary data are made of.
        names = [m for m in result.measures if m in one.measures and "batches" not in m]
        for name, what in product(names, ("value", "low", "high")):
            a, b = (r.matrix(name, what).to_numpy() for r in (one, result))
            if name.endswith(("mahalanobis", "tail_energy")):  # own layers: ties that rounding breaks
                a, b = (m[~np.eye(2, dtype=bool)] for m in (a, b))
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)


class Alone(nn.Module):
    """Every token for itself; `fill` is what its blocks give for padding."""

    def __init__(self, fill: float) -> None:
        super().__init__()
        self.words, self.head, self.fill = nn.Embedding(V, D), nn.Linear(D, V), fill
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(D, D), nn.Tanh(), Filled()) for _ in range(2)])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        x = self.words(input_ids)
        for block in self.blocks:
            block[2].filling = torch.where(attention_mask.bool(), 0, self.fill)[..., None]
            x = block(x)
        return {"logits": self.head(x)}


class Filled(nn.Module):
    filling: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x + self.filling[:len(x)]


def test_what_a_network_makes_of_padding_enters_nothing() -> None:
    found = []
    for value in (0.0, math.nan):
        torch.manual_seed(0)
        detectors = suture.OOD(("mahalanobis", "neighbours", "two_sample"), range_examples=10)
        found.append(compared(Alone(value).eval(), texts(), texts(17, 1), methods=["dm"], ood=detectors,
                              sites=["blocks.0", "blocks.1"]))
    for name, other in product(found[0].measures, found[1:]):
        a, b = (r.matrix(name).to_numpy() for r in (found[0], other))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)


# -- intervals, tests ----------------------------------------------------------------------------------------


def test_intervals_resample_texts_and_not_tokens(pair: Any) -> None:
    _, result = pair
    hits, tokens, own = (result.arrays[k] for k in ("dm.correct", "target.tokens", "target.correct"))
    weights = np.random.default_rng(9).multinomial(17, np.full(17, 1 / 17), size=40_000)
    for name, bottom in (("dm.accuracy", tokens), ("dm.relative_accuracy", own)):
        some = weights[weights @ bottom > 0]
        low, high = np.percentile((some @ hits[0, 0]) / (some @ bottom), [2.5, 97.5])
        got = [result.matrix(name, end).iloc[0, 0] for end in ("low", "high")]
        assert got == pytest.approx([low, high], abs=0.2 * (high - low))
    gap = result.matrix("dm.ce_gap", "high").iloc[0, 1]
    assert result.matrix("dm.relative_perplexity", "high").iloc[0, 1] == pytest.approx(math.exp(gap))


def test_differences_are_paired_over_texts(pair: Any) -> None:
    _, result = pair
    cells = (result.sources[0], result.targets[2]), (result.sources[2], result.targets[2])
    weights = np.random.default_rng(3).multinomial(17, np.full(17, 1 / 17), size=20_000)
    for name in ("accuracy", "agreement", "relative_perplexity", "kl"):
        got = result.difference(*cells, f"dm.{name}")
        assert (got.test, got.n) == ("paired bootstrap", 17)
        values = result.matrix(f"dm.{name}").to_numpy()[:, 2]
        assert got.value == pytest.approx(values[0] - values[2])
        one, other = (scores.build_record(result.arrays, f"dm.{name}", i, 2) for i in (0, 2))
        a, b = ((weights @ r.top.astype(float)) / (weights @ r.bottom) for r in (one, other))
        drawn = np.exp(a) - np.exp(b) if name == "relative_perplexity" else a - b
        low, high = np.percentile(drawn, [2.5, 97.5])
        assert [got.low, got.high] == pytest.approx([low, high], abs=0.15 * (high - low))


def test_a_single_text_has_values_but_no_intervals_and_no_p() -> None:
    network = made()
    result = compared(network, texts(), [texts()[0]], methods=["dm"], ood=None)
    for name in ("dm.accuracy", "dm.kl", "dm.relative_perplexity"):
        assert not result.matrix(name).isna().any(axis=None)
        assert result.matrix(name, "low").isna().all(axis=None)
    found = result.difference(("blocks.0", "blocks.1"), ("blocks.1", "blocks.1"), "dm.kl")
    assert np.isnan([found.low, found.high, found.p]).all()


def test_logits_that_are_nan_are_told_in_tokens() -> None:
    network, some = made(), texts()
    sited = SitedNetwork(network, stream(some)[0], ["blocks.0", "blocks.2"])
    with torch.no_grad():
        most = torch.cat([network.representations(t)[0].sum(1) for t in some]).sort().values[-5]
    layers: Any = {(0, 0): lambda x, mask: torch.where(x.sum(2, keepdim=True) > most, torch.nan, x),
                   (1, 1): lambda x, mask: x}
    found = Evaluator(sited, sited, layers, 9, task=Task.NEXT_TOKEN).run(Batches(stream(some)), CPU)
    scored = score_cells(found, "dm", 0, {(0, 1): "no", (1, 0): "no"})
    rows = {(i, j, name): e for i, j, name, e, *_ in scored}
    bad, total = found.broken[0, 0], sum(len(t) - 1 for t in some)
    assert 0 < bad < total
    why = f"the stitched network's logits are nan or infinite for {bad} of {total} test tokens"
    assert rows[0, 0, "dm.kl"].reason == why
    assert rows[0, 0, "dm.accuracy"].reason == rows[0, 0, "dm.kl"].reason
    assert rows[1, 1, "dm.agreement"].value == 1


# -- texts without a next token ------------------------------------------------------------------------------


def test_texts_without_tokens_that_count_are_passed_over() -> None:
    """A batch of one-token texts has no next token: it neither trains nor spoils what the others train."""
    short = [torch.tensor([k]) for k in range(8)]
    with_short = compared(made(), [*texts(16), *short], texts(17, 1), ood=None, indices=())
    assert np.isfinite(with_short.arrays["tlm.loss"]).all()
    assert with_short.matrix("tlm.accuracy").notna().all(axis=None)


# -- networks without logits ---------------------------------------------------------------------------------


def test_hidden_states_are_matched_without_a_task() -> None:
    network = made(causal=False, outputs=None, named=False)
    sites = ["blocks.0", "blocks.1"]
    result = compared(network, texts(), texts(17, 1), methods=["dm"], sites=sites)
    assert result.meta["settings"]["task"] == "none"
    assert {m for m in result.measures if m.startswith("dm.") and "ood" not in m} >= {"dm.residual", "dm.r2"}
    assert not {"dm.accuracy", "dm.relative_perplexity"} & set(result.measures)
    assert all(result.matrix(f"dm.{q}").isna().all(axis=None) for q in ("kl", "agreement"))
    assert "dm.ood_mahalanobis" in result.measures
    assert {"dm.kl", "dm.agree", "target.tokens"}.isdisjoint(result.arrays)
    own = made(causal=False)
    with_logits = compared(own, texts(), texts(17, 1), methods=["dm"], labelled=True, sites=sites, ood=None)
    for name in ("dm.residual", "dm.r2", "cka"):
        np.testing.assert_allclose(result.matrix(name), with_logits.matrix(name), rtol=1e-4, atol=1e-6)
    assert result.verdict().words
    stitched = suture.stitch(network, "blocks.0", network, "blocks.1", stream(texts()), device="cpu")
    inputs = stream(texts())[0]
    assert stitched(**inputs).shape == network(**inputs).shape


def test_without_logits_layers_can_be_trained_to_match() -> None:
    network = made(causal=False, outputs=None, named=False)
    result = compared(network, texts(), texts(17, 1), tlm=TaskRecipe(epochs=2, objective="match"), ood=None)
    assert {"tlm.residual", "dm.residual"} <= set(result.measures)


@pytest.mark.parametrize(("options", "words"), [
    ({}, r"task loss matching .*logits.*task='none'; write methods=\['dm'\]"),
    ({"methods": ["dm"], "ood": "tail_energy"}, "logits for the detector tail_energy"),
    ({"methods": ["dm"], "ood": "energy"}, "logits for the detector energy"),
    ({"methods": ["dm"], "task": "classification"}, r"logits \(N, classes\).*\(4, 12, 6\).*task='none'"),
    ({"methods": ["dm"], "task": "classify"}, "unknown task 'classify'; nearest: classification"),
])
def test_what_needs_logits_is_refused_without(options: Any, words: str) -> None:
    network = made(causal=False, outputs=None, named=False)
    with pytest.raises(SutureError, match=words) as error:
        compared(network, texts(), texts(17, 1), **options)
    assert "\n" not in str(error.value)


# -- transformers --------------------------------------------------------------------------------------------


def transformer(name: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    sizes = {"gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32,
                      "bos_token_id": 0, "eos_token_id": 0},
             "bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                      "intermediate_size": 24, "max_position_embeddings": 32}}[name]
    config = transformers.AutoConfig.for_model(name, vocab_size=V, initializer_range=0.5, **sizes)
    auto = transformers.AutoModelForCausalLM if name == "gpt2" else transformers.AutoModelForMaskedLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: nn.Module = auto.from_config(config).eval()
    return made


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_transformers_agree_on_what_counts_and_padding_changes_nothing(name: str) -> None:
    network, labelled = transformer(name), name == "bert"
    found = [compared(network, texts(), texts(17, 1), labelled=labelled, length=length, ood=None,
                      methods=["dm"]) for length in (12, 20)]
    assert found[0].meta["settings"]["task"] == ("tokens" if labelled else "next_token")
    tests = stream(texts(17, 1), size=99, labels=wanted_labels(texts(17, 1)) if labelled else texts(17, 1))[0]
    with torch.no_grad():
        loss = network(**tests).loss
    arrays = found[0].arrays
    assert arrays["target.ce"].sum() / arrays["target.tokens"].sum() == pytest.approx(float(loss), rel=1e-5)
    for measure in found[0].measures:
        a, b = (r.matrix(measure).to_numpy() for r in found)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5, err_msg=measure)
    if labelled:
        base = compared(network.bert, texts(), texts(17, 1), methods=["dm"], ood=None)
        assert base.meta["settings"]["task"] == "none"
        np.testing.assert_allclose(base.matrix("dm.r2"), found[0].matrix("dm.r2"), rtol=1e-4)
