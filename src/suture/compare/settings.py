"""The options of a comparison, each defined only here, with type, default, check and words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import AfterValidator, Field, InstanceOf, PlainValidator, SkipValidation
from torch import nn
from typing_extensions import Doc

from suture._base import (
    Count,
    FilePath,
    ProgressOption,
    Real,
    Seed,
    SutureError,
    TellsProgress,
    Whole,
    expect,
    hash_object,
    keep_parts,
    keyword_options,
    list_options,
    name_callback,
    options,
    show_value,
)
from suture.compare.given_names import choose_methods, read_network_names
from suture.compare.key import flatten_settings
from suture.compare.scoring.nulls import NullOptions
from suture.data import Batch, Batches
from suture.indices import FOLDS, Named, Request, chosen
from suture.networks import Network, SiteSpec, find_device
from suture.numbers import METHOD_NAMES
from suture.ood import DEFAULT_OOD, DETECTORS, OOD, as_batches
from suture.representations import DEFAULT_RULE, AccumulatorSettings, AlignmentRule
from suture.results import Comparison
from suture.stitching import FULL, Family, ScoredOutput, Task, TaskName, TaskRecipe, resolve_output

Method = Literal["dm", "tlm"]
FORWARD_DTYPES = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Types of the forward passes (autocast). Statistics and stitching layers use float32 or more."""

_DECIDES_NOTHING = frozenset({"device", "progress", "names", "sites", "target_sites",
                              "nulls", "groups", "within"})
"""Options that decide no number beyond rounding, and those that count as found (sites) or if given."""


@keyword_options
class FitSettings(TellsProgress):
    """Options of fitting stitching layers, for a whole comparison or a single layer."""

    family: Annotated[Family | str, SkipValidation, Doc(
        "Family of the layers' affine maps: full, ridge:STRENGTH, ridge:cv, rank:K, orthogonal, diagonal, "
        "permutation, identity or sparse:STRENGTH (docs/families.md). Cells whose widths do not allow it are "
        "missing, with the reason.")] = FULL
    alignment: Annotated[InstanceOf[AlignmentRule], Doc(
        "Rule for matching positions: resize, its order, and prefix tokens.")] = DEFAULT_RULE
    relu: Annotated[bool, Doc(
        "End each stitching layer with a ReLU, for targets whose own representations come from one. Direct "
        "matching is fitted without it and evaluated with it.")] = False
    examples: Annotated[Count | None, Doc(
        "Number of first examples of the data for indices and direct matching, at most what there is. The "
        "paper uses 100. Task loss matching uses all examples. None: all.")] = None
    tlm: Annotated[InstanceOf[TaskRecipe] | None, Doc(
        "Recipe of task loss matching. None: `TaskRecipe` with `seed`, which is the paper's without its "
        "augmentation.")] = None
    precision: Annotated[Literal["float32", "float64"], Doc(
        "Precision of the products in the moments: float32 or float64. float64 costs three times as "
        "much.")] = "float32"
    forward: Annotated[Literal["float32", "bf16", "fp16"], Doc(
        "Precision of the networks' forward passes: float32, bf16 or fp16 (autocast). bf16 is twice as fast "
        "on GPUs that support it, and less precise. Representations, moments, layers and scores are always "
        "in float32 or more.")] = "float32"
    task: Annotated[TaskName, Doc(
        "Task of the target network's output: auto, classification, next_token, tokens or none. Stitched "
        "networks are scored and trained on it: classification has logits (N, classes), next_token is for "
        "causal language models, tokens for masked language models and token classification with labels "
        "(N, T), none for hidden states, embeddings and regressions, which are scored by R² and relative "
        "error of the output. auto finds it in the dry run.")] = "auto"
    output: Annotated[str | int | None, Doc(
        "Output of the target network that is scored, if it returns several: key, position, or a path such "
        "as heads.0. An @ and what its values are may follow: logits, probabilities (rows that sum to one), "
        "sigmoid (a probability for each class alone) or log_probabilities, such as head@sigmoid or @logits. "
        "None: labels, shapes and values decide.")] = None
    token_rate: Annotated[Real, Field(gt=0, le=1), Doc(
        "Share of the unpadded tokens for indices and direct matching. They are drawn with `seed`, the same "
        "at every site; under ``@pool`` the mean is over the drawn tokens. All other measures use all "
        "tokens.")] = 1.0
    allow_bypass: Annotated[bool, Doc(
        "Accept sites that another path of the network bypasses. See `SitedNetwork`.")] = False
    batch_size: Annotated[Count, Doc("Examples per batch, for data that are no loader.")] = 256
    device: Annotated[str | torch.device, SkipValidation, Doc(
        "Device: auto, cpu, cuda or mps. Or a torch device. auto is cuda, else mps, else cpu.")] = "auto"
    seed: Annotated[Seed, Doc("Seed of initialisations, the order of the data, and bootstraps.")] = 0
    progress: ProgressOption = None

    @cached_property
    def affine_family(self) -> Family:
        made = Family.parse(self.family) if isinstance(self.family, str) else self.family
        expect(isinstance(made, Family), "a family of maps", made, 'write family="full"')
        return made

    @cached_property
    def recipe(self) -> TaskRecipe:
        return self.tlm or TaskRecipe(seed=self.seed)

    @cached_property
    def torch_device(self) -> torch.device:
        return find_device(self.device)


