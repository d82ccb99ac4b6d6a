"""The command that needs no network: indices of two matrices."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from suture._base import SutureError
from suture.cli.console import split_names
from suture.cli.options import IndicesOption, JackknifeOption, SampleOption, SeedOption
from suture.cli.terminal import app, console
from suture.indices import Value, compare_arrays, merged_moments
from suture.numbers import get_measure


@app.command()
def indices(
    paths: Annotated[list[Path], typer.Argument(
        help="SOURCE and TARGET: .npy, .npz or .safetensors files with one matrix, or folders of them; with "
             "--moments, files that --save wrote.")],
    indices: IndicesOption = "default",
    jackknife: JackknifeOption = 0,
    sample: SampleOption = 2000,
    save: Annotated[Path | None, typer.Option(help="File for the moments, to merge with "
                                                   "those of other rows.")] = None,
    moments: Annotated[bool, typer.Option("--moments", help="Merge files of moments.")] = False,
    seed: SeedOption = 0,
) -> None:
    """Structural indices of two matrices with the same rows, without any network."""
    names = split_names(indices) or []
    if moments and save is not None:
        raise SutureError("expected --save or --moments, got both; moments that are merged are saved already")
    if moments:
        found = merged_moments(paths, names, intervals=jackknife > 0)
    elif len(paths) == 2:
        found = compare_arrays(paths[0], paths[1], names, jackknife=jackknife, sample=sample,
                               seed=seed, save=save)
    else:
        raise SutureError(f"expected a source and a target, got {len(paths)} paths; to merge "
                          "moments write --moments")
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
