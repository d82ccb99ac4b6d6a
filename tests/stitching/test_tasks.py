"""Language models, and networks without logits: against slow loops over texts without any padding, and
against transformers' own losses; padding, batches and a share of tokens change what they should and nothing
else."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import log_softmax, rel_entr
from torch import Tensor, nn

import suture
from suture import SutureError, TaskRecipe
from suture import numbers as scores
from suture.compare.collect import TokenShare
from suture.compare.evaluate import Evaluator
from suture.compare.scores import list_quantities, score_cells, stack_evaluation
from suture.data.batches import Batches
from suture.networks.sites import SitedNetwork
from suture.numbers.intervals import Estimate, exponentiate
from suture.numbers.measures import MEASURES
from suture.representations.alignment import Alignment
from suture.representations.shapes import Kind, Shape
from suture.results import sanity as verdict
from suture.stitching import StitchingLayer
from suture.stitching.task_inference import resolve_task
from suture.stitching.tasks import IGNORED_LABEL, ScoredRows, Task, find_token_ids
from suture.stitching.trainer import GroupTrainer
from tests.support import references

CPU = torch.device("cpu")
V, D, T = 13, 6, 12
SHAPE = Shape(Kind.TOKENS, D, (T,))
# Large steps make rounding grow.
RECIPE = TaskRecipe(epochs=2, batch_size=8, lr=1e-3, optimizer="sgd")


class Block(nn.Module):
    """Attention with one head and a residual, over the tokens that count."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.parts, self.out, self.causal = nn.Linear(D, 3 * D), nn.Linear(D, D), causal

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        q, k, v = self.parts(x).chunk(3, -1)
        scores = (q @ k.transpose(1, 2)).masked_fill(~kept[:, None], -1e9)
        if self.causal:
            scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -1e9)
        x = x + scores.softmax(-1) @ v
        return x + torch.tanh(self.out(x))


class Language(nn.Module):
    """(N, T) token ids and an attention mask -> logits (N, T, outputs), or hidden states where there is no
    head."""

    def __init__(self, causal: bool = True, outputs: int | None = V, named: bool = True,
                 words: int = V) -> None:
        super().__init__()
        self.places, self.words = nn.Embedding(40, D), nn.Embedding(words, D)
        self.blocks = nn.ModuleList([Block(causal) for _ in range(3)])
        self.head = nn.Linear(D, outputs) if outputs else nn.Identity()
        self.named = named

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        kept = torch.ones_like(input_ids).bool() if attention_mask is None else attention_mask.bool()
        x = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        return self.behind(-1, x, kept)

    def behind(self, j: int, x: Tensor, kept: Tensor) -> Any:
        """What comes after block `j`."""
        for block in self.blocks[j + 1:]:
            x = block(x, kept)
        out = self.head(x)
        return {"logits": out} if self.named else out

    def representations(self, ids: Tensor) -> list[Tensor]:
        """What each block gives for one text (t,), (t, D) each."""
        kept = torch.ones(1, len(ids)).bool()
        x, found = self.words(ids[None]) + self.places(torch.arange(len(ids))), []
        for block in self.blocks:
            x = block(x, kept)
            found.append(x[0])
        return found


def made(causal: bool = True, seed: int = 0, **options: Any) -> Language:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Language(causal, **options).eval()
        for p in network.parameters():
            p.data *= 1.4
    return network


def texts(n: int = 21, seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(V, (int(t),), generator=g) for t in torch.randint(2, T + 1, (n,), generator=g)]


def padded(some: list[Tensor], length: int, value: int = 0) -> Tensor:
    return torch.stack([torch.cat([t, t.new_full((length - len(t),), value)]) for t in some])


def stream(some: list[Tensor], length: int = T, size: int = 8,
           labels: list[Tensor] | None = None) -> list[Any]:
    """Batches as a tokenizer's collator makes them; what is in the padding is never the same token."""
    mask = padded([torch.ones_like(t) for t in some], length)
    noise = torch.randint(V, (len(some), length), generator=torch.Generator().manual_seed(length))
    whole = {"input_ids": torch.where(mask.bool(), padded(some, length), noise), "attention_mask": mask}
    if labels is not None:
        whole["labels"] = padded(labels, length, IGNORED_LABEL)
    return [{k: v[a:a + size] for k, v in whole.items()} for a in range(0, len(some), size)]


