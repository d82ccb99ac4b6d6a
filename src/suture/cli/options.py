"""Command line options: those that records define, and those of the commands themselves."""

from __future__ import annotations

import inspect
import signal
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import numpy as np
import typer

from suture._base import Option, expect, list_options, listen_to_signals
from suture.cli.entry_point import Stopped, app
from suture.compare import CompareOptions, FitSettings, Settings, StitchOptions
from suture.indices import open_array_file
from suture.ood import OOD, EnergyRecipe
from suture.representations import AlignmentRule
from suture.results import ReportOptions
from suture.stitching import TaskRecipe

NETWORK_HELP = ("zoo:NAME, torchvision:NAME, timm:NAME, hf:NAME or hf:FOLDER, or module:function that "
                "returns a network (imports your code).")
DATA_HELP = ("'digits', a folder of class folders, Parquet, npz, npy, txt, csv or jsonl files, of SVHN, "
             "ImageNet or binary CIFAR, hf:NAME or a folder of `datasets`, torchvision:NAME@ROOT, or "
             "module:function that returns (train, test) (imports your code).")
NetworkArgument = Annotated[str, typer.Argument(help=f"Network: {NETWORK_HELP}")]
TargetArgument = Annotated[str | None, typer.Argument(
    help="Network that gives the tails. Default: the source.")]
WeightsOption = Annotated[Path | None, typer.Option(
    help="Weights: .safetensors, or a state dict saved by torch (.pt, .pth, .bin, .th, .ckpt, .tar).")]
DataOption = Annotated[str, typer.Option(help=f"Data: {DATA_HELP}")]
OutOption = Annotated[Path, typer.Option(help="Folder that results are written to, as they come.")]

_SIMPLE = (bool, int, float, str, Path, type(None))
_NAMES, _NAMES_OR_NONE = " Names separated by commas.", " Names separated by commas, or none."
LISTS = {"sites": _NAMES, "target_sites": _NAMES, "methods": _NAMES_OR_NONE, "indices": _NAMES_OR_NONE,
          "ood": _NAMES_OR_NONE}
"""Options that are a list of names, and how the list is written."""
LABELS = ("groups", "within")
"""Options that hold a label for each example, and name a file of them."""
_OF_EXAMPLES = " File of one array: .npy, .npz or .safetensors."
_FILES = ("auxiliary", "unseen")
"""Options that name data by path, or a user's function that returns them."""


def list_parameters(record: type, only: Collection[str] = (), leave_out: Collection[str] = (),
                    prefix: str = "", rename: Mapping[str, str] | None = None,
                    group: str = "") -> list[inspect.Parameter]:
    """Return the options of a record as parameters of a command, in its order.

    Args:
        only: options to return. Default: all.
        prefix: put before each name.
        rename: other names, by option.
        group: put before each help text.
    """
    found = []
    for o in list_options(record):
        if (only and o.name not in only) or o.name in leave_out or not o.words:
            continue
        name = (rename or {}).get(o.name, prefix + o.name)
        kind = _find_type(o)
        flags = (f"--{name.replace('_', '-')}",) if kind is bool else ()
        found.append(inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=_find_default(o),
            annotation=Annotated[kind, typer.Option(*flags, help=group + _summarise(o))]))
    return found


def _find_type(o: Option) -> Any:
    """Return the type that the command line reads an option as: text if the option's own is not simple."""
    if o.name in (*LISTS, *LABELS, *_FILES):
        return str | None
    parts = get_args(o.type) if get_origin(o.type) in (Union, types.UnionType) else (o.type,)
    if all(p in _SIMPLE for p in parts) and len(set(parts) - {type(None)}) == 1:
        return o.type
    return str | None if o.default is None else str


def _find_default(o: Option) -> Any:
    if isinstance(o.default, OOD):
        return ",".join(o.default.detectors)
    if isinstance(o.default, tuple):
        return ",".join(o.default)
    return o.default if isinstance(o.default, _SIMPLE) else str(o.default)


def _summarise(o: Option) -> str:
    """Return the first sentence of an option's words, and the default if the second states it."""
    first, *rest = o.words.replace("``", "").replace("`", "").rstrip(".").split(". ")
    found = ". ".join([first, *(s for s in rest[:1] if s.startswith("Default: "))]) + "."
    return found + (_OF_EXAMPLES if o.name in LABELS else LISTS.get(o.name, ""))


RECIPE_NAMES = {"precision": "tlm_precision"}
ALIGNMENT = list_parameters(AlignmentRule, only=("resize", "prefix"))
RECIPE = list_parameters(TaskRecipe, leave_out=("seed",), rename=RECIPE_NAMES, group="Task loss matching: ")
DETECTORS = [*list_parameters(OOD, only=("auxiliary", "unseen")),
             *list_parameters(OOD, only=("store",), prefix="detector_"),
             *list_parameters(EnergyRecipe, only=("epochs", "body"), prefix="detector_")]
COMPARISON = list_parameters(Settings, leave_out=("alignment", "tlm", "batch_size", "progress", "names"))
RUN = list_parameters(Settings, only=("seed", "device"))
REPORT = list_parameters(ReportOptions)
RESTART = list_parameters(CompareOptions, only=("restart",))
SHARD = list_parameters(CompareOptions, only=("shard",))
STITCH_RESTART = list_parameters(StitchOptions, only=("restart",))
FIT = list_parameters(FitSettings, only=("task", "output", "family", "relu", "examples", "seed", "device"))


def command(*parameters: Iterable[inspect.Parameter], on: typer.Typer = app
            ) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command with options beside its own parameters, passed as ``**options``.

    Args:
        on: application or group of commands.
    """
    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def call(**given: Any) -> None:
            for name, value in given.items():  # such as a variable of the shell that is not set
                blank = isinstance(value, str) and not value.strip()
                expect(not blank, f"a value for {name.replace('_', '-')}", repr(value), "leave it out")
            try:
                with listen_to_signals():
                    function(**given)
            except KeyboardInterrupt as e:  # typer would make it an exit code, without its words
                raise Stopped(str(e) if any(isinstance(a, str) for a in e.args) else "",
                              getattr(e, "number", signal.SIGINT)) from None

        own = [p for p in inspect.signature(function, eval_str=True).parameters.values()
               if p.kind is not inspect.Parameter.VAR_KEYWORD]
        every = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        every += [p for group in parameters for p in group]
        shown: Any = call
        shown.__signature__ = inspect.Signature(every)
        shown.__annotations__ = {p.name: p.annotation for p in every}
        on.command()(call)
        return function

    return decorate


def read_labels(options: Mapping[str, Any], among: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the labels of examples that options name: arrays `among` others, or files."""
    found = {name: options[name] for name in LABELS if options.get(name) is not None}
    others = among or {}
    return {name: np.asarray(others[text][:] if text in others else open_array_file(Path(text)))
            for name, text in found.items()}


def read_record(record: Any, options: Mapping[str, Any], prefix: str = "",
                rename: Mapping[str, str] | None = None, **fixed: Any) -> Any:
    """Return the record with a command's options and `fixed` values; arguments as for `list_parameters`."""
    names = {o.name: (rename or {}).get(o.name, prefix + o.name) for o in list_options(record)}
    given = {name: options[flag] for name, flag in names.items() if flag in options}
    return record(**{**given, **fixed})
