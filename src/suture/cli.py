"""The command line: parse, call one public function, print."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from suture import demo as demonstration
from suture import specs, zoo
from suture._errors import SutureError
from suture.batches import Batches
from suture.compare import compare as compare_networks
from suture.prepare import find_device, prepare
from suture.report import page
from suture.results import Comparison, load
from suture.sites import SitedNetwork
from suture.stitching import TaskRecipe
from suture.training import Recipe

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Compare the inner representations of neural networks by stitching them together.")
console, problems = Console(), Console(stderr=True)

Out = Annotated[Path, typer.Option(help="Folder that results are written to, as they come.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Data = Annotated[str, typer.Option(help="'digits', or module:function that returns (train, test); imports your code.")]
NETWORK = "zoo:NAME, or module:function that returns a network (imports your code)."
Sites = Annotated[str | None, typer.Option(help="Sites, comma separated: names or globs. Default: repeated blocks.")]


def main() -> None:
    """Entry point: exit code 0, 2 for bad input (one line on stderr), 130 when interrupted."""
    try:
        sys.exit(app(standalone_mode=False))
    except SutureError as e:
        problems.print(f"suture: {escape(str(e))}", soft_wrap=True)
        sys.exit(2)
    except click.UsageError as e:
        problems.print(f"suture: {escape(e.format_message())}; see suture --help", soft_wrap=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        problems.print("suture: interrupted; what was finished is kept, the same command goes on from there",
                       soft_wrap=True)
        sys.exit(130)
    except OSError as e:
        problems.print(f"suture: {escape(str(e))}; choose another path", soft_wrap=True)
        sys.exit(2)


@contextmanager
def bars() -> Iterator[Any]:
    """Progress bars, one for each stage, drawn on stderr."""
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                  console=problems, transient=not problems.is_terminal) as shown:
        tasks: dict[str, TaskID] = {}

        def progress(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total)
            shown.update(tasks[stage], completed=done, total=total)

        yield progress


def _print_verdict(comparison: Comparison) -> None:
    console.print(f"\n{escape(comparison.source)} -> {escape(comparison.target)}", style="bold")
    verdict = comparison.verdict()
    for sentence in (*verdict.words, *filter(None, [verdict.gap])):
        console.print(f"  {escape(sentence)}", soft_wrap=True)
    for note in comparison.meta["notes"]:
        console.print(f"  note: {escape(note)}", soft_wrap=True)


@app.command()
def demo(out: Out = Path("suture-demo"), seed: Seed = 0, device: Device = "auto") -> None:
    """Two small networks trained on the digits, each compared with itself and with the other."""
    with bars() as progress:
        made = demonstration.demo(out, seed=seed, device=device, progress=progress)
    for name, accuracy in made.accuracies.items():
        console.print(f"network {name}: {accuracy:.1%} of {len(zoo.digits('test'))} test images right")
    for comparison in made.comparisons.values():
        _print_verdict(comparison)
    console.print(f"\nreport: {made.report}", soft_wrap=True)


@app.command()
def compare(
    source: Annotated[str, typer.Argument(help=f"Network that gives the fronts: {NETWORK}")],
    target: Annotated[str | None, typer.Argument(help="Network that gives the tails. Default: the source.")] = None,
    source_weights: Annotated[Path | None, typer.Option(help="safetensors, or a state dict saved by torch.")] = None,
    target_weights: Annotated[Path | None, typer.Option(help="safetensors, or a state dict saved by torch.")] = None,
    data: Data = "digits",
    sites: Sites = None,
    target_sites: Annotated[str | None, typer.Option(help="Sites of the target, where they differ.")] = None,
    methods: Annotated[str, typer.Option(help="dm, tlm, both (dm,tlm) or none (indices alone).")] = "dm,tlm",
    epochs: Annotated[int, typer.Option(help="Of task loss matching.")] = 30,
    lr: Annotated[float, typer.Option(help="Of task loss matching.")] = 1e-3,
    init: Annotated[str, typer.Option(help="Of task loss matching: random, dm or identity.")] = "random",
    schedule: Annotated[str, typer.Option(help="Of task loss matching: constant or cosine.")] = "constant",
    batch_size: Annotated[int, typer.Option(help="Of task loss matching.")] = 256,
    precision: Annotated[str, typer.Option(help="Of the moments: float32 or float64.")] = "float32",
    allow_bypass: Annotated[bool, typer.Option(help="Accept sites that another path bypasses.")] = False,
    out: Out = Path("suture-result"),
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Compare two networks layer by layer: indices, direct matching, task loss matching, verdict, report."""
    train, test = specs.data(data)
    one = specs.network(source, weights=source_weights, like=train, seed=seed)
    other = None if target is None else specs.network(target, weights=target_weights, like=train, seed=seed + 1)
    recipe = TaskRecipe(epochs, batch_size, lr, init=init, schedule=schedule, seed=seed)  # type: ignore[arg-type]
    with bars() as progress:
        made = compare_networks(
            one, other, train, test, sites=_listed(sites), target_sites=_listed(target_sites),
            methods=[] if methods == "none" else methods.split(","), tlm=recipe,
            precision=precision,  # type: ignore[arg-type]
            allow_bypass=allow_bypass, names=_names(source, source_weights, target, target_weights), device=device,
            seed=seed, progress=progress, on_stage=lambda c: _save(c, out), previous=demonstration.earlier(out))
    report = made.report(out / "report.html")
    _print_verdict(made)
    console.print(f"\nresult: {out}\nreport: {report}", soft_wrap=True)