@keyword_options
class Settings(NullOptions, FitSettings):
    """Options of a comparison."""

    sites: Annotated[SiteSpec, Doc(
        "Sites of the source, and of the target unless given, by name or glob. Or a function of (path, "
        "module). None: the repeated blocks in order of execution.")] = None
    target_sites: Annotated[SiteSpec, Doc("Sites of the target, if they differ.")] = None
    methods: Annotated[Sequence[str], PlainValidator(choose_methods), Doc(
        'Ways of stitching: "dm" (direct matching) and "tlm" (task loss matching). ``()``: indices only.',
        )] = tuple(METHOD_NAMES)
    indices: Annotated[Iterable[Named] | Named, PlainValidator(keep_parts), Doc(
        'Structural indices by name, such as "cka", "svcca:0.9" or "cka@flatten", or by group: default, '
        "moments, rows or all (docs/indices.md). Or entries, or your own functions (`suture.indices.own`). A "
        "name without ``@`` uses the matrices that the stitching layer maps. ``()``: none.")] = "default"
    jackknife: Annotated[Whole, Field(ge=0), Doc(
        "Blocks of examples for 95 % intervals of the indices from moments, a multiple of 5. The memory of "
        "the sums grows with it. 0: no intervals; 20 is a good number.")] = 0
    sample: Annotated[Count, Doc("Examples kept for the indices of rows, drawn with `seed`.")] = 2000
    ood: Annotated[OOD | Iterable[str] | str | None, PlainValidator(keep_parts), Doc(
        "An `OOD` with the settings of natural ranges, on which verdicts of cells rest, and of detectors; or "
        f"names of detectors alone: {', '.join(DETECTORS)}. Detectors are tested on auxiliary data, by "
        "default made from the data. None: no ranges, verdicts of cells and detectors.")] = DEFAULT_OOD
    names: Annotated[Sequence[str] | None, PlainValidator(read_network_names), Doc(
        "Names of the two networks in tables. None: their classes.")] = None

    def __post_init__(self) -> None:
        expect(self.precision != "float64" or self.torch_device.type != "mps", "precision='float32' on mps",
               "float64, which mps does not have", "write device='cpu' for float64")
        _ = self.torch_device, self.detection, self.accumulator_settings.blocks  # raise for bad values
        if "tlm" in self.method_names:
            self.affine_family.check_training()

    @property
    def method_names(self) -> list[str]:
        return list(self.methods)

    @cached_property
    def requests(self) -> list[Request]:
        """The structural indices with their alignments."""
        return chosen(self.indices)

    @cached_property
    def detection(self) -> OOD | None:
        """The out-of-distribution scores; None without stitched networks."""
        if self.ood is None or not self.method_names:
            return None
        expect(isinstance(self.ood, OOD | str | Iterable), "ood as an OOD, names of detectors or None",
               show_value(self.ood), "write ood=None for none")
        return self.ood if isinstance(self.ood, OOD) else OOD(self.ood)

    @property
    def folds(self) -> int:
        """Number of parts of the data with separate moments, for families chosen by cross-validation."""
        return FOLDS if self.affine_family.needs_folds else 1

    @property
    def accumulator_settings(self) -> AccumulatorSettings:
        return AccumulatorSettings(self.requests, self.jackknife, self.folds, self.sample, self.seed,
                                   getattr(torch, self.precision), bool(self.method_names), self.nulls,
                                   *(None if labels is None else labels[:self.examples]
                                     for labels in (self.groups, self.within)))

    def resolve_output(self, target: nn.Module, batch: Batch,
                       more: Callable[[], Iterable[Batch]]) -> ScoredOutput | None:
        """Find what is scored of the target network's output; None without stitched networks.

        Args:
            target: the network, frozen.
            batch: a batch, with labels if the data have any.
            more: returns batches of examples that are spread over the data.

        Raises:
            SutureError: output or data do not fit the task, or task loss matching has no task.
        """
        if not self.method_names:
            return None
        trained = "tlm" in self.method_names
        found = resolve_output(target, batch.target, batch.labels, task=self.task, output=self.output,
                               more=more, trained=trained and self.recipe.needs_labels)
        if trained and found.task is Task.NONE and self.recipe.objective != "match":
            raise SutureError("task loss matching needs logits of the target network, got task='none'; "
                              "write methods=['dm'], or the task of its logits"
                              f"{' (' + found.why + ')' if found.why else ''}")
        return found

    def replace_output(self, scored: ScoredOutput | None) -> Self:
        """Return the settings with the task and the output that were found."""
        if scored is None:
            return replace(self, task=Task.NONE.value)
        return replace(self, task=scored.task.value, output=scored.readout.written)

    def open_auxiliary(self) -> dict[str, Batches]:
        """Return the given auxiliary and unseen data by name, as far as they are used."""
        if self.detection is None:
            return {}
        given = {"auxiliary data": self.detection.auxiliary, "unseen data": self.detection.unseen}
        return {name: as_batches(data, name, most=self.detection.most, watched=True)
                for name, data in given.items() if data is not None}

    def as_key(self) -> dict[str, Any]:
        """Return all settings that decide numbers, by name, such as "tlm.epochs", as JSON."""
        found: dict[str, Any] = {o.name: getattr(self, o.name) for o in list_options(Settings)
                                 if o.name not in _DECIDES_NOTHING} | self.null_settings
        found |= {"methods": self.method_names, "indices": [r.key for r in self.requests],
                  "family": str(self.affine_family), "family.code": hash_object(self.affine_family).short,
                  "tlm": asdict(self.recipe), "ood": None}
        if self.detection is not None:
            own = {name: hash_object(given).short for name, given in self.detection.own.items()}
            found["ood"] = self.detection.settings(self.seed) | {"own": own}
        return dict(flatten_settings(found))

    def as_record(self, held_out: bool) -> dict[str, Any]:
        """Return the settings that decide the numbers, for the record."""
        plain = ("precision", "seed", "examples", "relu", "task", "output", "token_rate", "forward",
                 "jackknife", "sample")
        return {name: getattr(self, name) for name in plain} | {
            "methods": self.method_names, "indices": [r.key for r in self.requests],
            "tlm": asdict(self.recipe), "held_out": held_out, "family": str(self.affine_family),
            "alignment": asdict(self.alignment),
            "ood": None if self.detection is None else self.detection.settings(self.seed),
            **dict(flatten_settings(self.null_settings))}


