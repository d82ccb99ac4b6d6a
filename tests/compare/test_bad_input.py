"""Bad input: one line that says what was expected, what came and what to write instead; nothing lost.

Every case of the table runs through `suture.compare` and, where the command line can say it, through
`suture compare`. Networks and data are functions of this module, so that both ways get the same.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import suture
from suture import SutureError, cli, zoo
from suture.cli import specs
from suture.results.comparison import Comparison
from tests.support import tiny
from tests.support.tiny import RECIPE, Block, Tiny, batches, data, images, labels, network, other, seeded

# -- networks and data that go wrong, by the names that the table uses ---------------------------------------


class Talks(Tiny):
    """Calls a module that returns no tensor, and one whose result goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.idle = Words(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        h = self.block2(self.block1(x))
        self.words(h)
        self.idle(h.mean((2, 3)))
        return self.head(h.mean((2, 3)))


class Words(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "no tensor"


class Skips(Tiny):
    """A connection around block2."""

    def forward(self, x: Tensor) -> Any:
        h = self.block1(x)
        return self.head(self.block2(h).mean((2, 3))) + h.mean((2, 3))


class Returns(Tiny):
    """Returns what `last` makes of the representation of block2."""

    def __init__(self, last: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.last = last

    def forward(self, x: Tensor) -> Any:
        return self.last(self.block2(self.block1(x)))


class Asserts(Tiny):
    def forward(self, x: Tensor) -> Any:
        assert x.shape[-1] == 32, "input height 8 is not 32"
        return super().forward(x)


def talks() -> nn.Module:
    return seeded(Talks)


def skips() -> nn.Module:
    return seeded(Skips)


def maps() -> nn.Module:
    return seeded(lambda: Returns(lambda h: h))


def scores() -> nn.Module:
    return seeded(lambda: Returns(lambda h: h.mean((1, 2, 3))))


def asserts() -> nn.Module:
    return seeded(Asserts)


def three_channels() -> nn.Module:
    return seeded(lambda: Tiny(channels=3))


def double() -> nn.Module:
    return network().double()


def scripted() -> nn.Module:
    with warnings.catch_warnings(action="ignore"):  # deprecated, and still about
        return torch.jit.script(nn.Sequential(Block(2, 3), Block(3, 3)))


def locked() -> nn.Module:
    made = network()
    made.derived = made.head.weight * 2
    return made


def broken() -> nn.Module:
    """NaN from block2 on."""
    made = network()
    with torch.no_grad():
        made.block2.conv.weight[1] = float("nan")
    return made


def overflows() -> nn.Module:
    """inf at block2, from weights that are finite."""
    made = network()
    with torch.no_grad():
        for block in (made.block1, made.block2):
            block.conv.weight.abs_().mul_(1e30)
    return made


def nothing() -> tuple[Any, Any]:
    return None, None


def unequal_loaders() -> tuple[Any, Any]:
    whole = batches(images(), labels())
    return suture.Paired(whole, whole[:2]), None


def unequal_batches() -> tuple[Any, Any]:
    return suture.Paired(batches(images(), labels(), 8), batches(images(), labels(), 12)), None


def other_order() -> tuple[Any, Any]:
    whole = batches(images(), labels())
    return suture.Paired(whole, [whole[0], (whole[1][0], whole[1][1].flip(0)), whole[2]]), None


def empty_pair() -> tuple[Any, Any]:
    return suture.Paired(batches(images(), labels()), []), None


def empty_list() -> tuple[Any, Any]:
    return [], None


def empty_loader() -> tuple[Any, Any]:
    return DataLoader(TensorDataset(images(0), labels(0))), None


def empty_tensors() -> tuple[Any, Any]:
    return (images(0), labels(0)), None


def empty_test() -> tuple[Any, Any]:
    return data()[0], [(images(0), labels(0))]


def few_labels() -> tuple[Any, Any]:
    return (images(24), labels(23)), None


def few_labels_in_a_batch() -> tuple[Any, Any]:
    return [(images(8), labels(8)), (images(8), labels(7))], None


def _labelled(given: Tensor) -> tuple[Any, Any]:
    return (images(), given), (images(), given)


def label_7() -> tuple[Any, Any]:
    return _labelled(labels().index_fill(0, torch.tensor([20]), 7))


def label_minus_1() -> tuple[Any, Any]:
    return _labelled(labels().index_fill(0, torch.tensor([20]), -1))


def label_columns() -> tuple[Any, Any]:
    return _labelled(labels()[:, None])


def label_floats() -> tuple[Any, Any]:
    return _labelled(labels().float())


def label_words() -> tuple[Any, Any]:
    return [(images(3), ["cat", "dog", "cat"])], None


def test_label_7() -> tuple[Any, Any]:
    return data()[0], label_7()[0]


test_label_7.__test__ = False  # type: ignore[attr-defined]


def no_labels() -> tuple[Any, Any]:
    return [images(8), images(8)], None


def _spoiled(value: float) -> list[tuple[Tensor, Tensor]]:
    inputs = images()
    inputs[20, 0, 3, 3] = value
    return batches(inputs, labels())


def nan_in_batch_2() -> tuple[Any, Any]:
    return _spoiled(float("nan")), None


def inf_in_batch_2() -> tuple[Any, Any]:
    return _spoiled(float("inf")), None


def nan_in_test() -> tuple[Any, Any]:
    return data()[0], _spoiled(float("nan"))


def generator() -> tuple[Any, Any]:
    return iter(batches(images(), labels())), None


def paired_generator() -> tuple[Any, Any]:
    return suture.Paired(batches(images(), labels()), iter(batches(images(), labels()))), None


def examples() -> tuple[Any, Any]:
    return list(zip(images(), labels().tolist(), strict=True)), None


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(zip(images(), labels().tolist(), strict=True))

    def __len__(self) -> int:
        return 24


def stream_of_examples() -> tuple[Any, Any]:
    return Stream(), None


def arrays() -> tuple[Any, Any]:
    return (images().numpy(), labels().numpy()), None


def doubles() -> tuple[Any, Any]:
    return (images().double(), labels()), None


def grows() -> tuple[Any, Any]:
    bigger = torch.rand(8, 2, 10, 10)
    return [(images(8), labels(8)), (bigger, labels(8))], None


# -- the table -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What is given, and words that the message must hold."""

    words: tuple[str, ...]
    network: Callable[[], Any] = network
    target: Callable[[], Any] | None = None
    data: Callable[[], tuple[Any, Any]] = data
    options: dict[str, Any] = field(default_factory=dict)
    cli: bool = True


CASES = {
    "unknown site": Case(("'block2.cnv'", "nearest: block2.conv", "source"),
                         options={"sites": ["block2.cnv"]}),
    "unknown target site": Case(("'blok1'", "nearest: block1", "target"),
                                options={"target_sites": ["blok1"]}),
    "glob without a match": Case(("'stage*'", "matches no module"), options={"sites": ["stage*"]}),
    "a call that does not happen": Case(("'block1'", "called 1 times", "no call 3"),
                                        options={"sites": ["block1#3"]}),
    "not a site name": Case(("'#'", "expected a site like 'layer1.0'"), options={"sites": ["#"]}),
    "no sites": Case(("at least one site", "leave sites out"), options={"sites": []}, cli=False),
    "a function that accepts none": Case(("accepts no module of the source",), cli=False,
                                         options={"sites": lambda path, module: False}),
    "site without a tensor": Case(("'words'", "returns no floating point tensor but str", "choose another"),
                                  talks, options={"sites": ["words"]}),
    "site that leads nowhere": Case(("'idle'", "does not depend on"), talks, options={"sites": ["idle"]}),
    "module never called": Case(("'unused'", "never called", "choose"), options={"sites": ["unused"]}),
    "bypassed site": Case(("'block2'", "block1 goes around it", "allow_bypass=True"), skips,
                          options={"sites": ["block2"]}),
    "loaders of unequal length": Case(("equal length", "the target loader ended after 2 batches",
                                       "same examples"), data=unequal_loaders),
    "paired batches of unequal length": Case(("got 8 and 12 examples in batch 0", "same batch size"),
                                             data=unequal_batches),
    "paired labels that differ": Case(("labels of the two loaders differ in batch 1", "shuffle=False"),
                                      data=other_order),
    "zero batches on one side": Case(("at least one example in the target loader, got none",),
                                     data=empty_pair),
    "zero batches": Case(("at least one example in data, got none", "check"), data=empty_list),
    "a loader of nothing": Case(("at least one example in data, got none",), data=empty_loader),
    "tensors of length zero": Case(("at least one example in data, got none",), data=empty_tensors),
    "empty test data": Case(("at least one example in test data, got none",), data=empty_test),
    "fewer labels than inputs": Case(("as many labels as inputs in data", "(23,)", "(24, 2, 8, 8)"),
                                     data=few_labels),
    "fewer labels in one batch": Case(("got 7 labels for 8 inputs in one batch",),
                                      data=few_labels_in_a_batch),
    "label above": Case(("labels from 0 to 2, got 7", "3 outputs"), data=label_7),
    "label below": Case(("labels from 0 to 2, got -1",), data=label_minus_1),
    "label above in training": Case(("labels from 0 to 2, got 7",), data=label_7,
                                    options={"methods": ["tlm"]}),
    "label above in the test": Case(("labels from 0 to 2, got 7",), data=test_label_7,
                                    options={"methods": ["dm"]}),
    "labels in columns": Case(("integer labels (N,)", "(4, 1)"), data=label_columns),
    "labels that are no whole numbers": Case(("integer labels (N,)", "torch.float32"), data=label_floats),
    "labels in words": Case(("labels that are numbers, got list", "class numbers"), data=label_words),
    "no labels to train on": Case(("expected labels", "leave 'tlm' out"), data=no_labels,
                                  options={"methods": ["tlm"]}),
    "NaN in a representation": Case(("NaN or inf", "source site 'block1'", "batch 2 ", "check"),
                                    data=nan_in_batch_2),
    "inf in a representation": Case(("NaN or inf", "source site 'block1'", "batch 2 "), data=inf_in_batch_2),
    "NaN that a network makes": Case(("NaN or inf", "source site 'block2'", "batch 0 "), broken),
    "inf that a network makes": Case(("NaN or inf", "source site 'block2'", "batch 0 "), overflows),
    "NaN that the target makes": Case(("NaN or inf", "target site 'block2'", "batch 0 "), target=broken),
    "NaN in the test data": Case(("NaN or inf", "'block1'", "batch 2 ", "test data"), data=nan_in_test,
                                 options={"methods": ["dm"]}),
    "a network in double precision": Case(("float64 in 'block1.conv.weight'", "float32", "network.float()"),
                                          double),
    "a target in double precision": Case(("target", "float64", "network.float()"), target=double),
    "data in double precision": Case(("source network fails on inputs of shape (4, 2, 8, 8)",), data=doubles),
    "an iterator": Case(("data that can be read more than once, got", "DataLoader"), data=generator),
    "a pair with an iterator": Case(("the target loader that can be read more than once, got",),
                                    data=paired_generator),
    "examples, not batches": Case(("got a single example with one label", "DataLoader"), data=examples),
    "a stream of examples": Case(("got a single example with one label", "DataLoader"),
                                 data=stream_of_examples),
    "arrays": Case(("expected batches (inputs, labels), got ndarray", "tensors"), data=arrays),
    "inputs of another size later": Case(("map 3x8x8 at site 'block1'", "got map 3x10x10"), data=grows),
    "unknown method": Case(("unknown method 'dmm'", "nearest: dm"), options={"methods": ["dmm"]}),
    "unknown index": Case(("unknown index 'ckaa'", "nearest: cka"), options={"indices": ["ckaa"]}, cli=False),
    "unknown precision": Case(("float16", "float32", "float64"), options={"precision": "float16"}),
    "unknown device": Case(("'gpu'", "auto, cpu, cuda or mps"), options={"device": "gpu"}),
    "negative seed": Case(("seed", "-1"), options={"seed": -1}, cli=False),
    "batches of nothing": Case(("batch size of at least 1", "got 0"), options={"batch_size": 0}, cli=False),
    "wrong channels": Case(("source network fails on inputs of shape (4, 2, 8, 8)", "3 channels", "made for"),
                           three_channels),
    "wrong channels in the target": Case(("target network fails on inputs of shape (4, 2, 8, 8)",),
                                         target=three_channels),
    "a forward that asserts": Case(("source network fails", "input height 8 is not 32"), asserts),
    "a network that cannot be copied": Case(("source network cannot be copied", "private copy"), locked),
    "a scripted network": Case(("eager module as source, got a TorchScript one",), scripted),
    "maps for logits": Case(("logits (N, classes)", "got (4, 4, 4, 4)", "wrap"), maps,
                            options={"sites": ["block1"], "methods": ["tlm"]}),
    "one number for logits": Case(("logits (N, classes)", "got (4,)"), scores, options={"methods": ["dm"]}),
    "no data": Case(("expected data", "got none", "loader"), data=nothing),
    "no network": Case(("torch.nn.Module as source, got NoneType",), lambda: None, cli=False),
    "a class for a network": Case(("torch.nn.Module as target, got type",), target=lambda: Tiny, cli=False),
}


@pytest.mark.parametrize("name", CASES)
def test_compare_refuses_in_one_line(name: str) -> None:
    case = CASES[name]
    with pytest.raises(SutureError) as error:
        _run(case)
    _check(str(error.value), case.words)


def _run(case: Case) -> Comparison:
    train, test = case.data()
    return suture.compare(case.network(), case.target and case.target(), train, test,
                          **{"tlm": RECIPE, "device": "cpu", **case.options})


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.cli])
def test_the_command_refuses_in_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    given = [f"{__name__}:{f.__name__}" for f in (case.network, case.target) if f]
    options = {"data": f"{__name__}:{case.data.__name__}", "epochs": 1, "batch_size": 16,
               "out": tmp_path / "out", "device": "cpu", **case.options}
    for k, v in options.items():
        given += [f"--{k.replace('_', '-')}", ",".join(v) if isinstance(v, list) else str(v)]
    code, _, err = tiny.suture(monkeypatch, capsys, "compare", *given)
    assert code == 2
    assert err.startswith("suture: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    _check(err.removeprefix("suture: ").rstrip("\n"), case.words)


def _check(message: str, words: tuple[str, ...]) -> None:
    assert "\n" not in message
    for w in words:
        assert w in message


# -- what is wrong only on a command line --------------------------------------------------------------------


def _compare(*args: object, out: Path) -> list[object]:
    return ["compare", "tests.support.tiny:network", "--data", "tests.support.tiny:data", "--epochs", 2,
            "--batch-size", 8, "--device", "cpu", "--out", out, *args]


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli.stitching_commands.specs, "load_data",
                        lambda spec: pytest.fail("read the data first"))
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "below"
    commands = [["compare", "tests.support.tiny:network", "--out", out], ["demo", "--out", out],
                ["train", "zoo:resnet_digits", "--out", out / "w.safetensors"]]
    for command in commands:
        code, _, err = tiny.suture(monkeypatch, capsys, *command)
        assert (code, err.count("\n")) == (2, 1)
        assert "cannot write" in err
        assert str(tmp_path / "file") in err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_holds_other_things_is_refused_and_left_alone(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    code, _, err = tiny.suture(monkeypatch, capsys, *_compare("--methods", "none", out=tmp_path))
    assert (code, err.count("\n")) == (2, 1)
    assert "thesis.tex" in err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_weights_that_do_not_fit_name_the_first_keys(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "w.safetensors"
    made = three_channels()
    made.extra = nn.Linear(1, 1)
    del made.head
    zoo.save_weights(made, path)
    words = ("missing: head.weight, head.bias", "unexpected: extra.bias, extra.weight",
             "wrong shape: block1.conv.weight (file (3, 3, 3, 3), network (3, 2, 3, 3))")
    with pytest.raises(SutureError) as error:
        specs.build_network("tests.support.tiny:network", weights=path)
    _check(str(error.value).replace("extra.weight, extra.bias", "extra.bias, extra.weight"), words)
    code, _, err = tiny.suture(monkeypatch, capsys, *_compare("--source-weights", path, out=tmp_path / "out"))
    assert (code, err.count("\n")) == (2, 1)
    _check(err.rstrip("\n").replace("extra.weight, extra.bias", "extra.bias, extra.weight"), words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("args", "words"), [
    (["compare"], "Missing argument"), (["compare", "x", "--bogus"], "--bogus"), (["nosuch"], "nosuch"),
    (["compare", "zoo:resnet_digits", "--epochs", "many"], "--epochs"),
    (["compare", "zoo:resnet_digits", "--seed", "-1"], "--seed"),
    (["compare", "zoo:resnet_digits", "--epochs", "0"], "epochs must be a whole number of at least 1, got 0"),
    (["compare", "zoo:resnet_digits", "--temperature", "0"],
     "temperature must be finite and above 0, got 0.0"),
    (["compare", "zoo:resnet_digits", "--objective", "softer"], "unknown objective 'softer'; nearest: soft"),
    (["compare", "zoo:resnet_digits", "--init", "zeros"], "random, dm, identity"),
    (["compare", "zoo:resnet_digit"], "nearest: resnet_digits"), (["compare", "zoo"], "zoo:resnet_digits"),
    (["compare", "zoo:resnet_digits", "--source-weights", "none.pt"], "none.pt"),
    (["compare", "zoo:resnet_digits", "--data", "digit"], "digits"),
    (["compare", "tests.support.tiny:netwrk"], "nearest: network"),
    (["layers", "tests.support.tiny:netwrk"], "nearest: network"),
    (["train", "tests.support.tiny:network"], "expected zoo:NAME"),
    (["train", "zoo:resnet_digits", "--data", "tests.support.tiny:data"], "ImageSet"),
    (["train", "zoo:resnet_digits", "--out", "w.pt"], "write w.safetensors"),
    (["train", "zoo:resnet_digits", "--epochs", "0"], "epochs"),
    (["report", "nowhere"], "'nowhere' is not a folder"),
])
def test_commands_that_make_no_sense(args: list[str], words: str, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = tiny.suture(monkeypatch, capsys, *args)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("suture: ")
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_a_real_process_has_the_exit_code_and_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "from suture.cli import main; main()", "compare",
                           "zoo:resnet_digits", "--sites", "layer9.0", "--out", str(tmp_path / "out")],
                          capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "'layer9.0'" in done.stderr
    assert "nearest: layer" in done.stderr


# -- what is bad but not wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_representation_gives_missing_values_with_a_reason_and_the_rest(value: float) -> None:
    made = network()
    with torch.no_grad():
        made.block1.conv.weight.zero_()
        made.block1.conv.bias.fill_(value)
    result = suture.compare(made, other(), *data(), tlm=RECIPE, device="cpu")
    table = result.table.set_index(["source", "target", "measure"])
    for name in ("cka", "cka_debiased", "cca", "pwcca", "pwcca_target", "opd", "r2"):
        for target in tiny.SITES:
            assert table.loc[("block1", target, name), "reason"] == "constant source representation"
            assert np.isnan(table.loc[("block1", target, name), "value"])
    assert result.matrix("dm.accuracy").notna().all(axis=None)
    assert result.matrix("tlm.accuracy").notna().all(axis=None)
    assert any("constant representation at block1" in note for note in result.meta["notes"])
    assert result.verdict().words


def _wide() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 30), nn.Tanh(), nn.Linear(30, 40),
                                        nn.Tanh(), nn.Linear(40, 3)))


