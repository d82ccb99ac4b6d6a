"""Commands that stitch: compare, stitch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
from suture.cli.stitching_options import (
    AllowBypassOption,
    BatchSizeOption,
    CropOption,
    DetectorBodyOption,
    DetectorEpochsOption,
    DetectorStoreOption,
    DryRunOption,
    EpochsOption,
    FlipOption,
    ForwardOption,
    InitOption,
    LayerFileOption,
    LrOption,
    MethodOption,
    MethodsOption,
    ObjectiveOption,
    OodOption,
    OptimizerOption,
    PatienceOption,
    PrecisionOption,
    PresetOption,
    ScheduleOption,
    SourceArgument,
    SourceSiteArgument,
    SourceWeightsOption,
    StitchPresetOption,
    StitchSourceArgument,
    StitchTargetArgument,
    TargetArgument,
    TargetSitesOption,
    TargetWeightsOption,
    TemperatureOption,
    TlmPrecisionOption,
    TokenRateOption,
)
from suture.cli.terminal import app, console
from suture.compare import compare as compare_networks
from suture.compare import dry_run as estimate_networks
from suture.compare import paper
from suture.compare import stitch as stitch_networks
from suture.ood import DEFAULT_DETECTORS, OOD, EnergyRecipe
from suture.representations import DEFAULT_RULE, AlignmentRule
from suture.results import Comparison
from suture.stitching import TaskRecipe


@app.command()
def compare(
    source: SourceArgument, target: TargetArgument = None, source_weights: SourceWeightsOption = None,
    target_weights: TargetWeightsOption = None, data: DataOption = "digits", train_size: SizeOption = None,
    test_size: SizeOption = None, image_column: ColumnOption = None, label_column: ColumnOption = None,
    text_column: ColumnOption = None, skip_bad: SkipBadOption = False, source_input: InputOption = None,
    target_input: InputOption = None, length: LengthOption = None, mask_rate: MaskRateOption = 0.0,
    task: TaskOption = "auto", token_rate: TokenRateOption = 1.0, sites: SitesOption = None,
    target_sites: TargetSitesOption = None, methods: MethodsOption = "dm,tlm",
    indices: IndicesOption = "default", jackknife: JackknifeOption = 0, sample: SampleOption = 2000,
    epochs: EpochsOption = 30, lr: LrOption = 1e-3, init: InitOption = "random",
    schedule: ScheduleOption = "constant", batch_size: BatchSizeOption = 256,
    objective: ObjectiveOption = "hard", temperature: TemperatureOption = 1.0,
    optimizer: OptimizerOption = "adam", crop: CropOption = 0, flip: FlipOption = False,
    tlm_precision: TlmPrecisionOption = "float32", patience: PatienceOption = None,
    preset: PresetOption = None, family: FamilyOption = "full", resize: ResizeOption = "bilinear",
    prefix: PrefixOption = "auto", examples: ExamplesOption = None, relu: ReluOption = False,
    ood: OodOption = ",".join(DEFAULT_DETECTORS), auxiliary: AuxiliaryOption = None,
    unseen: AuxiliaryOption = None, detector_epochs: DetectorEpochsOption = 100,
    detector_body: DetectorBodyOption = "auto", detector_store: DetectorStoreOption = None,
    precision: PrecisionOption = "float32", forward: ForwardOption = "float32",
    allow_bypass: AllowBypassOption = False, dry_run: DryRunOption = False,
    out: OutOption = Path("suture-result"), seed: SeedOption = 0, device: DeviceOption = "auto",
) -> None:
    """Compare two networks layer by layer: indices, direct matching, task loss matching, verdict, report."""
    options = dict(locals())
    demonstration.check_place(out)
    if target is None and (target_weights is not None or target_input is not None):
        target = source
    given = load_comparison_inputs(source, target, source_weights, target_weights, data,
                                   DataOptions.of(options), seed)
    arguments = {**_read_arguments(options),
                 "names": _choose_names(source, source_weights, target, target_weights)}
    networks = (given.source, given.target, given.train, given.test)
    found = estimate_networks(*networks, **arguments)
    print_notes(given.notes)
    print_dry_run(found)
    if dry_run:
        return
    _run_and_report(networks, arguments, out)


def _run_and_report(networks: tuple[Any, ...], arguments: Mapping[str, Any], out: Path) -> None:
    """Compare, save every stage in a folder, then write the report and print the verdict."""
    with show_progress() as progress:
        made = compare_networks(*networks, **arguments, progress=progress,
                                on_stage=partial(Comparison.save, dir=out),
                                previous=demonstration.load_earlier(out))
    report = made.report(out / "report.html")
    print_verdict(made)
    console.print(f"\nresult: {escape(str(out))}\nreport: {escape(str(report))}", soft_wrap=True)


def _read_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `suture.compare` from a command's options, except networks, data and names."""
    o = SimpleNamespace(**options)
    recipe = TaskRecipe(o.epochs, o.batch_size, o.lr, optimizer=o.optimizer, schedule=o.schedule, crop=o.crop,
                        flip=o.flip, seed=o.seed, init=o.init, objective=o.objective,
                        temperature=o.temperature, precision=o.tlm_precision, patience=o.patience)
    fit = _choose_fit_options(o.preset, recipe, o.family,
                              AlignmentRule(o.resize, "auto", o.prefix), o.examples)
    same = ("relu", "jackknife", "sample", "precision", "task", "token_rate", "forward",
            "allow_bypass", "device")
    return {**fit, **{name: options[name] for name in same}, "ood": _read_detectors(o),
            "sites": split_names(o.sites), "target_sites": split_names(o.target_sites),
            "methods": [] if o.methods == "none" else split_names(o.methods) or [],
            "indices": [] if o.indices == "none" else split_names(o.indices) or []}


