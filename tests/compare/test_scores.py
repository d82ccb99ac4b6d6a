"""Scores of stitched networks against a slow loop over examples, and what happens where they are not
defined."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr
from torch import nn

import suture
from suture.compare.records import Evaluation
from suture.compare.scoring import evaluation
from suture.compare.scoring.evaluation import Evaluator
from suture.compare.scoring.scores import has_same_examples, list_quantities, name_arrays, score_cells
from suture.data import Batches
from suture.networks import SitedNetwork, extract_main_output
from suture.numbers import build_record
from suture.stitching import Task
from tests.support.networks import NETWORKS, images, vectors
from tests.support.plain_hooks import capture, run_tail
from tests.support.tiny import RECIPE

CPU = torch.device("cpu")
SIZES = (20, 20, 13)
RECORDS = list_quantities(Task.CLASSIFICATION)


def labelled(x: torch.Tensor, classes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(x.split(SIZES), (torch.arange(len(x)) % classes).split(SIZES), strict=True))


@pytest.fixture(scope="module", params=["maps", "vectors"])
def pair(request):
    """Two networks with their sites, test data in batches of unequal size, and micro-batches of another
    size."""
    name, sites, x, classes = {
        "maps": ("resnet20_strided", ["layer1.0", "layer3.2"], images(3, 8, sum(SIZES)), 10),
        "vectors": ("mlp", ["1", "3"], vectors(sum(SIZES)), 3)}[request.param]
    network, _ = NETWORKS[name]()
    data = labelled(x, classes)
    result = suture.compare(network, data=data, sites=sites, tlm=RECIPE, device="cpu", indices=(), ood=None)
    return network.eval(), data, result


def float64(network: nn.Module, result, method: str, i: int, j: int, batch: torch.Tensor):
    """(S, T, logits of the stitched network, of the target network) of one batch, in float64."""
    s, t = result.sources[i], result.targets[j]
    x, native = (capture(network, batch, [site])[site] for site in (s, t))
    weight, bias = (torch.as_tensor(result.arrays[f"{method}.{k}/{i}/{j}"]) for k in ("weight", "bias"))
    if native.ndim == 2:
        stitched = x @ weight.T.float() + bias.float()
    else:
        w = weight.float()[:, :, None, None]
        resized = nn.functional.interpolate(x, size=native.shape[2:], mode="bilinear", align_corners=False)
        stitched = nn.functional.conv2d(resized, w, bias.float())
    with torch.no_grad():
        logits = (extract_main_output(run_tail(network, batch, t, stitched)),
                  extract_main_output(network(batch)))
    return tuple(v.detach().double().numpy() for v in (stitched, native, *logits))


def slow(network: nn.Module, data, result, method: str, i: int, j: int) -> dict[str, float]:
    """Every real-valued score of a cell, example by example and batch by batch, from the definitions."""
    kl, gap, errors, scales, rows_s, rows_t, by_batch = [], [], [], [], [], [], []
    for x, y in data:
        stitched, native, logits, own = float64(network, result, method, i, j, x)
        batch = [0.0, 0.0]
        for k in range(len(x)):
            q, p = log_softmax(logits[k]), log_softmax(own[k])
            kl.append(rel_entr(np.exp(p), np.exp(q)).sum())
            gap.append(p[y[k]] - q[y[k]])
            errors.append(((stitched[k] - native[k]) ** 2).sum())
            scales.append((native[k] ** 2).sum())
            batch[0] += errors[-1]
            batch[1] += scales[-1]
            rows_s.append(stitched[k].reshape(stitched.shape[1], -1).T)
            rows_t.append(native[k].reshape(native.shape[1], -1).T)
        by_batch.append(batch[0] / batch[1])
    # Not sklearn's r2_score: it leaves out the errors in channels that do not vary, such as dead ReLUs.
    rows_s, rows_t = np.concatenate(rows_s), np.concatenate(rows_t)
    r2 = 1 - ((rows_s - rows_t) ** 2).sum() / ((rows_t - rows_t.mean(0)) ** 2).sum()
    return {"kl": np.mean(kl), "ce_gap": np.mean(gap), "residual": sum(errors) / sum(scales),
            "residual_batches": np.mean(by_batch), "r2": r2}


@pytest.mark.parametrize("method", ["dm", "tlm"])
def test_every_score_is_what_a_loop_over_examples_finds(pair, method):
    network, data, result = pair
    for (i, s), (j, t) in product(enumerate(result.sources), enumerate(result.targets)):
        for quantity, wanted in slow(network, data, result, method, i, j).items():
            name = f"{method}.{quantity}"
            got = result.matrix(name).loc[s, t]
            assert got == pytest.approx(wanted, rel=2e-4, abs=2e-6), (name, s, t)
            low, high = (result.matrix(name, end).loc[s, t] for end in ("low", "high"))
            assert low <= got <= high
            assert result.matrix(name, "n").loc[s, t] == (3 if quantity == "residual_batches" else sum(SIZES))


def test_the_record_of_every_cell_gives_the_value_in_the_table(pair):
    """What is compared in pairs is what is reported."""
    _, _, result = pair
    for method, quantity in product(("dm", "tlm"), RECORDS):
        name = f"{method}.{quantity}"
        for (i, s), (j, t) in product(enumerate(result.sources), enumerate(result.targets)):
            record = build_record(result.arrays, name, i, j)
            assert result.matrix(name).loc[s, t] == pytest.approx(record.value, rel=1e-12)


def test_arrays_are_small(pair):
    _, _, result = pair
    kinds = {"correct": bool, "agree": bool, "kl": np.float32, "ce": np.float32, "error": np.float32}
    for method, (kind, dtype) in product(("dm", "tlm"), kinds.items()):
        array = result.arrays[f"{method}.{kind}"]
        assert (array.dtype, array.shape) == (dtype, (2, 2, sum(SIZES)))
    for kind, shape in (("ce", (sum(SIZES),)), ("scale", (2, sum(SIZES))), ("spread", (2, sum(SIZES)))):
        assert (result.arrays[f"target.{kind}"].dtype, result.arrays[f"target.{kind}"].shape) == (np.float32,
                                                                                                  shape)
    assert result.arrays["target.batches"].tolist() == list(SIZES)


def test_own_layer_is_perfect(pair):
    _, _, result = pair
    for site in result.sources:
        assert result.matrix("dm.kl").loc[site, site] == pytest.approx(0, abs=1e-6)
        assert result.matrix("dm.ce_gap").loc[site, site] == pytest.approx(0, abs=1e-5)
        assert result.matrix("dm.r2").loc[site, site] == pytest.approx(1, abs=1e-5)


def run(network: nn.Module, x: torch.Tensor, site: str, layer, micro: int = 7, batches=None) -> Evaluation:
    """One cell, of a site with itself."""
    sited = SitedNetwork(network.eval(), x, [site])
    return Evaluator(sited, sited, {(0, 0): layer},
                     micro).run(Batches(batches or [(x, torch.arange(len(x)) % 3)]), CPU)


def half(x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    return x * 0.5 + 0.1


@pytest.mark.parametrize("micro", [1, 10, 53])
def test_micro_batches_do_not_show(micro):
    network, _ = NETWORKS["mlp"]()
    x = vectors(53)
    one, other = (run(network, x, "1", half, micro=m) for m in (53, micro))
    np.testing.assert_array_equal(one.batches, other.batches)
    for name in ("kl", "error", "ce"):
        np.testing.assert_allclose(getattr(one, name)[0, 0], getattr(other, name)[0, 0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(one.spread[0], other.spread[0], rtol=1e-4, atol=1e-6)


class Far(nn.Module):
    """A representation whose mean is ten thousand of its standard deviations."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        with torch.no_grad():
            self.shift.weight.copy_(torch.eye(6))
            self.shift.bias.fill_(1e4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.shift(x) - 1e4)