@pytest.mark.parametrize("sites", [("2", "2"), ("2", "4"), ("4", "2")])
def test_fewer_rows_than_features_keeps_what_is_defined(sites: tuple[str, str]) -> None:
    few = (images(9), labels(9))
    result = suture.compare(_wide(), None, few, sites=[sites[0]], target_sites=[sites[1]],
                            methods=["dm"], device="cpu")
    reasons = result.table.set_index("measure")["reason"]
    for name in ("cca", "pwcca", "pwcca_target", "r2"):
        assert reasons[name].startswith("9 rows ")
        assert "cka, opd and direct matching are still defined" in reasons[name]
    for name in ("cka", "opd", "dm.accuracy", "dm.relative_accuracy", "dm.residual"):
        assert reasons[name] == ""
    assert any("9 rows" in note and "least norm" in note for note in result.meta["notes"])


def test_rows_enough_on_one_side_only_are_noted() -> None:
    """A narrow source, a wide target: what is missing depends on both."""
    narrow = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 2), nn.Tanh(), nn.Linear(2, 3)))
    result = suture.compare(narrow, _wide(), (images(9), labels(9)), sites=["2"], target_sites=["4"],
                            methods=[], device="cpu")
    assert result.table.set_index("measure")["reason"]["cca"] != ""
    assert any("9 rows" in note and "cca" in note for note in result.meta["notes"])