def wanted_labels(some: list[Tensor], seed: int = 5) -> list[Tensor]:
    """Half of the tokens count; a text may have none."""
    g = torch.Generator().manual_seed(seed)
    return [torch.where(torch.rand(len(t), generator=g) < 0.5, torch.randint(V, (len(t),), generator=g),
                        IGNORED_LABEL) for t in some]


def compared(network: nn.Module, some: list[Tensor], tests: list[Tensor],
             **options: Any) -> suture.Comparison:
    length, size = options.pop("length", T), options.pop("size", 8)
    labels = ([None, None] if not options.pop("labelled", False)
              else [wanted_labels(some), wanted_labels(tests)])
    data, test = (stream(t, length, size, y) for t, y in zip((some, tests), labels, strict=True))
    return suture.compare(network, data=data, test=test, **({"tlm": RECIPE, "device": "cpu"} | options))


@pytest.fixture(scope="module", params=["next_token", "tokens"])
def pair(request: pytest.FixtureRequest) -> tuple[Language, suture.Comparison]:
    network = made(request.param == "next_token")
    return (network,
            compared(network, texts(), texts(17, 1), labelled=request.param == "tokens", size=5, ood=None))


# -- which task it is ----------------------------------------------------------------------------------------

IDS = padded([torch.arange(1, 6), torch.arange(3, 6), torch.arange(2, 4), torch.arange(5)], 6)
MASK = padded([torch.ones(k).long() for k in (5, 3, 2, 5)], 6)
INPUTS = {"input_ids": IDS, "attention_mask": MASK}
ALIGNED = IDS % 3


class Pooled(Language):
    def behind(self, j: int, x: Tensor, kept: Tensor) -> Any:
        return super().behind(j, x, kept)["logits"].mean(1)


@pytest.mark.parametrize(("network", "labels", "task"), [
    (lambda: made(), None, "next_token"), (lambda: made(named=False), None, "next_token"),
    (lambda: made(), IDS, "next_token"), (lambda: made(), torch.arange(4), "next_token"),
    (lambda: made(causal=False), ALIGNED, "tokens"),
    (lambda: made(causal=False, named=False), ALIGNED, "tokens"),
    # A causal network that names entities: fewer outputs than there are ids.
    (lambda: made(outputs=4), ALIGNED, "tokens"),
    (lambda: made(outputs=4, causal=False, named=False), ALIGNED, "tokens"),
    (lambda: made(outputs=20), None, "next_token"),
    (lambda: made(outputs=None, named=False), None, "none"),
    (lambda: made(False, outputs=None, named=False), None, "none"),
    (lambda: made(outputs=5, named=False), torch.arange(4), "none"),
    (lambda: Pooled().eval(), torch.arange(4), "classification"),
    (lambda: Pooled().eval(), None, "classification"),
])
def test_the_task_is_read_off_the_output(network: Any, labels: Tensor | None, task: str) -> None:
    assert resolve_task("auto", network(), INPUTS, labels).value == task


@pytest.mark.parametrize(("network", "inputs", "labels", "words"), [
    (lambda: made(False), INPUTS, None, r"labels \(N, T\) for task='tokens', got none; yield"),
    (lambda: made(False), INPUTS, torch.arange(4), r"labels \(N, T\) for task='tokens', got shape \(4,\)"),
    (lambda: made(outputs=20), INPUTS, IDS, "of the same or of the next token.*20 outputs and 13 embeddings"),
    (lambda: made(), {"input_ids": IDS[:, :1]}, None, "fewer than two tokens; write task="),
    (lambda: made(), INPUTS, IDS[:, :4], "label for each of the 6 positions of the logits, got 4"),
])
def test_what_cannot_be_told_is_asked_for(network: Any, inputs: Any, labels: Tensor | None,
                                          words: str) -> None:
    with pytest.raises(SutureError, match=words) as error:
        resolve_task("auto", network(), inputs, labels)
    assert "\n" not in str(error.value)


def test_a_padded_vocabulary_that_is_switched_off_is_causal_all_the_same() -> None:
    network = made()
    network.head.register_forward_hook(lambda m, a, out: out.index_fill(2, torch.tensor([V - 1]), -torch.inf))
    assert resolve_task("auto", network, INPUTS, None) is Task.NEXT_TOKEN


