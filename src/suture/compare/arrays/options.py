"""The arguments of `suture.compare_arrays`; the words of those that `suture.compare` has too are its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, InstanceOf, PlainValidator, SkipValidation
from typing_extensions import Doc

from suture._base import (
    Count,
    Draws,
    FilePath,
    ProgressOption,
    Seed,
    SutureError,
    TellsProgress,
    Whole,
    expect,
    keep_parts,
    list_options,
    options,
)
from suture.compare.settings import CompareOptions, Settings
from suture.indices import ArraySource, Groups, Labels, Named
from suture.representations import DEFAULT_RULE, AlignmentRule
from suture.results import Comparison

_OF_DICTIONARIES = ("kinds", "labels", "names", "alignment", "precision", "device", "save_to",
                    "restart")
_OF_NETWORKS = frozenset({"methods", "ood", "family", "relu", "examples", "tlm", "forward", "task", "output",
                          "token_rate", "held_out", "batch_size", "allow_bypass"})
"""Settings of a comparison that say nothing about arrays."""


def words_of(name: str) -> Doc:
    """Return the words of an option of `suture.compare`."""
    return Doc(next(o.words for o in list_options(CompareOptions) if o.name == name))


@options
class ArrayOptions(TellsProgress):
    """Arguments of `suture.compare_arrays`."""

    source: Annotated[ArraySource, Doc(
        "Arrays by name, ``{name: X, ...}``, with the same examples along the first axis: of NumPy (also "
        "memory-mapped), PyTorch or anything else that has a shape and is cut by rows, paths of ``.npy`` "
        "files, or lists of one array (T, D) for each example. Or a single matrix, see below.")]
    target: Annotated[ArraySource, Doc(
        "The same of the other network. None: compare `source` with itself.")] = None
    indices: Annotated[Iterable[Named] | Named, SkipValidation, words_of("indices")] = "default"
    jackknife: Annotated[Whole, words_of("jackknife")] = Field(default=0, kw_only=True)
    sample: Annotated[Count, words_of("sample")] = Field(default=2000, kw_only=True)
    seed: Annotated[Seed, Doc("Seed of the sample of rows.")] = Field(default=0, kw_only=True)
    nulls: Annotated[Draws, words_of("nulls")] = Field(default=0, kw_only=True)
    groups: Annotated[Groups, Doc(
        "Group of each example, where examples belong together; whole groups are permuted.")] = Field(
            default=None, kw_only=True)
    within: Annotated[Labels, Doc(
        "Class of each example for indices ``@within`` classes. None: `labels`.")] = Field(
            default=None, kw_only=True)
    kinds: Annotated[Any, Doc(
        "Kinds of representations: map (N, C, H, W), map:last (N, H, W, C), tokens, tokens:1 (with a class "
        "token), tokens:1,14x14 (patches of an image), or vector. By name, ``{name: kind}``, or one for all; "
        "or a pair of them, of source and target. None: (N, D) is a vector, (N, T, D) are tokens, "
        "(N, C, H, W) is a map.")] = Field(default=None, kw_only=True)
    labels: Annotated[Any, Doc(
        "Classes (N,) of the examples, numbers or names, kept in the result as ``arrays[\"labels\"]``.",
        )] = Field(default=None, kw_only=True)
    names: Annotated[Sequence[str] | None, PlainValidator(keep_parts), Doc(
        "Names of source and target in tables. None: source and target.")] = Field(
            default=None, kw_only=True)
    alignment: Annotated[InstanceOf[AlignmentRule], words_of("alignment")] = Field(
        default=DEFAULT_RULE, kw_only=True)
    precision: Annotated[Literal["float32", "float64"], words_of("precision")] = Field(
        default="float64", kw_only=True)
    device: Annotated[str | torch.device, SkipValidation, words_of("device")] = Field(
        default="cpu", kw_only=True)
    progress: ProgressOption = Field(default=None, kw_only=True)
    save_to: Annotated[FilePath | None, words_of("save_to")] = Field(default=None, kw_only=True)
    restart: Annotated[bool, words_of("restart")] = Field(default=False, kw_only=True)
    save: Annotated[FilePath | None, Doc(
        "For two matrices: ``.safetensors`` file for the moments, to be merged with those of other rows "
        "(`suture.merged_moments`).")] = Field(default=None, kw_only=True)
    methods: Annotated[Any, Doc("Only ``()``: stitching needs networks.")] = Field(
        default=(), kw_only=True)

    def __post_init__(self) -> None:
        if keep_parts(self.methods) not in ((), None):
            raise SutureError("stitching needs networks, and arrays have none; write suture.compare, or "
                              'indices=["r2", "r2_folds"] for the fit of direct matching')
        if self.is_named:
            self._check_named()
        else:
            self._check_matrices()

    @property
    def is_named(self) -> bool:
        """True for dictionaries, False for two matrices."""
        return isinstance(self.source, Mapping)

    def _check_named(self) -> None:
        if self.target is not None and not isinstance(self.target, Mapping):
            raise SutureError("expected arrays by name on both sides, got them for the source only; write "
                              "{'name': array} for the target too")
        if self.save is not None:
            raise SutureError("save= is for the moments of two matrices; write save_to= for a folder")
        expect(not self.restart or self.save_to is not None, "restart with a folder", "no folder",
               "write save_to=")
        _ = self.settings

    def _check_matrices(self) -> None:
        if isinstance(self.target, Mapping) or self.target is None:
            got = "none" if self.target is None else "arrays by name"
            raise SutureError(f"expected a matrix as target, as the source is one, got {got}; write "
                              "{'name': array} for both")
        for o in list_options(ArrayOptions):
            value = getattr(self, o.name)
            same = isinstance(value, str | bool) and value == o.default
            if o.name in _OF_DICTIONARIES and value is not o.default and not same:
                raise SutureError(f"{o.name}= is for arrays by name, got two matrices; write "
                                  "{'name': array}")

    @cached_property
    def settings(self) -> Settings:
        """The settings of the comparison, which check the options."""
        shared = {o.name: getattr(self, o.name) for o in list_options(Settings)
                  if o.name in _SHARED and o.name != "methods"}
        return Settings(**shared, methods=(), ood=None)

    @property
    def previous(self) -> Comparison | None:
        """None: only a folder holds an earlier result."""
        return None


_SHARED = frozenset(o.name for o in list_options(ArrayOptions))


def select_settings(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the described settings that decide the numbers of arrays."""
    return {name: value for name, value in described.items() if name.partition(".")[0] not in _OF_NETWORKS}