def test_enough_rows_are_not_noted() -> None:
    result = suture.compare(network(), other(), *data(), methods=[], device="cpu")
    assert result.meta["notes"] == []


def test_a_bypassed_site_is_accepted_on_demand_and_said_to_be_one() -> None:
    result = suture.compare(skips(), None, *data(), sites=["block2"], methods=["dm"],
                            allow_bypass=True, device="cpu")
    assert result.matrix("dm.relative_accuracy").loc["block2", "block2"] == 1
    assert any("bypassed sites (block2)" in note for note in result.meta["notes"])


def test_maps_for_logits_do_not_hinder_the_indices() -> None:
    result = suture.compare(maps(), None, data()[0], sites=["block1"], methods=[], device="cpu")
    assert result.matrix("cka").iloc[0, 0] == pytest.approx(1)


def test_without_a_target_the_source_is_stitched_to_itself() -> None:
    result = suture.compare(network(), data=data()[0], test=data()[1], methods=["dm"], device="cpu")
    assert result.same_network
    assert np.diag(result.matrix("dm.relative_accuracy")) == pytest.approx([1, 1])


def test_without_labels_accuracies_are_missing_and_agreement_is_not() -> None:
    result = suture.compare(network(), None, *no_labels(), methods=["dm"], device="cpu")
    reasons = result.table.set_index("measure")["reason"]
    assert set(reasons["dm.accuracy"]) == {"the test data have no labels"}
    assert set(reasons["dm.agreement"]) == {""}


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int16])
def test_labels_of_any_whole_type_do(kind: torch.dtype) -> None:
    wanted = suture.compare(network(), other(), *data(), tlm=RECIPE, device="cpu")
    (x, y), (tx, ty) = data()
    got = suture.compare(network(), other(), (x, y.to(kind)), (tx, ty.to(kind)), tlm=RECIPE, device="cpu")
    _same_numbers(got, wanted)