def test_token_ids_are_found_among_the_inputs() -> None:
    images = torch.rand(4, 3, 5, 5)
    assert find_token_ids({"attention_mask": MASK, "other": IDS}) is IDS
    assert find_token_ids((images, IDS)) is IDS
    assert find_token_ids({"pixel_values": images, "mask": MASK.bool()}) is None


# -- which tokens count --------------------------------------------------------------------------------------


def slow_rows(task: Task, ids: Tensor, labels: Tensor | None) -> list[tuple[int, int]]:
    """(position, label) of each token that counts in a text without padding."""
    says = ids if labels is None else labels
    found = [(t, int(says[t + 1])) for t in range(len(ids) - 1)] if task is Task.NEXT_TOKEN else list(
        enumerate(says.tolist()))
    return [(t, y) for t, y in found if y != IGNORED_LABEL]


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("task", [Task.NEXT_TOKEN, Task.TOKENS])
def test_rows_are_those_of_a_loop_over_texts(task: Task, given: bool, left: bool) -> None:
    some = texts()
    labels = wanted_labels(some) if given or task is Task.TOKENS else None
    whole = stream(some, 15, 99, labels)[0]
    if left:
        whole = {k: v.flip(1) for k, v in whole.items()}
        some = [t.flip(0) for t in some]
        labels = labels and [y.flip(0) for y in labels]
    rows = task.find_rows({k: v for k, v in whole.items() if k != "labels"}, whole.get("labels"))
    slow = [slow_rows(task, t, None if labels is None else y)
            for t, y in zip(some, labels or some, strict=True)]
    assert rows.labels.tolist() == [y for each in slow for _, y in each]
    assert rows.tokens.tolist() == [len(each) for each in slow]
    start = [15 - len(t) if left else 0 for t in some]
    assert rows.counted.nonzero().tolist() == [[n, start[n] + t] for n, each in enumerate(slow)
                                               for t, _ in each]
    logits = torch.rand(2 * len(some), 15, 4)
    assert torch.equal(rows.select(logits), torch.cat([half[rows.counted] for half in logits.chunk(2)]))
    sums = rows.sum_per_example(rows.select(logits).view(2, rows.count, 4).sum(2))
    torch.testing.assert_close(sums, (logits.sum(2).view(2, -1, 15) * rows.counted).sum(2))


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
    detectors = None if labelled else suture.OOD(("mahalanobis", "tail_energy"))
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


@pytest.mark.parametrize("fill", [1e4, math.nan])
def test_what_a_network_makes_of_padding_enters_nothing(fill: float) -> None:
    found = []
    for value in (0.0, fill):
        torch.manual_seed(0)
        detectors = suture.OOD(("mahalanobis", "mahalanobis_position", "neighbours", "two_sample"))
        found.append(compared(Alone(value).eval(), texts(), texts(17, 1), methods=["dm"], ood=detectors,
                              sites=["blocks.0", "blocks.1"]))
    for name in found[0].measures:
        a, b = (r.matrix(name).to_numpy() for r in found)
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


def test_texts_that_repeat_one_token_have_intervals_of_texts() -> None:
    """Tokens of a text hit or miss together: an interval over tokens would be four times too narrow."""
    tokens, hits = np.full(50, 16), np.repeat([16.0, 0.0], 25).astype(np.float32)
    arrays = {"dm.correct": hits[None, None], "target.tokens": tokens}
    record = scores.build_record(arrays, "dm.accuracy", 0, 0)
    e = scores.estimate_ratios(record.top[None], record.bottom)[0]
    one = scores.estimate_proportion(hits > 0)
    assert (e.value, e.high - e.low) == (0.5, pytest.approx(one.high - one.low, rel=0.15))


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