def test_a_mean_far_above_the_spread_does_not_cost_the_digits_of_r2():
    network, x = Far(), vectors(60)
    found = run(network, x, "shift", half)
    native = capture(network, x, ["shift"])["shift"].double().numpy()
    wanted = ((native - native.mean(0)) ** 2).sum(1)
    np.testing.assert_allclose(found.spread[0], wanted, rtol=1e-5)


def test_examples_in_order_of_class_do_not_spoil_the_mean():
    """The first rows, about which deviations are taken, are then of one class and far from the mean of
    all."""
    network, x = NETWORKS["mlp"]()[0], torch.cat([vectors(30) - 3, vectors(30) + 3])
    found = run(network, x, "1", half, micro=5)
    native = capture(network, x, ["1"])["1"].double().numpy()
    np.testing.assert_allclose(found.spread[0], ((native - native.mean(0)) ** 2).sum(1), rtol=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_or_inf_logits_give_missing_values_with_the_reason_and_spare_the_other_cell(bad):
    network, x = NETWORKS["mlp"]()[0], vectors(30)
    sited = SitedNetwork(network.eval(), x, ["1", "3"])
    third = capture(network, x, ["1"])["1"].sum(1).sort().values[-3]
    layers = {(0, 0): lambda h, mask: torch.where(h.sum(1, keepdim=True) > third, bad, h), (1, 1): half}
    found = Evaluator(sited, sited, layers, 9).run(Batches([(x, torch.arange(30) % 3)]), CPU)
    failed = {(0, 1): "the loss was nan", (1, 0): "the loss was nan"}
    arrays = name_arrays(found, "tlm")
    rows = {(r.i, r.j, r.measure): r.value for r in score_cells(found, "tlm", 0, failed)}
    assert len(rows) == 4 * len(RECORDS)
    for quantity in ("accuracy", "relative_accuracy", "agreement", "kl", "ce_gap"):
        e = rows[0, 0, f"tlm.{quantity}"]
        assert np.isnan(e.value)
        assert e.reason == "the stitched network's logits are nan or infinite for 2 of 30 test examples"
    assert rows[0, 0, "tlm.residual"].reason == "not finite for 2 of 30 examples"
    for quantity in RECORDS:
        assert rows[1, 1, f"tlm.{quantity}"].reason == ""
        assert rows[0, 1, f"tlm.{quantity}"].reason == "the loss was nan"
    gone = capture(network, x, ["1"])["1"].sum(1).numpy() > third.item()
    assert gone.sum() == found.broken[0, 0] == 2
    assert not (arrays["tlm.correct"] | arrays["tlm.agree"])[0, 0][gone].any()
    np.testing.assert_array_equal(np.isnan(arrays["tlm.kl"][0, 0]), gone)


def test_no_class_is_predicted_from_logits_without_a_finite_largest_one():
    inf, nan = float("inf"), float("nan")
    logits = torch.tensor([[0, inf, 1], [nan, 1, 0], [-inf, -inf, -inf], [-inf, 2, 1]])
    assert evaluation._predict_classes(logits).tolist() == [-1, -1, -1, 1]


def test_a_target_network_with_nan_is_named():
    network, x = NETWORKS["mlp"]()[0], vectors(30)
    network[4].register_forward_hook(lambda m, a, out: out.masked_fill(out == out.max(), float("nan")))
    found = run(network, x, "1", half, micro=30)
    broken = network(x).isnan().any(1)
    assert broken.sum() == 1
    assert not found.agree[0, 0][broken].any()
    reasons = {r.measure: r.value.reason for r in score_cells(found, "dm", 0, {})}
    assert reasons["dm.kl"] == "the target network's logits are nan or infinite for 1 of 30 test examples"
    assert reasons["dm.residual"] == reasons["dm.r2"] == ""


class Padded(nn.Module):
    """Tokens with a mask, as language models take them; padding is left out of the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = nn.Sequential(nn.Linear(6, 5), nn.Tanh()), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        keep = attention_mask[..., None].float()
        return self.head((self.block(x) * keep).sum(1) / keep.sum(1))


def test_padding_does_not_count():
    g = torch.Generator().manual_seed(0)
    x, mask = torch.randn(12, 4, 6, generator=g), torch.arange(4) < torch.tensor([1, 2, 3, 4] * 3)[:, None]
    network = Padded().eval()
    found = []
    for padding in (0.0, 100.0):
        inputs = {"x": torch.where(mask[..., None], x, padding), "attention_mask": mask.long()}
        sited = SitedNetwork(network, inputs, ["block"])
        data = Batches([inputs | {"labels": torch.arange(12) % 3}])
        found.append(Evaluator(sited, sited, {(0, 0): half}, 5).run(data, CPU))
    rows = network.block(x)[mask].detach().double().numpy()
    assert found[0].scale[0].sum() == pytest.approx((rows ** 2).sum())
    assert found[0].spread[0].sum() == pytest.approx(((rows - rows.mean(0)) ** 2).sum())
    assert found[0].error[0, 0].sum() == pytest.approx(((rows / 2 - 0.1) ** 2).sum())
    for name in ("scale", "spread", "error"):
        np.testing.assert_allclose(*(getattr(f, name) for f in found), rtol=1e-4)


class Masked(nn.Module):
    """The last class is switched off, as networks with padded vocabularies do."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(x)) + torch.tensor([0, 0, 0, -float("inf")])


def test_a_class_that_is_switched_off_adds_nothing_to_kl():
    network, x = Masked(), vectors(20)
    found = run(network, x, "block", half)
    with torch.no_grad():
        h = network.block(x)
        p, q = (torch.softmax(network.head(v)[:, :3].double(), 1).numpy() for v in (h, half(h)))
    np.testing.assert_allclose(found.kl[0, 0], rel_entr(p, q).sum(1), rtol=1e-4, atol=1e-6)


def test_without_labels_there_is_kl_but_no_cross_entropy():
    network, x = NETWORKS["mlp"]()[0], vectors(30)
    result = suture.compare(network, data=[x], methods=["dm"], sites=["1", "3"], indices=(), ood=None,
                            device="cpu")
    reasons = result.table.set_index("measure")["reason"]
    assert set(reasons["dm.ce_gap"]) == {"the test data have no labels"}
    assert set(reasons[["dm.kl", "dm.r2", "dm.residual_batches"]]) == {""}
    assert {"dm.ce", "dm.correct", "target.ce"}.isdisjoint(result.arrays)


def test_a_single_batch_has_a_mean_over_batches_but_no_interval():
    network, x = NETWORKS["mlp"]()[0], vectors(30)
    result = suture.compare(network, data=(x, torch.arange(30) % 3), methods=["dm"], sites=["1", "3"],
                            indices=(), ood=None, device="cpu")
    assert result.matrix("dm.residual_batches").equals(result.matrix("dm.residual"))
    assert result.matrix("dm.residual_batches", "low").isna().all(axis=None)
    assert (result.matrix("dm.residual_batches", "n") == 1).all(axis=None)


class Still(nn.Module):
    """The site gives the same for every input."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = nn.Linear(6, 5), nn.Linear(5, 3)
        nn.init.zeros_(self.block.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(x)) + x[:, :3]


def test_r2_of_a_constant_is_missing_and_its_residual_is_not():
    x = vectors(23)
    sited = SitedNetwork(Still().eval(), x, ["block"], allow_bypass=True)
    found = Evaluator(sited, sited, {(0, 0): half}, 7).run(Batches([(x, torch.arange(23) % 3)]), CPU)
    e = {r.measure: r.value for r in score_cells(found, "dm", 0, {})}
    assert e["dm.r2"].reason == "the target's representation is constant on the test data"
    assert e["dm.residual"].value > 0


def test_a_resumed_comparison_keeps_every_array_and_number(tmp_path):
    network, x = NETWORKS["mlp"]()[0], vectors(sum(SIZES))
    options = {"data": labelled(x, 3), "sites": ["1", "3"], "tlm": RECIPE, "device": "cpu"}
    kept = []
    whole = suture.compare(network, **options, on_stage=kept.append)
    dm = next(k for k in kept if k.meta["stages"] == ["moments", "dm"])
    dm.save(tmp_path)
    again = suture.compare(network, **options, previous=suture.load(tmp_path))
    assert again.table.equals(whole.table)
    assert set(again.arrays) == set(whole.arrays)
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
    for method in ("dm", "tlm"):
        assert {f"{method}.{q}" for q in RECORDS} <= set(again.measures)


def test_a_test_loader_in_another_order_is_refused_also_without_labels():
    network, x = NETWORKS["mlp"]()[0], vectors(40)
    found = run(network, x, "1", half)
    shuffled = run(network, x.flip(0), "1", half, batches=[x.flip(0)])
    one, other = name_arrays(found, "dm"), name_arrays(shuffled, "tlm")
    assert has_same_examples({}, one)
    assert has_same_examples(one, one)
    assert not has_same_examples(one, other)
