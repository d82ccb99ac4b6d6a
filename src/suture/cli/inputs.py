"""Networks and data that a command line names, with raw examples prepared as each network needs them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from typing_extensions import Doc

from suture import specs, zoo
from suture._base import Count, Real, SutureError, expect, options
from suture.data import (
    Batches,
    ImagePreprocessing,
    Preprocessing,
    TextPreprocessing,
    parse_preprocessing,
)

EXAMPLE_TEXTS = ("The cat sat on the mat.", "How similar are two networks, layer by layer?", "Yes.",
                 "Stitch them and see.")
"""Inputs of a language model where there are no data."""


@options
class DataOptions(specs.ReadingOptions):
    """Options of reading and preparing data."""

    source_input: Annotated[str | None, Doc(
        "Input of the source, in place of what it asks for: raw, or "
        "size=64,mean=0.5,0.4,0.3,std=0.5,channels=3,interpolation=bicubic,crop=0.875.")] = None
    target_input: Annotated[str | None, Doc("Input of the target, written as that of the source.")] = None
    length: Annotated[Count | None, Doc(
        "Number of tokens that texts are padded and cut to. Default: the longest of the batch.")] = None
    mask_rate: Annotated[Real, Field(ge=0, lt=1), Doc(
        "Share of the tokens of texts to mask and predict, for masked language models.")] = 0.0


@dataclass(frozen=True)
class ComparisonInputs:
    """Networks, data and notes, ready for `suture.compare`; `target` is None for self-stitching."""

    source: nn.Module
    target: nn.Module | None
    train: Any
    test: Any
    notes: tuple[str, ...]


def load_comparison_inputs(source: str, target: str | None, source_weights: Path | None, target_weights: Path
                           | None, data: str, options: DataOptions, seed: int) -> ComparisonInputs:
    raw = options.load_data(data, seed)
    one = specs.build_network(source, weights=source_weights, like=raw[0], seed=seed)
    other = (None if target is None
             else specs.build_network(target, weights=target_weights, like=raw[0], seed=seed + 1))
    text: dict[str, Any] = {"length": options.length, "mask_rate": options.mask_rate, "seed": seed}
    how = adjust_preprocessing(one.preprocessing, options.source_input, **text)
    theirs = how if other is None else adjust_preprocessing(other.preprocessing, options.target_input, **text)
    always = options.source_input is not None or options.target_input is not None
    train, test = (specs.prepare_data(d, how, theirs, always=always) for d in raw)
    notes = [*one.notes, *(() if other is None else other.notes)]
    return ComparisonInputs(one.network, None if other is None else other.network, train, test,
                            tuple(dict.fromkeys(notes)))


def adjust_preprocessing(own: Preprocessing | None, given: str | None = None, *, length: int | None = None,
                         mask_rate: float = 0.0, seed: int = 0) -> Preprocessing | None:
    """Return a network's `own` preprocessing with the changes of a command line.

    `given` replaces it, such as ``size=64,mean=0.5,std=0.5``, or ``raw`` for none. The other arguments change
    a `TextPreprocessing`.
    """
    if given is not None:
        return parse_preprocessing(given)
    if length is None and not mask_rate:
        return own
    if not isinstance(own, TextPreprocessing):
        raise SutureError("expected a network with a tokenizer for a length or a mask rate, got one without; "
                          "leave them out, or give hf:FOLDER with a tokenizer")
    return dataclasses.replace(own, length=length, mask_rate=mask_rate, seed=seed)


def make_example_inputs(loaded: specs.LoadedNetwork, data: Any, how: Preprocessing | None, *,
                        always: bool = False) -> Any:
    """Make a few inputs for a network, from `data` if given, else from texts or noise of a known size.

    `how` is the preprocessing of raw examples; `always` as for `prepare_data`.
    """
    if data is not None:
        return next(iter(Batches(specs.prepare_data(data, how, how, always=always), size=4))).source
    if isinstance(how, TextPreprocessing):
        return how(EXAMPLE_TEXTS)
    kind, _, name = loaded.spec.partition(":")
    shape = zoo.networks[name].input_shape if kind == "zoo" and name in zoo.networks else ()
    if isinstance(how, ImagePreprocessing) and how.size is not None:
        shape = (how.channels or 3, *how.size)
    expect(bool(shape), f"data for {loaded.spec}, whose inputs are unknown", "none",
           "give --data mypackage.data:splits, or --input size=64")
    noise = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    return noise if how is None else how(noise)