def test_the_verdict_tests_numbers_of_tokens_by_signed_ranks() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(4, 9, 60)
    correct = np.tile(tokens // 2, (2, 2, 1)).astype(np.float32)
    correct[0, 1] += 2  # the other layer looks better at the second site, beyond noise
    result = compared(made(), texts(4), texts(60, 1), methods=["dm"], ood=None,
                      sites=["blocks.0", "blocks.1"])
    table = result.table.copy()
    for (i, s), (j, t) in product(enumerate(result.sources), enumerate(result.targets)):
        here = (table.source == s) & (table.target == t) & (table.measure == "dm.accuracy")
        table.loc[here, "value"] = correct[i, j].sum() / tokens.sum()
    judged = verdict.run_sanity_battery(table, result.sources, result.targets, same_network=True,
                                        same_architecture=True, arrays={"dm.correct": correct})
    row = judged.table.set_index("measure").loc["dm.accuracy"]
    assert (row["violated"], row["beyond_noise"]) == (1, 1)
    assert "this is beyond test-set noise (Wilcoxon over texts, Holm" in judged.words[0]
    noise = correct.copy()
    noise[0, 1] = correct[1, 1] + rng.choice([-1, 1], 60)
    p = stats.wilcoxon(noise[0, 1], correct[1, 1]).pvalue
    assert verdict._compute_p_value(noise[0, 1], correct[1, 1]) == pytest.approx(p)
    assert verdict._compute_p_value(correct[1, 1], correct[1, 1]) == 1


def test_a_perplexity_beyond_floats_is_missing_with_its_reason() -> None:
    assert exponentiate(Estimate(1, 0, 2)) == Estimate(math.e, 1, math.exp(2))
    assert "more than a float holds" in exponentiate(Estimate(700, 600, 800)).reason
    assert exponentiate(Estimate(math.nan, reason="why")).reason == "why"
    assert not MEASURES["dm.relative_perplexity"].larger_is_more_similar
    assert MEASURES["dm.relative_perplexity"].common(3.0) == -3


def test_logits_that_are_nan_are_told_in_tokens() -> None:
    network, some = made(), texts()
    sited = SitedNetwork(network, stream(some)[0], ["blocks.0", "blocks.2"])
    with torch.no_grad():
        most = torch.cat([network.representations(t)[0].sum(1) for t in some]).sort().values[-5]
    layers: Any = {(0, 0): lambda x, mask: torch.where(x.sum(2, keepdim=True) > most, torch.nan, x),
                   (1, 1): lambda x, mask: x}
    found = Evaluator(sited, sited, layers, 9, task=Task.NEXT_TOKEN).run(Batches(stream(some)), CPU)
    arrays = stack_evaluation(found, "dm", (2, 2))
    scored = score_cells(found, arrays, "dm", (2, 2), 0, {(0, 1): "no", (1, 0): "no"})
    rows = {(i, j, name): e for i, j, name, e, _ in scored}
    bad, total = found.broken[0, 0], sum(len(t) - 1 for t in some)
    assert 0 < bad < total
    why = f"the stitched network's logits are nan or infinite for {bad} of {total} test tokens"
    assert rows[0, 0, "dm.kl"].reason == why
    assert rows[0, 0, "dm.accuracy"].reason == rows[0, 0, "dm.kl"].reason
    assert rows[1, 1, "dm.agreement"].value == 1


# -- training ------------------------------------------------------------------------------------------------


def trained(network: Language, task: Task, recipe: TaskRecipe, cells: list[tuple[int, int]],
            micro: int = 10_000, length: int = T, size: int = 8) -> tuple[dict[Any, StitchingLayer], Any]:
    some, dtype = texts(), network.head.weight.dtype
    data = stream(some, length, size, wanted_labels(some) if task is Task.TOKENS else None)
    sited = SitedNetwork(network.requires_grad_(False), {k: v for k, v in data[0].items() if k != "labels"})
    layers = {(i, j): StitchingLayer(Alignment(sited.shapes[i], sited.shapes[j])).init_random(10 * i + j)
              .to(dtype) for i, j in cells}
    return layers, GroupTrainer(sited, sited, layers, recipe, micro, task).fit(Batches(data), CPU)


@pytest.mark.parametrize("objective", ["hard", "soft", "mixed"])
@pytest.mark.parametrize("task", [Task.NEXT_TOKEN, Task.TOKENS])
def test_a_step_follows_the_mean_over_the_tokens_of_the_batch(task: Task, objective: Any) -> None:
    network, some = made(task is Task.NEXT_TOKEN), texts()
    recipe = TaskRecipe(epochs=1, objective=objective, temperature=2.0, mix=0.3, optimizer="sgd", lr=0.1,
                        weight_decay=0)
    for micro in (4, 10_000):
        layers, curves = trained(network, task, recipe, [(0, 1)], micro, size=99)
        start = StitchingLayer(layers[0, 1].alignment).init_random(1)
        losses, hits = [], []
        labels = wanted_labels(some) if task is Task.TOKENS else some
        for ids, says in zip(some, labels, strict=True):
            reps, kept = network.representations(ids), torch.ones(1, len(ids)).bool()
            out = network.behind(1, start(reps[0][None]), kept)["logits"][0]
            own = network.behind(1, reps[1][None], kept)["logits"][0]
            for t, y in slow_rows(task, ids, says):
                hits.append(int(out[t].argmax()) == y)
                hard = -out[t].log_softmax(0)[y]
                p, q = (own[t] / 2).log_softmax(0), (out[t] / 2).log_softmax(0)
                soft = 4 * (p.exp() * (p - q)).sum()
                losses.append({"hard": hard, "soft": soft, "mixed": 0.3 * soft + 0.7 * hard}[objective])
        loss = torch.stack(losses).mean()
        loss.backward()
        assert curves.loss[0, 1] == [pytest.approx(float(loss.detach()), rel=1e-4)]
        assert curves.accuracy[0, 1] == [pytest.approx(np.mean(hits))]
        for p, end in zip(start.parameters(), layers[0, 1].parameters(), strict=True):
            # Nesterov's first step
            torch.testing.assert_close(end, p - 0.1 * 1.9 * p.grad, rtol=1e-4, atol=1e-6)


def test_grouped_training_on_tokens_equals_training_alone_and_padding_does_not_matter() -> None:
    # In float64, as in tests/stitching/test_trainer.py: rounding, which grouping changes, grows under Adam.
    recipe, cells = TaskRecipe(epochs=4, lr=1e-2), list(product(range(3), repeat=2))

    def weights(some: list[tuple[int, int]], **options: Any) -> dict[Any, Tensor]:
        layers, _ = trained(made().double(), Task.NEXT_TOKEN, recipe, some, **options)
        return {c: m.weight.detach() for c, m in layers.items()}

    whole, longer = weights(cells, micro=5), weights(cells, length=19)
    for c in ((0, 2), (2, 0)):
        alone, start = (weights([c])[c],
                        StitchingLayer(Alignment(*[SHAPE] * 2)).init_random(10 * c[0] + c[1]).weight)
        assert float((alone - start.detach()).norm()) > 0.02 * float(start.detach().norm())
        for other in (whole[c], longer[c]):
            assert float((other - alone).norm()) <= 1e-5 * float(alone.norm())


def test_texts_without_tokens_that_count_are_passed_over() -> None:
    """A batch of one-token texts has no next token: it neither trains nor spoils what the others train."""
    short = [torch.tensor([k]) for k in range(8)]
    with_short = compared(made(), [*texts(16), *short], texts(17, 1), ood=None, indices=())
    assert np.isfinite(with_short.arrays["tlm.loss"]).all()
    assert with_short.matrix("tlm.accuracy").notna().all(axis=None)


# -- a share of tokens ---------------------------------------------------------------------------------------


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
    with pytest.raises(SutureError, match=r"token_rate above 0 and at most 1, got .*; leave it out"):
        compared(made(), texts(), texts(), token_rate=rate)


def test_a_share_of_tokens_needs_tokens_everywhere() -> None:
    from tests.support import tiny
    with pytest.raises(SutureError,
                       match=r"tokens of one number at every site.*got map .* write token_rate=1"):
        suture.compare(tiny.network(), data=(tiny.images(), tiny.labels()), token_rate=0.5, device="cpu")
    with pytest.raises(SutureError, match="tokens that count in the data, got none"):
        compared(made(), texts(3), texts(3), token_rate=1e-9)


# -- networks without logits ---------------------------------------------------------------------------------


def test_hidden_states_are_matched_without_a_task() -> None:
    network = made(causal=False, outputs=None, named=False)
    sites = ["blocks.0", "blocks.1"]
    result = compared(network, texts(), texts(17, 1), methods=["dm"], sites=sites)
    assert result.meta["settings"]["task"] == "none"
    assert {m for m in result.measures if m.startswith("dm.") and "ood" not in m} >= {"dm.residual", "dm.r2"}
    assert (not {f"dm.{q}" for q in ("accuracy", "kl", "agreement", "relative_perplexity")}
            & set(result.measures))
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
    ({}, r"expected logits.*task loss matching.*write methods=\['dm'\]"),
    ({"methods": ["dm"], "ood": "tail_energy"}, "logits of the target network for the detector tail_energy"),
    ({"methods": ["dm"], "task": "classification"}, r"logits \(N, classes\).*got \(4, 12, 6\).*task='none'"),
    ({"methods": ["dm"], "task": "classify"}, "unknown task 'classify'; nearest: classification"),
])
def test_what_needs_logits_is_refused_without(options: Any, words: str) -> None:
    network = made(causal=False, outputs=None, named=False)
    with pytest.raises(SutureError, match=words) as error:
        compared(network, texts(), texts(17, 1), **options)
    assert "\n" not in str(error.value)


