"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option(help="Folder that results are written to, as they come.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Data = Annotated[str, typer.Option(help="'digits', or module:function that returns (train, test); imports your code.")]
NETWORK = "zoo:NAME, or module:function that returns a network (imports your code)."
Sites = Annotated[str | None, typer.Option(help="Sites, comma separated: names or globs. Default: repeated blocks.")]
Family = Annotated[str, typer.Option(help="Of the affine maps: full, ridge:STRENGTH, ridge:cv, rank:K, orthogonal, "
                                          "diagonal, permutation, identity or sparse:STRENGTH.")]
Resize = Annotated[str, typer.Option(help="How maps get the target's size: bilinear or nearest.")]
Prefix = Annotated[str, typer.Option(help="Prefix tokens: auto, map, keep, drop, learn, add or only.")]
Relu = Annotated[bool, typer.Option("--relu", help="End stitching layers with a ReLU.")]
Outside = Annotated[str | None, typer.Option(help="module:function that returns inputs or data; imports your code. "
                                                  "Default: made from the data.")]
Examples = Annotated[int | None, typer.Option(help="Only the first so many examples for indices and direct matching.")]
