"""The networks and data that a command line names, with the preprocessing of each network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import nn
from typing_extensions import Doc

from suture._base import Count, Real, options
from suture.cli import specs
from suture.cli.specs.preparation import adjust_preprocessing, prepare_data


@options
class DataOptions:
    """Options of reading and preparing data."""

    train_size: Annotated[Count | None, Doc(
        "Number of training examples, as even over the classes as they allow.")] = None
    test_size: Annotated[Count | None, Doc(
        "Number of test examples, as even over the classes as they allow.")] = None
    image_column: Annotated[str | None, Doc("Column of images. Default: found by name and type.")] = None
    label_column: Annotated[str | None, Doc("Column of labels. Default: found by name and type.")] = None
    text_column: Annotated[str | None, Doc("Column of texts. Default: found by name and type.")] = None
    skip_bad: Annotated[bool, Doc("Leave out examples that cannot be read, and say how many.")] = False
    source_input: Annotated[str | None, Doc(
        "Input of the source, in place of what it asks for: raw, or "
        "size=64,mean=0.5,std=0.5,channels=3,interpolation=bicubic,crop=0.875.")] = None
    target_input: Annotated[str | None, Doc("Input of the target, written as that of the source.")] = None
    length: Annotated[Count | None, Doc(
        "Number of tokens that texts are padded and cut to. Default: the longest of the batch.")] = None
    mask_rate: Annotated[Real, Field(ge=0, lt=1), Doc(
        "Share of the tokens of texts to mask and predict, for masked language models.")] = 0.0

    def load_data(self, spec: str, seed: int) -> tuple[Any, Any]:
        return specs.load_data(spec, train_size=self.train_size, test_size=self.test_size, seed=seed,
                               image_column=self.image_column, label_column=self.label_column,
                               text_column=self.text_column, skip_bad=self.skip_bad)


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
    train, test = (prepare_data(d, how, theirs, always=always) for d in raw)
    notes = [*one.notes, *(() if other is None else other.notes)]
    return ComparisonInputs(one.network, None if other is None else other.network, train, test,
                            tuple(dict.fromkeys(notes)))