# -- Ctrl-C --------------------------------------------------------------------------------------------------


def _same_numbers(one: Comparison, other: Comparison) -> None:
    assert one.table.equals(other.table)
    assert list(one.arrays) == list(other.arrays)
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)
    assert one.meta["notes"] == other.meta["notes"]
    assert one.meta["stages"] == other.meta["stages"]


def _interrupting(stage: str, done: int, total: int | None) -> None:
    if stage == "task loss matching" and done == 2:
        raise KeyboardInterrupt


def test_an_interruption_keeps_the_finished_stages_and_the_same_call_goes_on(tmp_path: Path) -> None:
    def run(**more: Any) -> Comparison:
        # Without test data, so that there is a note that every result has and a resumed one must not have
        # twice.
        return suture.compare(network(), other(), data()[0], tlm=RECIPE, device="cpu", **more)

    def save(c: Comparison) -> None:
        c.save(tmp_path / "out")

    with pytest.raises(KeyboardInterrupt):
        run(progress=_interrupting, on_stage=save)
    kept = suture.load(tmp_path / "out")
    assert kept.meta["stages"] == ["moments", "dm"]
    assert not kept.matrix("dm.accuracy").isna().any(axis=None)
    seen: list[str] = []
    resumed = run(previous=kept, on_stage=save, progress=lambda stage, done, total: seen.append(stage))
    # The moments pass comes again for the detectors, which are not kept.
    assert set(seen) == {"moments", "task loss matching", "evaluating tlm"}
    uninterrupted = run()
    assert uninterrupted.meta["notes"]
    _same_numbers(resumed, uninterrupted)
    _same_numbers(suture.load(tmp_path / "out"), uninterrupted)


