"""The raw examples of data, prepared as each network needs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch

from suture import zoo
from suture._base import SutureError, expect
from suture.cli.specs.network_spec import LoadedNetwork
from suture.data import (
    Batches,
    Examples,
    ImagePreprocessing,
    Prepared,
    TextPreprocessing,
    explain_token_mismatch,
    parse_preprocessing,
)

COMPARED_TEXTS = 256
EXAMPLE_TEXTS = ("The cat sat on the mat.", "How similar are two networks, layer by layer?", "Yes.",
                 "Stitch them and see.")
"""Inputs of a language model where there are no data."""


def adjust_preprocessing(own: Callable[[Any], Any] | None, given: str | None = None, *,
                         length: int | None = None, mask_rate: float = 0.0,
                         seed: int = 0) -> Callable[[Any], Any] | None:
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


def prepare_data(data: Any, source: Callable[[Any], Any] | None, target: Callable[[Any], Any] | None, *,
                 always: bool = False) -> Any:
    """Return suture's own data prepared for both networks; return other data unchanged unless `always`.

    Two tokenizers must give the same tokens.
    """
    if not (always or isinstance(data, Examples | zoo.ImageSet)):
        return data
    if (isinstance(source, TextPreprocessing) and isinstance(target, TextPreprocessing)
        and isinstance(data, Examples)):
        texts = [raw for raw, _ in islice(iter(data), COMPARED_TEXTS)]
        if why := explain_token_mismatch(source, target, texts):
            raise SutureError(f"the two networks' tokens do not correspond: {why}; compare networks "
                              "of one tokenizer")
    return Prepared(data, source, target)


def make_example_inputs(loaded: LoadedNetwork, data: Any, how: Callable[[Any], Any] | None, *,
                        always: bool = False) -> Any:
    """Make a few inputs for a network, from `data` if given, else from texts or noise of a known size.

    `how` is the preprocessing of raw examples; `always` as for `prepare_data`.
    """
    if data is not None:
        return next(iter(Batches(prepare_data(data, how, how, always=always), size=4))).source
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
