"""Commands that stitch: compare, merge, stitch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from suture import specs
from suture._base import check_file, expect, make_unknown_error
from suture.cli.console import (
    print_dry_run,
    print_notes,
    print_verdict,
    show_progress,
    split_names,
)
from suture.cli.entry_point import clean, console
from suture.cli.inputs import ComparisonInputs, DataOptions, load_comparison_inputs
from suture.cli.options import (
    ALIGNMENT,
    COMPARISON,
    DETECTORS,
    FIT,
    LISTS,
    NETWORK_HELP,
    RECIPE,
    RECIPE_NAMES,
    REPORT,
    RESTART,
    SHARD,
    STITCH_RESTART,
    DataOption,
    NetworkArgument,
    OutOption,
    TargetArgument,
    WeightsOption,
    command,
    list_parameters,
    read_labels,
    read_record,
)
from suture.compare import Ready, hold_folder, make_ready, paper
from suture.compare import compare as compare_networks
from suture.compare import merge as merge_shards
from suture.compare import stitch as stitch_networks
from suture.ood import OOD, EnergyRecipe
from suture.representations import DEFAULT_RULE, AlignmentRule
from suture.results import ReportOptions, write_report
from suture.stitching import TaskRecipe

PresetOption = Annotated[str | None, typer.Option(
    help="paper: layers, examples and recipe of Balogh and Jelasity 2025.")]
SiteArgument = Annotated[str, typer.Argument(help="Site in it.")]
DATA = list_parameters(DataOptions)
_FOLDER = Path("suture-result")


@command(DATA, COMPARISON, ALIGNMENT, RECIPE, DETECTORS, REPORT, RESTART, SHARD)
def compare(
    source: NetworkArgument, target: TargetArgument = None, source_weights: WeightsOption = None,
    target_weights: WeightsOption = None, data: DataOption = "digits", preset: PresetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only the table of sites, memory and "
                                                            "time.")] = False,
    out: OutOption = _FOLDER, **options: Any,
) -> None:
    """Compare two networks layer by layer: indices, direct matching, task loss matching, verdict, report."""
    if options["shard"] is not None:
        expect(not (dry_run or options["restart"]), "--shard without --dry-run and --restart", "both")
        _compare_shard(source, target, source_weights, target_weights, data, preset, out, options)
        return
    if dry_run:
        _compare(source, target, source_weights, target_weights, data, preset, None, options)
        return
    with hold_folder(out, options["restart"]) as note:
        print_notes(filter(None, [note]))
        check_file(out / "report.html")
        _compare(source, target, source_weights, target_weights, data, preset, out, options)


def _compare_shard(source: str, target: str | None, source_weights: Path | None,
                   target_weights: Path | None, data: str, preset: str | None, out: Path,
                   options: dict[str, Any]) -> None:
    """Run the pass over a shard, and write what it has collected to a file."""
    if out == _FOLDER:
        out = Path(f"shard-{options['shard'].replace('/', '-of-')}.safetensors")
    check_file(out, ".safetensors")
    given, arguments = _load(source, target, source_weights, target_weights, data, preset, options)
    print_notes(given.notes)
    with show_progress() as progress:
        made: Any = compare_networks(given.source, given.target, given.train, given.test, **arguments,
                                     progress=progress, shard=options["shard"])
    console.print(f"{clean(str(made))}\nshard: {clean(str(made.save(out)))}", soft_wrap=True)


@command(REPORT)
def merge(
    shards: Annotated[list[Path], typer.Argument(help="Files that `suture compare --shard` wrote, all of one "
                                                      "comparison.")],
    out: OutOption = _FOLDER, **options: Any,
) -> None:
    """The result of all shards of a comparison. The same `suture compare` without --shard goes on from it."""
    check_file(out / "report.html")
    made = merge_shards(shards, save_to=out)
    print_verdict(made)
    report = write_report([made], out / "report.html", read_record(ReportOptions, options))
    console.print(f"\nresult: {clean(str(out))}\nreport: {clean(str(report))}", soft_wrap=True)


def _load(source: str, target: str | None, source_weights: Path | None, target_weights: Path | None,
          data: str, preset: str | None, options: dict[str, Any]) -> tuple[ComparisonInputs, dict[str, Any]]:
    """Return networks and data of a comparison, and its other arguments."""
    if target is None and (target_weights is not None or options["target_input"] is not None):
        target = source
    given = load_comparison_inputs(source, target, source_weights, target_weights, data,
                                   read_record(DataOptions, options), options["seed"])
    return given, {**_read_settings(preset, options),
                   "names": _choose_names(source, source_weights, target, target_weights)}


def _compare(source: str, target: str | None, source_weights: Path | None, target_weights: Path | None,
             data: str, preset: str | None, out: Path | None, options: dict[str, Any]) -> None:
    """Print the dry run, and compare if there is a folder to write to."""
    given, arguments = _load(source, target, source_weights, target_weights, data, preset, options)
    ready = make_ready(given.source, given.target, given.train, given.test, **arguments, save_to=out,
                       restart=options["restart"] and out is not None)
    print_notes(given.notes)
    print_dry_run(ready.estimate())
    if out is not None:
        _run_and_report(ready, out, read_record(ReportOptions, options))


def _run_and_report(ready: Ready, out: Path, how: ReportOptions) -> None:
    with show_progress() as progress:
        made = ready.run(progress)
    print_verdict(made)
    report = write_report([made], out / "report.html", how)
    console.print(f"\nresult: {clean(str(out))}\nreport: {clean(str(report))}", soft_wrap=True)


def _read_settings(preset: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `suture.compare` from a command's options, except networks, data and names."""
    lists = {name: [] if options[name] == "none" else split_names(options[name]) for name in LISTS}
    ood = None
    if lists["ood"]:
        epochs = options["detector_epochs"]
        energy = read_record(EnergyRecipe, options, "detector_", tune_epochs=max(1, epochs // 10),
                             seed=options["seed"])
        ood = OOD(lists["ood"], auxiliary=specs.load_inputs(options["auxiliary"]),
                  unseen=specs.load_inputs(options["unseen"]), store=options["detector_store"], energy=energy)
    plain = {p.name: options[p.name] for p in COMPARISON}
    return {**plain, **lists, **read_labels(options), "ood": ood, **_read_fit(preset, options)}


def _read_fit(preset: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of fitting layers, from the options or from a preset, which excludes them."""
    recipe = read_record(TaskRecipe, options, rename=RECIPE_NAMES)
    made = {"tlm": recipe, "family": options["family"], "alignment": read_record(AlignmentRule, options),
            "examples": options["examples"], "seed": recipe.seed}
    if preset is None:
        return made
    if preset != "paper":
        raise make_unknown_error("preset", preset, ("paper",))
    default = {"tlm": TaskRecipe(seed=recipe.seed), "family": "full", "alignment": DEFAULT_RULE,
               "examples": None, "seed": recipe.seed}
    expect(made == default, "--preset alone", "options of the layers or their recipe beside it",
           "leave them out, or leave out --preset")
    return paper(recipe.seed)


@command(DATA, FIT, ALIGNMENT, STITCH_RESTART)
def stitch(
    source: Annotated[str, typer.Argument(help=f"Network that gives the front: {NETWORK_HELP}")],
    source_site: SiteArgument,
    target: Annotated[str, typer.Argument(help="Network that gives the tail.")],
    target_site: SiteArgument,
    source_weights: WeightsOption = None, target_weights: WeightsOption = None, data: DataOption = "digits",
    method: Annotated[str, typer.Option(help="dm or tlm (30 epochs, or the preset's recipe).")] = "dm",
    preset: PresetOption = None,
    out: Annotated[Path, typer.Option(help="File of the layer.")] = Path("stitched.safetensors"),
    **options: Any,
) -> None:
    """Fit one stitching layer, save it, and say what the stitched network reaches on the test data."""
    check_file(out, ".safetensors")
    same = ((source, source_weights, options["source_input"])
            == (target, target_weights, options["target_input"]))
    given = load_comparison_inputs(source, None if same else target, source_weights, target_weights, data,
                                   read_record(DataOptions, options), options["seed"])
    print_notes(given.notes)
    fit = {p.name: options[p.name] for p in FIT} | _read_fit(preset, options)
    arguments: Any = {**fit, "method": method, "save_to": out, "restart": options["restart"]}
    with show_progress() as progress:
        made = stitch_networks(given.source, source_site, given.target or given.source, target_site,
                               given.train, progress=progress, **arguments)
    console.print(f"{clean(str(made.layer))}", soft_wrap=True)
    reached = made.accuracy(given.test)
    if reached is None:
        console.print("no accuracy: the test data have no labels, or the target network has no logits")
    else:
        if reached.flaw:
            console.print(clean(reached.flaw), style="bold", soft_wrap=True)
        console.print(f"accuracy {reached.stitched:.3f} of {reached.n} test {reached.unit}; the target "
                      f"network has {reached.target:.3f}")
    if made.fit.get("mark"):
        console.print(f"not converged: {clean(made.fit['mark'])}; with longer training the test score may "
                      "rise or fall", soft_wrap=True)
    console.print(f"layer: {clean(str(out))}", soft_wrap=True)


def _choose_names(source: str, source_weights: Path | None, target: str | None,
                  target_weights: Path | None) -> tuple[str, str]:
    a = source_weights.stem if source_weights else _shorten_spec(source)
    b = a if target is None else target_weights.stem if target_weights else _shorten_spec(target)
    return (a, b) if target is None or a != b else (f"{a} (source)", f"{b} (target)")


def _shorten_spec(spec: str) -> str:
    """Return the name of a folder; return any other spec unchanged."""
    folder = Path(spec.removeprefix("hf:"))
    return folder.resolve().name if folder.is_dir() else spec
