"""Commands that stitch: compare, stitch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from suture._base import SutureError, make_unknown_error
from suture.cli import demo as demonstration
from suture.cli import specs
from suture.cli.console import (
    print_dry_run,
    print_notes,
    print_verdict,
    show_progress,
    split_names,
)
from suture.cli.inputs import DataOptions, load_comparison_inputs
from suture.cli.options import (
    NETWORK_HELP,
    WEIGHTS_HELP,
    AuxiliaryOption,
    ColumnOption,
    DataOption,
    DeviceOption,
    ExamplesOption,
    FamilyOption,
    IndicesOption,
    InputOption,
    JackknifeOption,
    LengthOption,
    MaskRateOption,
    OutOption,
    PrefixOption,
    ReluOption,
    ResizeOption,
    SampleOption,
    SeedOption,
    SitesOption,
    SizeOption,
    SkipBadOption,
    TaskOption,
)
from suture.cli.terminal import app, console
from suture.compare import compare as compare_networks
from suture.compare import dry_run as rehearse_networks
from suture.compare import paper
from suture.compare import stitch as stitch_networks
from suture.ood import DEFAULT_DETECTORS, DETECTORS, OOD, EnergyRecipe
from suture.representations import DEFAULT_RULE, AlignmentRule
from suture.results import Comparison
from suture.stitching import TaskRecipe


@app.command()
def compare(
    source: Annotated[str, typer.Argument(help=f"Network that gives the fronts: {NETWORK_HELP}")],
    target: Annotated[str | None, typer.Argument(help="Network that gives the tails. "
                                                      "Default: the source.")] = None,
    source_weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
    target_weights: Annotated[Path | None, typer.Option(help="The same; without a target, of the source's "
                                                             "own architecture.")] = None,
    data: DataOption = "digits",
    train_size: SizeOption = None,
    test_size: SizeOption = None,
    image_column: ColumnOption = None,
    label_column: ColumnOption = None,
    text_column: ColumnOption = None,
    skip_bad: SkipBadOption = False,
    source_input: InputOption = None,
    target_input: InputOption = None,
    length: LengthOption = None,
    mask_rate: MaskRateOption = 0.0,
    task: TaskOption = "auto",
    token_rate: Annotated[float, typer.Option(help="Share of the tokens that indices and "
                                                   "direct matching see.")] = 1.0,
    sites: SitesOption = None,
    target_sites: Annotated[str | None, typer.Option(help="Sites of the target, where they differ.")] = None,
    methods: Annotated[str, typer.Option(help="dm, tlm, dm,tlm or none (indices alone).")] = "dm,tlm",
    indices: IndicesOption = "default",
    jackknife: JackknifeOption = 0,
    sample: SampleOption = 2000,
    epochs: Annotated[int, typer.Option(help="Of task loss matching.")] = 30,
    lr: Annotated[float, typer.Option(help="Of task loss matching.")] = 1e-3,
    init: Annotated[str, typer.Option(help="Of task loss matching: random, dm or identity.")] = "random",
    schedule: Annotated[str, typer.Option(help="Of task loss matching: constant, "
                                               "cosine or onecycle.")] = "constant",
    batch_size: Annotated[int, typer.Option(help="Of task loss matching.")] = 256,
    objective: Annotated[str, typer.Option(help="Of task loss matching: hard, soft (the target network's "
                                                "predictions), mixed, or match (its "
                                                "representations).")] = "hard",
    temperature: Annotated[float, typer.Option(help="Of the objectives soft and mixed.")] = 1.0,
    optimizer: Annotated[str, typer.Option(help="Of task loss matching: adam, adamw or sgd.")] = "adam",
    crop: Annotated[int, typer.Option(help="Task loss matching: pixels of padding for random crops.")] = 0,
    flip: Annotated[bool, typer.Option("--flip",
                                       help="Task loss matching: mirror half of the images.")] = False,
    tlm_precision: Annotated[str, typer.Option(help="Of the networks in task loss matching: float32 or "
                                                    "bf16.")] = "float32",
    patience: Annotated[int | None, typer.Option(help="Task loss matching: stop a layer after so many epochs "
                                                      "without gain on a tenth of the data "
                                                      "that is held out.")] = None,
    preset: Annotated[str | None, typer.Option(help="paper: layers, examples and recipe of Balogh and "
                                                    "Jelasity 2025.")] = None,
    family: FamilyOption = "full",
    resize: ResizeOption = "bilinear",
    prefix: PrefixOption = "auto",
    examples: ExamplesOption = None,
    relu: ReluOption = False,
    ood: Annotated[str, typer.Option(
        help="Out-of-distribution detectors, comma separated, the first one for the verdict, or none: "
             f"{', '.join(DETECTORS)}.")] = ",".join(DEFAULT_DETECTORS),
    auxiliary: AuxiliaryOption = None,
    unseen: AuxiliaryOption = None,
    detector_epochs: Annotated[int, typer.Option(help="Of the trained detector energy, which has a tenth "
                                                      "more for its margin.")] = 100,
    detector_body: Annotated[str, typer.Option(help="Of the trained detector energy: auto, paper, resnet18, "
                                                    "resnet_small, vit_tiny, vit_small or mlp.")] = "auto",
    detector_store: Annotated[Path | None, typer.Option(help="Folder in which trained "
                                                             "detectors are kept.")] = None,
    precision: Annotated[str, typer.Option(help="Of the moments: float32 or float64.")] = "float32",
    forward: Annotated[str, typer.Option(help="What the networks run in: "
                                              "float32, bf16 or fp16.")] = "float32",
    allow_bypass: Annotated[bool, typer.Option(help="Accept sites that another path bypasses.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run",
                                          help="Only the table of sites, memory and time.")] = False,
    out: OutOption = Path("suture-result"),
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Compare two networks layer by layer: indices, direct matching, task loss matching, verdict, report."""
    reading = DataOptions.of(locals())
    if target is None and (target_weights is not None or target_input is not None):
        target = source
    demonstration.check_place(out)
    given = load_comparison_inputs(source, target, source_weights, target_weights, data, reading, seed)
    recipe = TaskRecipe(epochs, batch_size, lr, optimizer=optimizer, schedule=schedule,  # type: ignore[arg-type]
                        crop=crop, flip=flip, seed=seed, init=init, objective=objective,  # type: ignore[arg-type]
                        temperature=temperature, precision=tlm_precision, patience=patience)  # type: ignore[arg-type]
    fitting = _choose_fit_options(preset, recipe, family, AlignmentRule(resize, "auto", prefix), examples)  # type: ignore[arg-type]
    detection = None if ood == "none" else OOD(
        split_names(ood) or [], auxiliary=specs.load_inputs(auxiliary), unseen=specs.load_inputs(unseen),
        store=detector_store,
        energy=EnergyRecipe(epochs=detector_epochs, tune_epochs=max(1, detector_epochs // 10),
                            body=detector_body, seed=seed))  # type: ignore[arg-type]
    arguments: dict[str, Any] = {
        **fitting, "relu": relu, "ood": detection, "sites": split_names(sites),
        "target_sites": split_names(target_sites),
        "methods": [] if methods == "none" else split_names(methods) or [],
        "indices": [] if indices == "none" else split_names(indices) or [], "jackknife": jackknife,
        "sample": sample, "precision": precision, "task": task,
        "token_rate": token_rate, "forward": forward, "allow_bypass": allow_bypass, "device": device,
        "names": _choose_names(source, source_weights, target, target_weights)}
    found = rehearse_networks(given.source, given.target, given.train, given.test, **arguments)
    print_notes(given.notes)
    print_dry_run(found)
    if dry_run:
        return
    with show_progress() as progress:
        made = compare_networks(given.source, given.target, given.train, given.test, **arguments,
                                progress=progress, on_stage=partial(Comparison.save, dir=out),
                                previous=demonstration.load_earlier(out))
    report = made.report(out / "report.html")
    print_verdict(made)
    console.print(f"\nresult: {escape(str(out))}\nreport: {escape(str(report))}", soft_wrap=True)


def _choose_fit_options(preset: str | None, recipe: TaskRecipe, family: str, alignment: AlignmentRule,
             examples: int | None) -> dict[str, Any]:
    """How layers are fitted: what the options say, or the preset, which leaves no room for them."""
    if preset is None:
        return {"tlm": recipe, "family": family, "alignment": alignment, "examples": examples,
                "seed": recipe.seed}
    if preset != "paper":
        raise make_unknown_error("preset", preset, ("paper",))
    if (recipe, family, alignment, examples) != (TaskRecipe(seed=recipe.seed), "full", DEFAULT_RULE, None):
        raise SutureError("expected --preset alone, got options of the layers or their recipe beside it; "
                          "leave them out, or leave out --preset")
    return paper(recipe.seed)


@app.command()
def stitch(
    source: Annotated[str, typer.Argument(help=f"Network that gives the front: {NETWORK_HELP}")],
    source_site: Annotated[str, typer.Argument(help="Site in it.")],
    target: Annotated[str, typer.Argument(help="Network that gives the tail.")],
    target_site: Annotated[str, typer.Argument(help="Site in it.")],
    source_weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
    target_weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)] = None,
    data: DataOption = "digits",
    train_size: SizeOption = None,
    test_size: SizeOption = None,
    image_column: ColumnOption = None,
    label_column: ColumnOption = None,
    text_column: ColumnOption = None,
    skip_bad: SkipBadOption = False,
    source_input: InputOption = None,
    target_input: InputOption = None,
    length: LengthOption = None,
    mask_rate: MaskRateOption = 0.0,
    task: TaskOption = "auto",
    method: Annotated[str, typer.Option(help="dm or tlm (30 epochs, or the preset's recipe).")] = "dm",
    preset: Annotated[str | None, typer.Option(help="paper: as in Balogh and Jelasity 2025.")] = None,
    family: FamilyOption = "full",
    resize: ResizeOption = "bilinear",
    prefix: PrefixOption = "auto",
    examples: ExamplesOption = None,
    relu: ReluOption = False,
    out: Annotated[Path,
                   typer.Option(help="File for the layer, safetensors.")] = Path("stitched.safetensors"),
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Fit one stitching layer, save it, and say what the stitched network reaches on the test data."""
    own = (source, source_weights, source_input) == (target, target_weights, target_input)
    given = load_comparison_inputs(source, None if own else target, source_weights, target_weights, data,
                                   DataOptions.of(locals()), seed)
    print_notes(given.notes)
    fitting = _choose_fit_options(preset, TaskRecipe(seed=seed), family,
                       AlignmentRule(resize, "auto", prefix), examples)  # type: ignore[arg-type]
    with show_progress() as progress:
        made = stitch_networks(given.source, source_site, given.target or given.source, target_site,
                               given.train,
                               method=method, device=device, progress=progress, relu=relu,  # type: ignore[arg-type]
                               task=task, **fitting)  # type: ignore[arg-type]
    made.save(out)
    console.print(f"{escape(str(made.layer))}", soft_wrap=True)
    reached = made.accuracy(given.test)
    if reached is not None:
        console.print(f"accuracy {reached.stitched:.3f} of {reached.n} test {reached.unit}; the target "
                      f"network has {reached.target:.3f}")
    if made.fit.get("mark"):
        console.print(f"not converged: {escape(made.fit['mark'])}", soft_wrap=True)
    console.print(f"layer: {escape(str(out))}", soft_wrap=True)


def _choose_names(source: str, source_weights: Path | None, target: str | None,
           target_weights: Path | None) -> tuple[str, str]:
    a = source_weights.stem if source_weights else _shorten_spec(source)
    b = a if target is None else target_weights.stem if target_weights else _shorten_spec(target)
    return (a, b) if target is None or a != b else (f"{a} (source)", f"{b} (target)")


def _shorten_spec(spec: str) -> str:
    """A folder by its name, everything else as it is written."""
    folder = Path(spec.removeprefix("hf:"))
    return folder.resolve().name if folder.is_dir() else spec