@options
class CompareOptions(Settings):
    """Arguments of `suture.compare`: networks, data and settings."""

    source: Annotated[Network, Doc(
        "Network that gives the fronts. It is not changed: a private frozen copy runs, in eval mode.")]
    target: Annotated[Network | None, Doc(
        "Network that gives the tails. None: stitch `source` to itself.")] = None
    data: Annotated[Any, Doc(
        "Examples for stitching layers and indices: a DataLoader or re-iterable of (inputs, labels), a "
        "Dataset, tensors or arrays (inputs, labels), or `Paired` loaders if the networks need different "
        "inputs.")] = None
    test: Annotated[Any, Doc(
        "Examples for the evaluation of stitched networks. None: `data` again, with a note in the result.",
        )] = None
    on_stage: Annotated[Callable[[InstanceOf[Comparison]], object] | None,
                        AfterValidator(name_callback("on_stage")), Doc(
        "Function called with the result so far after each stage, for example to save it.",
        )] = Field(default=None, kw_only=True)
    previous: Annotated[InstanceOf[Comparison] | None, Doc(
        "Earlier, perhaps partial result of exactly the same comparison. Its finished stages are not run "
        "again, and a note says so. Changed data, networks, code, settings or versions raise an error that "
        "names them.")] = Field(default=None, kw_only=True)
    save_to: Annotated[FilePath | None, Doc(
        "Folder that the result is saved to after each stage, with checkpoints of long stages about every "
        "minute. The same call goes on from there. It is locked while the run writes to it.",
        )] = Field(default=None, kw_only=True)
    restart: Annotated[bool, Doc(
        "Start anew: remove earlier checkpoints, and replace the earlier result, also a damaged one, when "
        "the first stage is done. Other files stay.")] = Field(default=False, kw_only=True)
    shard: Annotated[tuple[Count, Count] | str | None, Doc(
        "Number of a shard and of all, such as (3, 8) or 3/8: only the pass over this part of the data is "
        "run, and what it has collected is returned, for `suture.merge`. The data must come in one order.",
        )] = Field(default=None, kw_only=True)

    @cached_property
    def detection(self) -> OOD | None:
        """The out-of-distribution scores, with raw auxiliary examples prepared like the data."""
        return (found := super().detection) and found.prepare_like(self.data)

    @property
    def shard_numbers(self) -> tuple[int, int]:
        """Number of the shard, and of all."""
        text = "/".join(map(str, self.shard)) if isinstance(self.shard, tuple) else self.shard or "1/1"
        number, slash, count = text.partition("/")
        fit = bool(slash) and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)
        expect(fit, "a shard k/n with k from 1 to n", repr(text), "write 3/8 for the third of eight")
        return int(number), int(count)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.shard_numbers  # raises for bad ones
        kept = self.save_to is not None or self.previous is not None
        expect(self.shard is None or not kept, "a shard without a folder and an earlier result", "one",
               "write suture.compare(..., shard=...).save(path)")
        expect(not self.restart or self.save_to is not None, "restart with a folder", "no folder",
               "write save_to=")
        expect(self.save_to is None or self.previous is None, "save_to or previous", "both",
               "leave out previous, which save_to finds itself")
