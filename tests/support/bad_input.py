"""Networks, data and options that go wrong, and words that the message must hold."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import suture
from tests.support.tiny import Block, Tiny, batches, data, images, labels, network, seeded


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
    made.lock = threading.Lock()
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
    return (images().numpy(), labels().numpy().astype(str)), None


def doubles() -> tuple[Any, Any]:
    return (images().double(), labels()), None


def grows() -> tuple[Any, Any]:
    bigger = torch.rand(8, 2, 10, 10)
    return [(images(8), labels(8)), (bigger, labels(8))], None


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
    "loaders of unequal length": Case(("the target loader ended after 2 batches", "same examples"),
                                      data=unequal_loaders),
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
    "fewer labels than inputs": Case(("as many labels as inputs", "(23,)", "(24, 2, 8, 8)"),
                                     data=few_labels),
    "fewer labels in one batch": Case(("got 7 labels for 8 inputs in one batch",),
                                      data=few_labels_in_a_batch),
    "label above": Case(("labels from 0 to 2, got 7", "3 outputs"), data=label_7),
    "label below": Case(("labels from 0 to 2, got -1",), data=label_minus_1),
    "label above in training": Case(("labels from 0 to 2, got 7",), data=label_7,
                                    options={"methods": ["tlm"]}),
    "label above in the test": Case(("labels from 0 to 2, got 7",), data=test_label_7,
                                    options={"methods": ["dm"]}),
    "labels in columns": Case(("class numbers (N,)", ", 1)", "flatten()"), data=label_columns),
    "labels that are no whole numbers": Case(("class numbers", "float32"), data=label_floats),
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
    "labels that are an array of words": Case(("arrays of numbers, got one of <U",), data=arrays),
    "inputs of another size later": Case(("map 3x8x8 at site 'block1'", "got map 3x10x10"), data=grows),
    "unknown method": Case(("unknown method 'dmm'", "nearest: dm"), options={"methods": ["dmm"]}),
    "unknown index": Case(("unknown index 'ckaa'", "nearest: cka"), options={"indices": ["ckaa"]}, cli=False),
    "unknown precision": Case(("float16", "float32", "float64"), options={"precision": "float16"}),
    "unknown device": Case(("'gpu'", "auto, cpu, cuda or mps"), options={"device": "gpu"}),
    "negative seed": Case(("seed", "-1"), options={"seed": -1}, cli=False),
    "batches of nothing": Case(("batch_size", "at least 1", "got 0"), options={"batch_size": 0}, cli=False),
    "wrong channels": Case(("source network fails on inputs of shape (4, 2, 8, 8)", "3 channels", "made for"),
                           three_channels),
    "wrong channels in the target": Case(("target network fails on inputs of shape (4, 2, 8, 8)",),
                                         target=three_channels),
    "a forward that asserts": Case(("source network fails", "input height 8 is not 32"), asserts),
    "a network that cannot be copied": Case(("source network cannot be copied", "private copy"), locked),
    "a scripted network": Case(("eager module as source, got a TorchScript one",), scripted),
    "maps for logits": Case(("needs logits", "task='none'", "of shape (4, 4, 4, 4)"), maps,
                            options={"sites": ["block1"], "methods": ["tlm"]}),
    "one number for logits": Case(("needs logits", "task='none'", "one number for each example"), scores,
                                  options={"methods": ["tlm"]}),
    "no data": Case(("expected data", "got none", "loader"), data=nothing),
    "no network": Case(("source", "Module", "got None"), lambda: None, cli=False),
    "a class for a network": Case(("target", "Module", "got type"), target=lambda: Tiny, cli=False),
}


def check_message(message: str, words: tuple[str, ...]) -> None:
    assert "\n" not in message
    for w in words:
        assert w in message
