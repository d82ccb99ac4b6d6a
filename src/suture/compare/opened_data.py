"""The data of a comparison: opened once for each of their uses, completed, described, and sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from suture._base import expect
from suture.compare.settings import CompareOptions
from suture.data import Batch, Batches, Prepared, can_shuffle, move_batch
from suture.networks import (
    Readout,
    apply,
    complete_decoder_inputs,
    disable_gradients,
    fit_columns,
    name_tensors,
    take_first,
)
from suture.representations import PAPER_EXAMPLES
from suture.stitching import EXAMPLES, make_training_batches


@dataclass(frozen=True)
class OpenedData:
    """The data of a comparison, opened once for each use.

    Attributes:
        whole: all fitting examples.
        fit: examples for the moments.
        test: examples for the evaluation of stitched networks.
        training: training and held-out batches of task loss matching; None without it.
        paper: examples of the alignment ``paper``; None without it.
        held_out: True if the test data are not the fitting data.
        about: descriptions of the data, where there are any.
        auxiliary: given auxiliary and unseen data of the detectors, by name.
    """

    whole: Batches
    fit: Batches
    test: Batches
    training: tuple[Batches, Batches | None] | None
    paper: Batches | None
    held_out: bool
    about: Mapping[str, Mapping[str, Any]]
    auxiliary: Mapping[str, Batches]

    @cached_property
    def random(self) -> list[str]:
        """Names of data that come otherwise in every pass."""
        return [d.name for d in (self.whole, *self.auxiliary.values()) if d.is_random()]

    @property
    def watched(self) -> dict[str, Batches]:
        """Data whose passes keep digests of what they see, each once."""
        found = {"data": self.fit, "test data": self.test, **self.auxiliary}
        if self.fit is not self.whole:
            found["all data"] = self.whole
        return found if self.paper is None else {**found, "first test data": self.paper}


def open_data(given: CompareOptions) -> OpenedData:
    """Open the data of a comparison for each of their uses."""
    data, held_out = given.data, given.test is not None
    expect(data is not None, "data to compare the networks on", "none", "pass a loader or (inputs, labels)")
    complete = make_completion(given.source, given.target)
    how: dict[str, Any] = {"size": given.batch_size, "device": given.torch_device, "complete": complete,
                           "watched": True}
    test = given.test if held_out else data
    whole = Batches(data, **how)
    fit = whole if given.examples is None else Batches(data, most=given.examples, exact=True, **how)
    tested = Batches(test, name="test data" if held_out else "data", **how)
    training = (make_training_batches(data, given.recipe, given.torch_device, complete)
                if "tlm" in given.method_names else None)
    paper = (Batches(test, name="test data", most=PAPER_EXAMPLES, **how)
             if any(r.alignment == "paper" for r in given.requests) else None)
    about = {name: found for name, d in (("fit", data), ("test", given.test)) if (found := describe_data(d))}
    return OpenedData(whole, fit, tested, training, paper, held_out, about, given.open_auxiliary())


def describe_data(data: Any) -> dict[str, Any]:
    """Return the description of examples of `suture.sources`, also inside ``Prepared``; {} for other data.

    Fingerprints are included only where they are cheap: texts, arrays, and images that stay decoded.
    """
    of = data.data if isinstance(data, Prepared) else data
    if not hasattr(of, "is_small"):
        return {}
    prints = {"fingerprint": of.fingerprint, "content": of.content} if of.is_small else {}
    how = ({} if of is data
           else {"prepared": [_name_preprocessing(data.source), _name_preprocessing(data.target)]})
    return {"name": of.name, "examples": len(of), "note": of.note, **prints, **how}


def _name_preprocessing(how: Any) -> str:
    """Return the repr of a preprocessing, or its name if the repr holds a memory address, which varies."""
    text = repr(how)
    return getattr(how, "__qualname__", type(how).__qualname__) if " at 0x" in text else text


def make_completion(source: nn.Module, target: nn.Module | None) -> Callable[[Batch], Batch]:
    """Return a function that gives the decoders of both networks what follows from labels and padding."""
    def complete(batch: Batch) -> Batch:
        mine = complete_decoder_inputs(source, fit_columns(source, batch.source), batch.labels)
        if batch.target is batch.source and target in (None, source):
            theirs = mine
        else:
            other = target or source
            theirs = complete_decoder_inputs(other, fit_columns(other, batch.target), batch.labels)
        unchanged = mine is batch.source and theirs is batch.target
        return batch if unchanged else replace(batch, source=mine, target=theirs)

    return complete


def find_labelled(first: Batch, test: Batches, device: torch.device) -> Batch:
    """Return the first batch of the data, or that of the test data if only these have labels."""
    tested = first if first.labels is not None else move_batch(next(iter(test)), device)
    return first if tested.labels is None else tested


def spread_examples(batches: Batches, data: Any, device: torch.device) -> Iterator[Batch]:
    """Yield batches of `data`: of a few examples, evenly spread, or the first ones of a stream."""
    n = batches.count_examples()
    if n is not None and can_shuffle(data):
        rows = torch.linspace(0, n - 1, min(n, EXAMPLES)).long()
        batches = Batches(data, rows=rows, size=EXAMPLES, device=device, complete=batches.complete)
    for batch in batches:
        yield move_batch(batch, device)


@disable_gradients()
def find_readout(source: nn.Module, inputs: Any, readout: Readout | None) -> Readout | None:
    """Return the target network's readout if the source network has such an output too."""
    has = readout is not None and readout.path in name_tensors(apply(source, take_first(inputs)))
    return readout if has else None
