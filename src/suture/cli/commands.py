"""The commands beside those that stitch and train: demo, report, layers, arrays, indices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from torch import nn

from suture import specs, zoo
from suture._base import SutureError, check_file, expect, make_unknown_error
from suture.cli import demo as demonstration
from suture.cli.console import print_notes, print_verdict, show_progress, split_names
from suture.cli.entry_point import clean, console
from suture.cli.inputs import adjust_preprocessing, make_example_inputs
from suture.cli.options import (
    DATA_HELP,
    LABELS,
    REPORT,
    RESTART,
    RUN,
    NetworkArgument,
    OutOption,
    WeightsOption,
    command,
    list_parameters,
    read_labels,
    read_record,
)
from suture.compare import ArrayFile, ArrayOptions, Settings, compare_arrays, hold_folder
from suture.indices import Value, merged_moments
from suture.indices import compare_arrays as compare_matrices
from suture.networks import (
    Site,
    SitedNetwork,
    SiteInfo,
    disable_gradients,
    find_device,
    prepare,
    record,
    walk,
)
from suture.numbers import get_measure
from suture.results import ReportOptions, load, write_report

ARRAYS = ("jackknife", "sample", "seed", "nulls", "precision", "device")
"""Options of `suture arrays` that are passed on as they are."""


@command(RUN, REPORT, RESTART)
def demo(out: OutOption = Path("suture-demo"), **options: Any) -> None:
    """Two small networks trained on the digits, one compared with itself and with the other."""
    find_device(options["device"])  # raises for a bad one, before anything is trained
    with show_progress() as progress:
        report = read_record(ReportOptions, options)
        made = demonstration.run_demo(out, progress=progress, seed=options["seed"], device=options["device"],
                                      report=report, restart=options["restart"])
    for name, reached in made.accuracies.items():
        console.print(f"network {name}: {reached:.1%} of {len(zoo.digits('test'))} test images right")
    for comparison in made.comparisons.values():
        print_verdict(comparison, notes=False)
    console.print(f"\nreport: {clean(str(made.report))}", soft_wrap=True)


@command(REPORT)
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `suture compare` or `demo` wrote.")],
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("report.html"), **options: Any,
) -> None:
    """One HTML report of one or more comparisons."""
    check_file(out)
    made = [load(f) for f in folders]
    for comparison in made:
        print_verdict(comparison)
    page = write_report(made, out, read_record(ReportOptions, options))
    console.print(f"\nreport: {clean(str(page))}", soft_wrap=True)


@command(list_parameters(Settings, only=("sites", "seed")))
def layers(
    network: NetworkArgument,
    weights: WeightsOption = None,
    data: Annotated[str | None, typer.Option(
        help=f"Data: {DATA_HELP} Default: inputs made for the network.")] = None,
    given: Annotated[str | None, typer.Option("--input", help="Input of the network: raw, or "
                                                              "size=64,...")] = None,
    every: Annotated[bool, typer.Option("--all",
                                        help="Every module that is called, also bypassed ones.")] = False,
    **options: Any,
) -> None:
    """The sites of a network: names, kinds, shapes, and whether they cut the network in two."""
    raw = None if data is None else specs.load_data(data)[0]
    named = specs.build_network(network, weights=weights, like=raw, seed=options["seed"])
    inputs = make_example_inputs(named, raw, adjust_preprocessing(named.preprocessing, given),
                                 always=given is not None)
    made = prepare(named.network, inputs, find_device("cpu"), network)
    if every:
        found = list(_inspect_every_call(made, inputs))
    else:
        infos = SitedNetwork(made, inputs, split_names(options["sites"]), allow_bypass=True,
                             name="network").infos
        found = [(i.site, i) for i in infos]
    # Names are folded, not cut with an ellipsis, so that they can be copied.
    table = Table(Column("site", overflow="fold"), "representation", "rows per example", "cuts the network")
    for site, info in found:
        if isinstance(info, SutureError):
            table.add_row(clean(str(site)), "", "", clean(f"no: {str(info).split(';')[0]}"))
            continue
        cuts = "output" if info.final else "yes" if not info.bypass else f"no: {info.bypass[0]} goes around"
        table.add_row(clean(str(site)), str(info.shape), str(info.shape.rows), clean(cuts))
    console.print(table)


def _inspect_every_call(network: nn.Module, inputs: Any) -> Iterator[tuple[Site, SiteInfo | SutureError]]:
    """Yield every call of every module, in order of execution. A call that is no site gives its error."""
    with disable_gradients():
        calls = sorted(walk(record(network, inputs)), key=lambda c: c.finished)
    for site in [Site(*c.id) for c in calls]:
        try:
            yield site, SitedNetwork(network, inputs, [site], allow_bypass=True).infos[0]
        except SutureError as e:
            yield site, e


@command(list_parameters(ArrayOptions, only=("indices", *ARRAYS, *LABELS)), REPORT, RESTART)
def arrays(
    paths: Annotated[list[Path], typer.Argument(
        help="SOURCE, and TARGET unless it is the same: .npz, .safetensors or .npy files, or folders of .npy "
             "files. Row k of all arrays is of the same example.")],
    kind: Annotated[list[str] | None, typer.Option(
        help="NAME=KIND, once for each array that is no vector (N, D), tokens (N, T, D) or map (N, C, H, W): "
             "map:last, tokens:1,14x14, ...")] = None,
    labels: Annotated[str | None, typer.Option(help="Array of SOURCE that holds the classes.")] = None,
    out: OutOption = Path("suture-arrays"), **options: Any,
) -> None:
    """Compare files of named arrays, such as saved features: indices, verdict, report, no network."""
    expect(len(paths) in (1, 2), "one file of arrays or two", f"{len(paths)} paths")
    with hold_folder(out, options["restart"]):
        check_file(out / "report.html")
        source, *others = (dict(ArrayFile(path)) for path in dict.fromkeys(paths))
        if labels is not None and labels not in source:
            raise make_unknown_error("array for --labels", labels, source)
        classes = None if labels is None else source[labels][:]
        given = read_labels(options, source)
        for name in {labels, *(options[name] for name in LABELS)}:
            for of in (source, *others):
                of.pop(name, None)
        listed = options["indices"]
        with show_progress() as progress:
            made = compare_arrays(source, others[0] if others else None,
                                  () if listed == "none" else split_names(listed) or (),
                                  names=_name_files(paths), kinds=_split_kinds(kind or []), labels=classes,
                                  progress=progress, save_to=out, **given,
                                  **{name: options[name] for name in ARRAYS})
        print_verdict(made)
        page = write_report([made], out / "report.html", read_record(ReportOptions, options))
    console.print(f"\nresult: {clean(str(out))}\nreport: {clean(str(page))}", soft_wrap=True)


def _name_files(paths: list[Path]) -> tuple[str, str]:
    """Return the names of two files, or that of one twice."""
    a, b = paths[0], paths[-1]
    return (str(a), str(b)) if a.stem == b.stem and a != b else (a.stem, b.stem)


def _split_kinds(given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, kind = text.rpartition("=")
        expect(bool(equals), "--kind NAME=KIND", repr(text), "write --kind layer1=map:last")
        found[name] = kind
    return found


@command(list_parameters(ArrayOptions, only=("indices", "jackknife", "sample", "seed", "nulls", *LABELS)))
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
        expect(not options["nulls"] and not read_labels(options), "moments alone", "--nulls, --groups or "
               "--within", "permutations need the rows: leave out --moments")
        found = merged_moments(paths, names, intervals=options["jackknife"] > 0)
    else:
        expect(len(paths) == 2, "a source and a target", f"{len(paths)} paths",
               "to merge moments write --moments")
        how = {name: options[name] for name in ("jackknife", "sample", "seed", "nulls")}
        found = compare_matrices(paths[0], paths[1], names, save=save, **how, **read_labels(options))
    _print_values(found, options["nulls"] > 0)
    if save is not None:
        console.print(f"moments: {clean(str(save))}", soft_wrap=True)


def _print_values(found: dict[str, Value], drawn: bool) -> None:
    """Print values with their nulls, then what is missing; of nulls if permutations were `drawn`."""
    has_interval = any(not math.isnan(v.low) for v in found.values())
    tests = {name: v.null for name, v in found.items() if v.null is not None and not v.null.reason}
    shown = {"index": True, "value": True, "95 % interval": has_interval, "more similar": True,
             "p": bool(tests), "calibrated": bool(tests)}
    numbers = ("value", "p", "calibrated")
    table = Table(*(Column(head, no_wrap=True, justify="right" if head in numbers else "left")
                    for head, is_shown in shown.items() if is_shown))
    for name, v in found.items():
        row = [clean(name), "–" if v.reason else f"{v.value:.6f}"]
        if has_interval:
            row.append("" if math.isnan(v.low) else f"{v.low:.4f} to {v.high:.4f}")
        row.append(get_measure(name).direction)
        if name in tests:
            row += [f"{tests[name].p:.3g}", _format_calibrated(tests[name].calibrated)]
        table.add_row(*row)
    console.print(table)
    print_notes(f"{name} is missing: {v.reason}" for name, v in found.items() if v.reason)
    print_notes(f"{name} has no null: {v.null.reason}" for name, v in found.items()
                if drawn and not v.reason and v.null is not None and v.null.reason)


def _format_calibrated(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"