# -- bad input -----------------------------------------------------------------------------------------------


def batch(**changes: Any) -> list[Any]:
    return [{"input_ids": IDS, "attention_mask": MASK} | changes]


OUTSIDE = ALIGNED.clone()
OUTSIDE[2, 0] = 99
AWAY = IDS.clone()
AWAY[1, 1] = 77
NONE = torch.full_like(ALIGNED, IGNORED_LABEL)


@pytest.mark.parametrize(("causal", "options", "words"), [
    (False, {"data": batch(labels=OUTSIDE), "test": batch(labels=ALIGNED), "on_stage": pytest.fail},
     r"labels from 0 to 12 \(-100 where a position does not count\), got 99"),
    (False, {"data": batch(labels=ALIGNED), "test": batch(labels=OUTSIDE)}, "labels from 0 to 12 .*got 99"),
    (False, {"data": batch(labels=ALIGNED), "test": batch()}, r"labels \(N, T\) for task='tokens', got none"),
    (False, {"data": batch(labels=ALIGNED), "test": batch(labels=NONE)},
     "tokens that count in the test data, got no"),
    (False, {"data": batch(labels=NONE), "test": batch(labels=ALIGNED)},
     "tokens that count in the data that stitchi"),
    (False, {"data": batch(labels=ALIGNED.float())},
     r"integer labels \(N, T\), got torch.float32 of shape \(4, 6\)"),
    (True, {"data": batch(), "task": "tokens"}, r"labels \(N, T\) for task='tokens', got none"),
    (True, {"data": batch(), "task": "classification"},
     r"logits \(N, classes\) from the network, got \(4, 6, 13\)"),
    (True, {"data": batch(labels=IDS[:, :3])}, "label for each of the 6 positions of the logits, got 3"),
    (True, {"data": batch() + batch(input_ids=AWAY)},
     "fails on batch 1 of the data.*out of range.*token ids below"),
    (True, {"data": batch(), "test": batch() + batch(input_ids=AWAY)},
     "fails on the test data: index out of range"),
    (True, {"data": batch(attention_mask=0 * MASK)}, "fewer than two tokens|tokens that count"),
    (True, {"data": batch(), "ood": suture.OOD(("energy",))},
     r"logits \(N, classes\).* detector energy.*leave energy"),
])
def test_bad_input_is_refused_in_one_line(causal: bool, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SutureError, match=words) as error:
        suture.compare(made(causal), **({"tlm": RECIPE, "device": "cpu", "ood": None} | options))
    assert "\n" not in str(error.value)


def test_logits_of_examples_are_no_logits_of_tokens() -> None:
    with pytest.raises(SutureError,
                       match=r"logits \(N, T, vocabulary\) for task='next_token', got \(4, 13\)"):
        suture.compare(Pooled().eval(), data=batch(labels=torch.arange(4)), task="next_token", device="cpu")


def test_inputs_that_are_no_ids_have_no_next_token() -> None:
    with pytest.raises(SutureError, match=r"token ids \(N, T\) for task='next_token', got inputs without"):
        Task.NEXT_TOKEN.find_rows({"inputs_embeds": torch.rand(2, 3, 4)}, None)


def test_a_row_for_each_example_leaves_logits_as_they_are() -> None:
    logits = torch.rand(6, 3)
    rows = ScoredRows(3, None, torch.arange(3))
    assert rows.select(logits) is logits
    assert (rows.count, rows.tokens) == (3, None)
    with pytest.raises(SutureError, match="label for each of the 5 positions of the logits, got 4"):
        ScoredRows(2, torch.ones(2, 4).bool(), None).select(torch.rand(2, 5, 3))


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
