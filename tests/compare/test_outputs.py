"""A network is scored on the right one of its outputs, as what it is, whatever form the output has."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suture
from suture import SutureError, TaskRecipe
from tests.support.languages import made, stream, texts
from tests.support.outputs import Answer, Body, Two, body, examples
from tests.support.plain_hooks import capture, run_tail

SITES = ["blocks.0", "blocks.2"]
RECIPE = TaskRecipe(epochs=2, batch_size=32, lr=1e-2)
FIT, TEST = examples(96), examples(48, 1)


def compared(network: Any, data: Any = FIT, test: Any = TEST, **options: Any) -> suture.Comparison:
    return suture.compare(network, None, data, test, **{
        "sites": SITES, "indices": (), "ood": None, "device": "cpu", "methods": ["dm"]} | options)


@pytest.fixture(scope="module")
def plain() -> suture.Comparison:
    return compared(body(), methods=["dm", "tlm"], tlm=RECIPE)


FORMS: dict[str, tuple[Callable[[Tensor, Tensor], Any], str, str]] = {
    "a pair": (lambda h, z: (h, z), "1", "logits"),
    "a dictionary": (lambda h, z: {"features": h, "output": z}, "output", "logits"),
    "a named tuple": (lambda h, z: Two(h, z), "output", "logits"),
    "a data class": (lambda h, z: Answer(h, z), "scores", "logits"),
    "nested": (lambda h, z: (h[:, :, None], [{"embedding": h}, (z, h)]), "1.1.0", "logits"),
    "a list by layer": (lambda h, z: [h, 2 * h, z], "2", "logits"),
    "an auxiliary head": (lambda h, z: {"aux": z.flip(1), "out": z}, "out", "logits"),
    "named logits": (lambda h, z: {"hidden": z.flip(1), "logits": z}, "logits", "logits"),
    "probabilities": (lambda h, z: z.softmax(1), "", "probabilities"),
    "features and probabilities": (lambda h, z: (h, z.softmax(-1)), "1", "probabilities"),
    "log-probabilities": (lambda h, z: z.log_softmax(1), "", "log_probabilities"),
    "sigmoids": (lambda h, z: z.sigmoid(), "", "sigmoid"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_output_has_the_scores_of_the_logits(plain: suture.Comparison, form: str) -> None:
    last, choice, kind = FORMS[form]
    found = compared(body(last), methods=["dm", "tlm"], tlm=RECIPE)
    assert found.meta["output"] == {"choice": choice, "kind": kind}
    for measure in plain.measures:
        np.testing.assert_allclose(found.matrix(measure), plain.matrix(measure), rtol=2e-3, atol=2e-4,
                                   err_msg=measure)
    assert found.meta["target_accuracy"] == plain.meta["target_accuracy"]
    assert ("scored" in found.meta["notes"][0]) == (form not in ("named logits", "log-probabilities"))


@pytest.mark.parametrize("output", ["1", 1, -1, "1@logits"])
def test_what_is_said_is_not_looked_for(plain: suture.Comparison, output: Any) -> None:
    """Two classifiers of the same classes: nothing tells which one is meant."""
    twins = body(lambda h, z: (z[:, [1, 0, 3, 2]], z))
    labels = FIT[0], FIT[1] // 2 * 2
    with pytest.raises(SutureError, match=r"which output is scored; write output=.* '0' \(4, 4\), '1' \(4"):
        compared(twins, labels, labels)
    found = compared(twins, output=output)
    assert found.meta["output"]["choice"] == "1"
    assert found.matrix("dm.kl").equals(plain.matrix("dm.kl"))


def test_an_output_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(SutureError, match=r"unknown output 'z'; write one of '0' \(4, 16\), '1' \(4, 4\)"):
        compared(body(lambda h, z: (h, z)), output="z")


def test_a_stitched_network_keeps_the_choice_and_returns_the_whole_output(tmp_path: Any) -> None:
    network, logits = body(lambda h, z: (z[:, [1, 0, 3, 2]], z)), body()
    how: Any = {"device": "cpu", "method": "tlm", "tlm": RECIPE}
    made = suture.stitch(network, SITES[0], network, SITES[1], FIT, output=1, **how)
    wanted = suture.stitch(logits, SITES[0], logits, SITES[1], FIT, **how)
    made.save(tmp_path / "a.safetensors")
    again = suture.load_stitched(tmp_path / "a.safetensors", network, network)
    for found in (made, again):
        pair = found(TEST[0])
        torch.testing.assert_close(pair[1], wanted(TEST[0]), rtol=1e-4, atol=1e-4)
        assert torch.equal(pair[0], pair[1][:, [1, 0, 3, 2]])
        assert found.accuracy(TEST) == wanted.accuracy(TEST)


def test_a_dry_run_reads_the_same_output() -> None:
    with pytest.raises(SutureError, match="unknown output 'z'"):
        suture.dry_run(body(), data=FIT, output="z", device="cpu")
    found = suture.dry_run(body(lambda h, z: (h, z)), data=FIT, tlm=RECIPE, device="cpu")
    assert found.seconds["tlm"]
    assert "'1' is scored" in found.notes[0]


# -- what is no classification -------------------------------------------------------------------------------


def slow_scores(network: Body, found: suture.Comparison, i: int, j: int, x: Tensor) -> tuple[float, float]:
    """Error and R² of the output of a stitched network, from the definitions."""
    weight, bias = (torch.as_tensor(found.arrays[f"dm.{part}/{i}/{j}"]).float()
                    for part in ("weight", "bias"))
    stitched = capture(network, x, [SITES[i]])[SITES[i]] @ weight.T + bias
    with torch.no_grad():
        o, t = (v.double().reshape(len(x), -1)
                for v in (run_tail(network, x, SITES[j], stitched), network(x)))
    gap = ((o - t) ** 2).sum()
    return float((gap / (t ** 2).sum()) ** 0.5), float(1 - gap / ((t - t.mean(0)) ** 2).sum())


FLOATS = FIT[0][:, :1], TEST[0][:, :1]
OTHERS: dict[str, tuple[Callable[[Tensor, Tensor], Any], int, Any, str]] = {
    "a regression": (lambda h, z: z, 1, (None, None), "one number for each example"),
    "a regression without an axis": (lambda h, z: z[:, 0], 1, (None, None), "one number for each example"),
    "numbers as labels": (lambda h, z: z, 1, FLOATS, "no class numbers"),
    "numbers as labels (N,)": (lambda h, z: z, 1, tuple(f[:, 0] for f in FLOATS), "no class numbers"),
    "whole numbers as labels": (lambda h, z: z, 1, tuple((9 * f).round().long()[:, 0].abs() for f in FLOATS),
                                "one number for each example"),
    "several numbers as labels": (lambda h, z: z, 4, (FIT[0][:, :4], TEST[0][:, :4]), "no class numbers"),
    "several classes as labels": (lambda h, z: z, 4, tuple((x[:, :4] > 0).float() for x in (FIT[0], TEST[0])),
                                  "no class numbers"),
    "several integers as labels": (lambda h, z: z, 4, tuple((x[:, :4] > 0).long() for x in (FIT[0], TEST[0])),
                                   "no class numbers"),
    "unit norms": (lambda h, z: h / h.norm(dim=1, keepdim=True), 4, (FIT[1], TEST[1]), "unit norm"),
    "unit norms, unlabelled": (lambda h, z: h / h.norm(dim=1, keepdim=True), 4, (None, None), "unit norm"),
    "an embedding": (lambda h, z: (h.repeat(1, 4) + 5)[:, list(range(8, 64))], 4, (FIT[1] % 2, TEST[1] % 2),
                     "beyond the last label, 1"),
    "a map": (lambda h, z: h.view(-1, 1, 4, 4), 4, (None, None), r"float32 of shape \(4, 1, 4, 4\)"),
    "pixels with labels": (lambda h, z: h.view(-1, 4, 2, 2), 4,
                           (FIT[1][:, None, None].expand(-1, 2, 2), TEST[1][:, None, None].expand(-1, 2, 2)),
                           r"float32 of shape \(4, 4, 2, 2\)"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_classification_is_scored_by_its_outputs(what: str) -> None:
    last, outputs, labels, why = OTHERS[what]
    network = body(last, outputs)
    data, test = ([(x[0],)] if y is None else (x[0], y) for x, y in zip((FIT, TEST), labels, strict=True))
    found = compared(network, data, test, ood="mahalanobis")
    assert found.meta["output"]["kind"] == "values"
    assert "dm.accuracy" not in found.measures
    for measure in ("dm.agreement", "dm.kl"):
        assert found.matrix(measure).isna().all().all()
        assert (found.matrix(measure, "reason") == found.meta["output"]["why"]).all().all()
    assert re.search(why, found.meta["notes"][0])
    if what not in ("a map", "pixels with labels"):
        error, r2 = slow_scores(network, found, 1, 0, TEST[0])
        assert found.matrix("dm.output_error").iloc[1, 0] == pytest.approx(error, rel=1e-4)
        assert found.matrix("dm.output_r2").iloc[1, 0] == pytest.approx(r2, rel=1e-3, abs=1e-5)


def test_a_regression_can_be_trained_by_matching() -> None:
    data = FIT[0], FIT[0][:, 0]
    with pytest.raises(SutureError, match=r"needs logits .*methods=\['dm'\].*labels, float32 of shape \("):
        compared(body(outputs=1), data, data, methods=["dm", "tlm"], tlm=RECIPE)
    found = compared(body(outputs=1), data, data, methods=["dm", "tlm"],
                     tlm=TaskRecipe(epochs=60, objective="match", lr=1e-2, init="dm"))
    for method in ("dm", "tlm"):
        own = np.diag(found.matrix(f"{method}.output_r2"))
        np.testing.assert_allclose(own, 1, atol=1e-2)
    gap = found.difference((SITES[0], SITES[1]), (SITES[1], SITES[1]), "dm.output_error")
    errors = found.matrix("dm.output_error")
    assert gap.value == pytest.approx(errors.iloc[0, 1] - errors.iloc[1, 1], rel=1e-6)
    assert gap.low <= gap.value <= gap.high
    low, high = (found.matrix("dm.output_error", end).iloc[0, 1] for end in ("low", "high"))
    assert low < errors.iloc[0, 1] < high


def test_a_constant_output_has_no_r2() -> None:
    found = compared(body(lambda h, z: 3 + 0 * z), task="none")
    reasons = found.matrix("dm.output_r2", "reason")
    assert reasons.iloc[0, 0] == "the target network's output is constant on the test data"
    np.testing.assert_allclose(found.matrix("dm.output_error"), 0, atol=1e-6)


@pytest.mark.parametrize("last", [lambda h, z: z, lambda h, z: z.sigmoid()[:, 0]])
def test_one_number_for_labels_0_and_1_is_a_classifier(last: Any) -> None:
    network = body(last, 1)
    (x, y), (test, wanted) = ((x, (y > 1).long()) for x, y in (FIT, TEST))
    found = compared(network, (x, y), (test, wanted), methods=["dm", "tlm"], tlm=RECIPE)
    with torch.no_grad():
        z = Body.forward(body(outputs=1), test)[:, 0]
    assert found.meta["target_accuracy"] == pytest.approx(float(((z > 0) == wanted).float().mean()))
    assert found.meta["target_accuracy"] > 0.9
    ce = nn.functional.binary_cross_entropy_with_logits(z, wanted.float())
    assert found.arrays["target.ce"].mean() == pytest.approx(float(ce), rel=1e-4)


# -- what is taken for what ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("last", "options", "kind"), [
    (lambda h, z: (z * 1e-3).relu(), {}, "logits"),  # within [0, 1], but by chance
    (lambda h, z: 1 / (1 + (-z).exp()), {"output": "@sigmoid"}, "sigmoid"),
    (lambda h, z: 1 / (1 + (-z).exp()), {"output": "logits"}, "logits"),
    (lambda h, z: z.softmax(1), {"output": "@logits"}, "logits"),
    (lambda h, z: z.softmax(1), {"task": "none"}, "values"),
    (lambda h, z: z.sigmoid(), {"task": "classification"}, "sigmoid"),
    (lambda h, z: h / h.norm(dim=1, keepdim=True), {"task": "classification"}, "logits"),
])
def test_values_within_0_and_1_are_not_always_probabilities(last: Any, options: Any, kind: str) -> None:
    assert compared(body(last), **options).meta["output"]["kind"] == kind


ONE_HOT = tuple((x, nn.functional.one_hot(y, 4).float()) for x, y in (FIT, TEST))


@pytest.mark.parametrize(("last", "options", "words"), [
    (lambda h, z: 1 / (1 + (-z).exp()), {}, r"lie in \[0, 1\]; write output='@sigmoid'.*task='none'"),
    (lambda h, z: z, {"data": ONE_HOT[0], "test": ONE_HOT[1]}, r"one-hot labels.*labels.argmax\(1\).*'none'"),
    (lambda h, z: z, {"data": (FIT[0], FIT[1].float())}, r"class numbers \(N,\).*labels.long\(\).*'none'"),
    (lambda h, z: z, {"data": (FIT[0], 9 * FIT[1]), "test": None}, "3, got .*4 outputs; write task='none'"),
    (lambda h, z: z.softmax(1), {"ood": "tail_energy"}, "before the softmax for the detector tail_energy"),
    (lambda h, z: z.log_softmax(1), {"ood": "tail_energy"}, "before the softmax for the detector tail_en"),
    (lambda h, z: (h, z), {"data": [(FIT[0],)], "test": None}, "which output is scored"),
])
def test_what_cannot_be_told_is_asked_for(last: Any, options: Any, words: str) -> None:
    with pytest.raises(SutureError, match=words) as error:
        compared(body(last), **options)
    assert "\n" not in str(error.value)


def test_labels_of_the_test_data_tell_too() -> None:
    found = compared(body(lambda h, z: (h, z)), [(FIT[0],)], TEST)
    assert found.meta["output"]["choice"] == "1"


def test_unlabelled_logits_are_said_to_be_taken_for_such() -> None:
    found = compared(body(), [(FIT[0],)], [(TEST[0],)])
    assert "without labels, the output of 4 numbers is taken for logits" in found.meta["notes"][0]


def test_a_source_may_have_other_outputs() -> None:
    a, b = body(lambda h, z: {"logits": z}), body(lambda h, z: (h, z))
    found = suture.compare(a, b, FIT, TEST, sites=SITES, methods=["dm"], indices=(), ood=None, device="cpu")
    assert found.meta["target_accuracy"] > 0.9


# -- tokens --------------------------------------------------------------------------------------------------


def test_padding_is_left_out_of_the_output() -> None:
    network = made(causal=False, outputs=None, named=False)
    found = [suture.compare(network, data=stream(texts(), length), test=stream(texts(17, 1), length),
                            methods=["dm"], indices=(), ood=None, device="cpu") for length in (12, 20)]
    assert "the output is hidden states" in found[0].meta["notes"][0]
    for measure in ("dm.output_error", "dm.output_r2"):
        one, other = (f.matrix(measure).to_numpy() for f in found)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        assert (one[0, 1] > 0.01) & (one[0, 1] < 1)


def test_padding_is_left_out_of_one_number_for_each_token() -> None:
    how: Any = {"methods": ["dm"], "indices": (), "ood": None, "device": "cpu",
                "sites": ["inner.blocks.0", "inner.blocks.1"]}
    squeezed, kept = (Wrapped(made(causal=False, outputs=1), last)
                      for last in (lambda h, z: z[..., 0], lambda h, z: z))
    data, test = stream(texts()), stream(texts(17, 1))
    one, other = (suture.compare(n, data=data, test=test, task="none", **how) for n in (squeezed, kept))
    for measure in one.measures:
        np.testing.assert_allclose(one.matrix(measure), other.matrix(measure), rtol=1e-4, atol=1e-6)


class Wrapped(nn.Module):
    def __init__(self, network: nn.Module, last: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.last = network, last

    def forward(self, **inputs: Tensor) -> Any:
        z = self.inner(**inputs)["logits"]
        return self.last(self.inner.words(inputs["input_ids"]), z)


@pytest.mark.parametrize("last", [lambda h, z: (h, z), lambda h, z: z.softmax(2),
                                  lambda h, z: {"states": h, "out": z.log_softmax(2)}])
def test_language_models_have_outputs_of_every_form(last: Any) -> None:
    how: Any = {"data": stream(texts()), "test": stream(texts(17, 1)), "methods": ["dm"], "indices": (),
                "ood": None, "device": "cpu", "sites": ["inner.blocks.0", "inner.blocks.1"]}
    found = suture.compare(Wrapped(made(), last), **how)
    wanted = suture.compare(Wrapped(made(), lambda h, z: z), **how)
    assert found.meta["settings"]["task"] == "next_token"
    for measure in wanted.measures:
        np.testing.assert_allclose(found.matrix(measure), wanted.matrix(measure), rtol=1e-3, atol=1e-4)
