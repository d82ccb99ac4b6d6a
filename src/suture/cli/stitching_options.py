"""Options of the commands that stitch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from suture.cli.options import NETWORK_HELP, WEIGHTS_HELP
from suture.ood import DETECTORS

SourceArgument = Annotated[str, typer.Argument(help=f"Network that gives the fronts: {NETWORK_HELP}")]
TargetArgument = Annotated[str | None, typer.Argument(
    help="Network that gives the tails. Default: the source.")]
SourceWeightsOption = Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)]
TargetWeightsOption = Annotated[Path | None, typer.Option(
    help="The same; without a target, of the source's own architecture.")]
TokenRateOption = Annotated[float, typer.Option(
    help="Share of the tokens that indices and direct matching see.")]
TargetSitesOption = Annotated[str | None, typer.Option(help="Sites of the target, where they differ.")]
MethodsOption = Annotated[str, typer.Option(help="dm, tlm, dm,tlm or none (indices alone).")]
EpochsOption = Annotated[int, typer.Option(help="Of task loss matching.")]
BatchSizeOption = Annotated[int, typer.Option(help="Of task loss matching.")]
LrOption = Annotated[float, typer.Option(help="Of task loss matching.")]
InitOption = Annotated[str, typer.Option(help="Of task loss matching: random, dm or identity.")]
ScheduleOption = Annotated[str, typer.Option(help="Of task loss matching: constant, cosine or onecycle.")]
ObjectiveOption = Annotated[str, typer.Option(
    help="Of task loss matching: hard, soft (the target network's predictions), mixed, or match (its "
         "representations).")]
TemperatureOption = Annotated[float, typer.Option(help="Of the objectives soft and mixed.")]
OptimizerOption = Annotated[str, typer.Option(help="Of task loss matching: adam, adamw or sgd.")]
CropOption = Annotated[int, typer.Option(help="Task loss matching: pixels of padding for random crops.")]
FlipOption = Annotated[bool, typer.Option("--flip", help="Task loss matching: mirror half of the images.")]
TlmPrecisionOption = Annotated[str, typer.Option(
    help="Of the networks in task loss matching: float32 or bf16.")]
PatienceOption = Annotated[int | None, typer.Option(
    help="Task loss matching: stop a layer after so many epochs without gain on a tenth of the data that "
         "is held out.")]
PresetOption = Annotated[str | None, typer.Option(
    help="paper: layers, examples and recipe of Balogh and Jelasity 2025.")]
OodOption = Annotated[str, typer.Option(
    help="Out-of-distribution detectors, comma separated, the first one for the verdict, or none: "
    f"{', '.join(DETECTORS)}.")]
DetectorEpochsOption = Annotated[int, typer.Option(
    help="Of the trained detector energy, which has a tenth more for its margin.")]
DetectorBodyOption = Annotated[str, typer.Option(
    help="Of the trained detector energy: auto, paper, resnet18, resnet_small, vit_tiny, vit_small or mlp.")]
DetectorStoreOption = Annotated[Path | None, typer.Option(help="Folder in which trained detectors are kept.")]
PrecisionOption = Annotated[str, typer.Option(help="Of the moments: float32 or float64.")]
ForwardOption = Annotated[str, typer.Option(help="What the networks run in: float32, bf16 or fp16.")]
AllowBypassOption = Annotated[bool, typer.Option(help="Accept sites that another path bypasses.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only the table of sites, memory and time.")]
StitchSourceArgument = Annotated[str, typer.Argument(help=f"Network that gives the front: {NETWORK_HELP}")]
SourceSiteArgument = Annotated[str, typer.Argument(help="Site in it.")]
StitchTargetArgument = Annotated[str, typer.Argument(help="Network that gives the tail.")]
MethodOption = Annotated[str, typer.Option(help="dm or tlm (30 epochs, or the preset's recipe).")]
StitchPresetOption = Annotated[str | None, typer.Option(help="paper: as in Balogh and Jelasity 2025.")]
LayerFileOption = Annotated[Path, typer.Option(help="File for the layer, safetensors.")]