def _save(comparison: Comparison, out: Path) -> None:
    comparison.save(out)


def _listed(names: str | None) -> list[str] | None:
    return None if names is None else [n.strip() for n in names.split(",") if n.strip()]


def _names(source: str, source_weights: Path | None, target: str | None,
           target_weights: Path | None) -> tuple[str, str]:
    a = source_weights.stem if source_weights else source
    b = a if target is None else target_weights.stem if target_weights else target
    return (a, b) if target is None or a != b else (f"{a} (source)", f"{b} (target)")


@app.command()
def train(
    network: Annotated[str, typer.Argument(help="zoo:NAME")],
    data: Data = "digits",
    epochs: Annotated[int | None, typer.Option(help="Default: the recipe's.")] = None,
    lr: Annotated[float | None, typer.Option(help="Default: the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: the recipe's.")] = None,
    out: Annotated[Path, typer.Option(help="Weights file, safetensors.")] = Path("weights.safetensors"),
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Train a network of the zoo and save its weights."""
    kind, _, name = network.partition(":")
    if kind != "zoo":
        raise SutureError(f"expected zoo:NAME, got {network!r}; your own networks are trained by your own code")
    splits = specs.data(data)
    if not all(isinstance(s, zoo.ImageSet) for s in splits):
        raise SutureError(f"expected {data!r} to return two suture.zoo.ImageSet, to train on them")
    recipe = zoo.DIGITS_RECIPE if data == "digits" else Recipe.paper()
    given: dict[str, Any] = {"epochs": epochs, "lr": lr, "batch_size": batch_size}
    given = {k: v for k, v in given.items() if v is not None}
    with bars() as progress:
        made, report = zoo.train_network(name, seed, dataclasses.replace(recipe, **given), splits, progress,
                                         device=find_device(device))
    zoo.save_weights(made, out, {"seed": str(seed), "accuracy": str(report.accuracy), "network": name})
    console.print(f"{report.accuracy:.1%} of {len(splits[1])} test images right; weights: {out}", soft_wrap=True)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `suture compare` or `demo` wrote.")],
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("report.html"),
) -> None:
    """One HTML report of one or more comparisons."""
    made = [load(f) for f in folders]
    for comparison in made:
        _print_verdict(comparison)
    console.print(f"\nreport: {page.write(made, out)}", soft_wrap=True)


@app.command()
def layers(
    network: Annotated[str, typer.Argument(help=NETWORK)],
    data: Data = "digits",
    sites: Sites = None,
    every: Annotated[bool, typer.Option("--all", help="Every module that is called, also bypassed ones.")] = False,
    seed: Seed = 0,
) -> None:
    """The sites of a network: names, shapes, and whether they cut the network in two."""
    train_data, _ = specs.data(data)
    batch = next(iter(Batches(train_data, size=4)))
    made = prepare(specs.network(network, like=train_data, seed=seed), batch.source, find_device("cpu"), network)
    found = SitedNetwork(made, batch.source, "**" if every else _listed(sites), allow_bypass=True, name="network")
    table = Table("site", "representation", "rows per example", "cuts the network")
    for info in found.infos:
        cuts = "output" if info.final else "yes" if not info.bypass else f"no: {info.bypass[0]} goes around"
        table.add_row(escape(str(info.site)), str(info.shape), str(info.shape.rows), escape(cuts))
    console.print(table)