def test_the_command_interrupted_goes_on_and_refuses_other_settings(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    @contextmanager
    def bars() -> Iterator[Any]:
        yield _interrupting

    with monkeypatch.context() as patched:
        patched.setattr(cli.stitching_commands, "show_progress", bars)
        code, _, err = tiny.suture(monkeypatch, capsys, *_compare(out=tmp_path / "a"))
    assert (code, err.count("\n")) == (130, 1)
    assert err.startswith("suture: interrupted")
    kept = suture.load(tmp_path / "a")
    assert kept.meta["stages"] == ["moments", "dm"]

    code, _, err = tiny.suture(monkeypatch, capsys, *_compare("--lr", 0.5, out=tmp_path / "a"))
    assert (code, err.count("\n")) == (2, 1)
    assert "other networks, data or settings" in err
    assert suture.load(tmp_path / "a").equals(kept)

    monkeypatch.setattr(Comparison, "report", lambda self, path: path)  # seconds of figures; tested elsewhere
    for place in ("a", "b"):
        code, _, err = tiny.suture(monkeypatch, capsys, *_compare(out=tmp_path / place))
        assert (code, err) == (0, "")
    _same_numbers(suture.load(tmp_path / "a"), suture.load(tmp_path / "b"))


def test_a_real_interruption_of_a_real_process(tmp_path: Path) -> None:
    # A shell that runs tests in the background hands on an ignored SIGINT, so the child asks for the usual
    # one.
    code = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from suture.cli import main; main()")
    command = [str(a) for a in _compare("--epochs", 10**6, out=tmp_path / "out")]
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([root, *sys.path])
    process = subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE,
                               text=True, cwd=root, env={**os.environ, "PYTHONPATH": paths})
    try:
        deadline = time.monotonic() + 120
        document = tmp_path / "out" / "comparison.json"
        while not (document.exists() and "dm" in json.loads(document.read_text())["meta"]["stages"]):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err.count("\n")) == (130, 1)
    assert out.endswith("detectors come on top\n")  # of the dry run
    assert err.startswith("suture: interrupted")
    assert suture.load(tmp_path / "out").meta["stages"] == ["moments", "dm"]


@pytest.mark.parametrize(("options", "words"), [
    ({"names": ("a",)}, "two names"),
    ({"sites": [3]}, "strings like"),
])
def test_options_of_the_wrong_kind_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(SutureError, match=words):
        suture.compare(network(), None, *data(), methods=[], device="cpu", **options)


def test_a_later_batch_that_the_network_rejects_is_named() -> None:
    stream = [(images(8), labels(8)), (images(8)[:, :1], labels(8))]
    with pytest.raises(SutureError, match="batch 1 of the data"):
        suture.compare(network(), None, stream, methods=[], device="cpu")


def test_a_shuffled_test_loader_is_refused_before_cells_are_paired_wrongly() -> None:
    """Direct and task loss matching are evaluated in two passes; their per-example results must be of one
    order."""
    train, _ = data()
    shuffled = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images(64), labels(64)),
                                           batch_size=16,
                                           shuffle=True, generator=torch.Generator().manual_seed(0))
    with pytest.raises(SutureError, match="shuffle=False"):
        suture.compare(network(), None, train, shuffled, tlm=RECIPE, device="cpu")