def _read_detectors(o: SimpleNamespace) -> OOD | None:
    if o.ood == "none":
        return None
    energy = EnergyRecipe(epochs=o.detector_epochs, tune_epochs=max(1, o.detector_epochs // 10),
                          body=o.detector_body, seed=o.seed)
    return OOD(split_names(o.ood) or [], auxiliary=specs.load_inputs(o.auxiliary),
               unseen=specs.load_inputs(o.unseen), store=o.detector_store, energy=energy)


def _choose_fit_options(preset: str | None, recipe: TaskRecipe, family: str, alignment: AlignmentRule,
                        examples: int | None) -> dict[str, Any]:
    """Return the settings of fitting layers, from the options or from the preset.

    A preset allows no options of fitting beside it.
    """
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
    source: StitchSourceArgument, source_site: SourceSiteArgument, target: StitchTargetArgument,
    target_site: SourceSiteArgument, source_weights: SourceWeightsOption = None,
    target_weights: SourceWeightsOption = None, data: DataOption = "digits", train_size: SizeOption = None,
    test_size: SizeOption = None, image_column: ColumnOption = None, label_column: ColumnOption = None,
    text_column: ColumnOption = None, skip_bad: SkipBadOption = False, source_input: InputOption = None,
    target_input: InputOption = None, length: LengthOption = None, mask_rate: MaskRateOption = 0.0,
    task: TaskOption = "auto", method: MethodOption = "dm", preset: StitchPresetOption = None,
    family: FamilyOption = "full", resize: ResizeOption = "bilinear", prefix: PrefixOption = "auto",
    examples: ExamplesOption = None, relu: ReluOption = False,
    out: LayerFileOption = Path("stitched.safetensors"), seed: SeedOption = 0, device: DeviceOption = "auto",
) -> None:
    """Fit one stitching layer, save it, and say what the stitched network reaches on the test data."""
    own = (source, source_weights, source_input) == (target, target_weights, target_input)
    given = load_comparison_inputs(source, None if own else target, source_weights, target_weights, data,
                                   DataOptions.of(locals()), seed)
    print_notes(given.notes)
    fit_options = _choose_fit_options(preset, TaskRecipe(seed=seed), family,
                       AlignmentRule(resize, "auto", prefix), examples)  # type: ignore[arg-type]
    with show_progress() as progress:
        made = stitch_networks(given.source, source_site, given.target or given.source, target_site,
                               given.train,
                               method=method, device=device, progress=progress, relu=relu,  # type: ignore[arg-type]
                               task=task, **fit_options)  # type: ignore[arg-type]
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
    """Return the name of a folder; return any other spec unchanged."""
    folder = Path(spec.removeprefix("hf:"))
    return folder.resolve().name if folder.is_dir() else spec
