"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from suture.indices import GROUPS

OutOption = Annotated[Path, typer.Option(help="Folder that results are written to, as they come.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
DATA_HELP = ("'digits', a folder of class folders, Parquet, npz, txt, csv or jsonl files, hf:NAME or a "
             "folder of `datasets`, torchvision:NAME@ROOT, or module:function that returns (train, test) "
             "(imports your code).")
DataOption = Annotated[str, typer.Option(help=DATA_HELP)]
NETWORK_HELP = ("zoo:NAME, torchvision:NAME, timm:NAME, hf:NAME or hf:FOLDER, or module:function that "
                "returns a network (imports your code).")
WEIGHTS_HELP = "safetensors, or a state dict saved by torch."
InputOption = Annotated[str | None, typer.Option(
    help="What the network is given, in place of what it asks for: raw, or "
         "size=64,mean=0.5,std=0.5,channels=3,interpolation=bicubic,crop=0.875.")]
SizeOption = Annotated[int | None, typer.Option(help="Only so many examples, as even over the "
                                                     "classes as they allow.")]
ColumnOption = Annotated[str | None, typer.Option(help="Column of the data by name. Default: found "
                                                       "by name and type.")]
SkipBadOption = Annotated[bool, typer.Option("--skip-bad", help="Leave out examples that cannot be read, and "
                                                                "say how many.")]
LengthOption = Annotated[int | None, typer.Option(help="Tokens that texts are padded and cut to. Default: "
                                                       "the longest of the batch.")]
MaskRateOption = Annotated[float, typer.Option(help="Of texts: share of tokens to mask and predict, for "
                                                    "masked language models.")]
TaskOption = Annotated[str, typer.Option(help="auto, classification, next_token, tokens or none.")]
SitesOption = Annotated[str | None, typer.Option(help="Sites, comma separated: names or globs. Default: "
                                                      "repeated blocks.")]
FamilyOption = Annotated[str, typer.Option(help="Of the affine maps: full, ridge:STRENGTH, ridge:cv, rank:K, "
                                                "orthogonal, diagonal, permutation, identity or "
                                                "sparse:STRENGTH.")]
ResizeOption = Annotated[str, typer.Option(help="How maps get the target's size: bilinear or nearest.")]
PrefixOption = Annotated[str, typer.Option(help="Prefix tokens: auto, map or drop.")]
ReluOption = Annotated[bool, typer.Option("--relu", help="End stitching layers with a ReLU.")]
AuxiliaryOption = Annotated[str | None, typer.Option(help="module:function that returns inputs or data; "
                                                          "imports your code. Default: made from the data.")]
ExamplesOption = Annotated[int | None, typer.Option(help="Only the first so many examples for indices and "
                                                         "direct matching.")]

IndicesOption = Annotated[str, typer.Option(help="Structural indices, comma separated, such as "
                                                 f"cka,svcca:0.9,cka@flatten; groups: {', '.join(GROUPS)}; "
                                                 "or none (docs/indices.md).")]
JackknifeOption = Annotated[int, typer.Option(help="Blocks of examples for 95 % intervals of indices, such "
                                                   "as 20; 0: none.")]
SampleOption = Annotated[int, typer.Option(help="Examples kept for indices of rows.")]
