"""The command that needs no network: indices of two matrices."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from suture._base import expect
from suture.cli.console import split_names
from suture.cli.options import command, list_parameters
from suture.cli.terminal import console
from suture.compare import Settings
from suture.indices import Value, compare_arrays, merged_moments
from suture.numbers import get_measure


@command(list_parameters(Settings, only=("indices", "jackknife", "sample", "seed")))
def indices(
    paths: Annotated[list[Path], typer.Argument(
        help="SOURCE and TARGET: .npy, .npz or .safetensors files with one matrix, or folders of them; with "
             "--moments, files that --save wrote.")],
    save: Annotated[Path | None, typer.Option(help="File for the moments, to merge with "
                                                   "those of other rows.")] = None,
    moments: Annotated[bool, typer.Option("--moments", help="Merge files of moments.")] = False,
    **options: Any,
) -> None:
    """Structural indices of two matrices with the same rows, without any network."""
    names = split_names(options["indices"]) or []
    expect(not (moments and save), "--save or --moments", "both", "moments that are merged are saved already")
    if moments:
        found = merged_moments(paths, names, intervals=options["jackknife"] > 0)
    else:
        expect(len(paths) == 2, "a source and a target", f"{len(paths)} paths",
               "to merge moments write --moments")
        how = {name: options[name] for name in ("jackknife", "sample", "seed")}
        found = compare_arrays(paths[0], paths[1], names, save=save, **how)
    _print_values(found)
    if save is not None:
        console.print(f"moments: {escape(str(save))}", soft_wrap=True)


def _print_values(found: dict[str, Value]) -> None:
    columns = [Column("index", no_wrap=True), Column("value", justify="right", no_wrap=True),
               Column("95 % interval", no_wrap=True), Column("more similar", no_wrap=True)]
    reasons = any(v.reason for v in found.values())
    table = Table(*columns, *([Column("why missing", overflow="fold")] if reasons else []))
    for name, v in found.items():
        interval = "" if math.isnan(v.low) else f"{v.low:.4f} to {v.high:.4f}"
        table.add_row(escape(name), "–" if v.reason else f"{v.value:.6f}", interval,
                      get_measure(name).direction, *([escape(v.reason)] if reasons else []))
    console.print(table)
