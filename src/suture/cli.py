"""The command line: parse, call one public function, print."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from torch import nn

from suture import demo as demonstration
from suture import specs, zoo
from suture._errors import SutureError, unknown
from suture.batches import Batches
from suture.calls import no_gradients, record, walk
from suture.compare import compare as compare_networks
from suture.compare import paper
from suture.detection import OOD
from suture.detectors.energy import EnergyRecipe
from suture.detectors.table import DEFAULT, DETECTORS
from suture.naming import Site
from suture.prepare import find_device, prepare
from suture.report import page
from suture.report.findings import findings
from suture.representations import DEFAULT_RULE, AlignmentRule
from suture.results import Comparison, load
from suture.sites import SitedNetwork, SiteInfo
from suture.stitch import stitch as stitch_networks
from suture.stitching import TaskRecipe
from suture.training import Recipe, accuracy

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Compare the inner representations of neural networks by stitching them together.")
# Names are anyone's: neither `:name:` nor numbers in them are ours to decorate.
console, problems = (Console(stderr=e, emoji=False, highlight=False) for e in (False, True))

# typer has its own copy of click from some version on; this is the class in either.
_UsageError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")
_INTERRUPTED = 130

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


def main() -> None:
    """Entry point: exit code 0, 2 for bad input (one line on stderr), 130 when interrupted."""
    problem, code = "", 2
    try:
        # Not standalone, so that errors come here; typer turns an interruption into its exit code all the same.
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False) or 0
    except SutureError as e:
        problem = str(e)
    except _UsageError as e:
        problem = f"{e.format_message()}; see suture --help"  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except OSError as e:
        problem = f"{e}; choose another path"
    if code == _INTERRUPTED:
        problem = "interrupted; what was finished is kept, the same command goes on from there"
    if problem:
        problems.print(f"suture: {escape(' '.join(problem.splitlines()))}", soft_wrap=True)
    sys.exit(code)


@contextmanager
def bars() -> Iterator[Any]:
    """Progress bars, one for each stage, drawn on stderr where that is a terminal."""
    with Progress(TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
                  TimeRemainingColumn(), console=problems, disable=not problems.is_terminal) as shown:
        tasks: dict[str, TaskID] = {}

        def progress(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total)
            shown.update(tasks[stage], completed=done, total=total)

        yield progress


def _print_verdict(comparison: Comparison) -> None:
    console.print(f"\n{escape(comparison.source)} -> {escape(comparison.target)}", style="bold")
    found = findings(comparison)
    for sentence in filter(None, [*found.cells, *found.shown, found.summary, found.gap]):
        console.print(f"  {escape(sentence)}", soft_wrap=True)
    for note in comparison.meta["notes"]:
        console.print(f"  note: {escape(note)}", soft_wrap=True)


@app.command()
def demo(out: Out = Path("suture-demo"), seed: Seed = 0, device: Device = "auto") -> None:
    """Two small networks trained on the digits, each compared with itself and with the other."""
    with bars() as progress:
        made = demonstration.demo(out, seed=seed, device=device, progress=progress)
    for name, reached in made.accuracies.items():
        console.print(f"network {name}: {reached:.1%} of {len(zoo.digits('test'))} test images right")
    for comparison in made.comparisons.values():
        _print_verdict(comparison)
    console.print(f"\nreport: {escape(str(made.report))}", soft_wrap=True)


@app.command()
def compare(
    source: Annotated[str, typer.Argument(help=f"Network that gives the fronts: {NETWORK}")],
    target: Annotated[str | None, typer.Argument(help="Network that gives the tails. Default: the source.")] = None,
    source_weights: Annotated[Path | None, typer.Option(help="safetensors, or a state dict saved by torch.")] = None,
    target_weights: Annotated[Path | None, typer.Option(help="The same; without a target, of the source's own "
                                                             "architecture.")] = None,
    data: Data = "digits",
    sites: Sites = None,
    target_sites: Annotated[str | None, typer.Option(help="Sites of the target, where they differ.")] = None,
    methods: Annotated[str, typer.Option(help="dm, tlm, dm,tlm or none (indices alone).")] = "dm,tlm",
    epochs: Annotated[int, typer.Option(help="Of task loss matching.")] = 30,
    lr: Annotated[float, typer.Option(help="Of task loss matching.")] = 1e-3,
    init: Annotated[str, typer.Option(help="Of task loss matching: random, dm or identity.")] = "random",
    schedule: Annotated[str, typer.Option(help="Of task loss matching: constant, cosine or onecycle.")] = "constant",
    batch_size: Annotated[int, typer.Option(help="Of task loss matching.")] = 256,
    objective: Annotated[str, typer.Option(help="Of task loss matching: hard, soft (the target network's predictions), "
                                                "mixed, or match (its representations).")] = "hard",
    temperature: Annotated[float, typer.Option(help="Of the objectives soft and mixed.")] = 1.0,
    optimizer: Annotated[str, typer.Option(help="Of task loss matching: adam, adamw or sgd.")] = "adam",
    crop: Annotated[int, typer.Option(help="Task loss matching: pixels of padding for random crops.")] = 0,
    flip: Annotated[bool, typer.Option("--flip", help="Task loss matching: mirror half of the images.")] = False,
    tlm_precision: Annotated[str, typer.Option(help="Of the networks in task loss matching: float32 or "
                                                    "bf16.")] = "float32",
    patience: Annotated[int | None, typer.Option(help="Task loss matching: stop a layer after so many epochs without "
                                                      "gain on a tenth of the data that is held out.")] = None,
    preset: Annotated[str | None, typer.Option(help="paper: layers, examples and recipe of Balogh and Jelasity "
                                                    "2025.")] = None,
    family: Family = "full",
    resize: Resize = "bilinear",
    prefix: Prefix = "auto",
    examples: Examples = None,
    relu: Relu = False,
    ood: Annotated[str, typer.Option(help="Out-of-distribution detectors, comma separated, the first one for the "
                                          f"verdict, or none: {', '.join(DETECTORS)}.")] = ",".join(DEFAULT),
    auxiliary: Outside = None,
    unseen: Outside = None,
    detector_epochs: Annotated[int, typer.Option(help="Of the trained detector energy, which has a tenth more for its "
                                                      "margin.")] = 100,
    detector_body: Annotated[str, typer.Option(help="Of the trained detector energy: auto, paper, resnet18, "
                                                    "resnet_small, vit_tiny, vit_small or mlp.")] = "auto",
    detector_store: Annotated[Path | None, typer.Option(help="Folder in which trained detectors are kept.")] = None,
    precision: Annotated[str, typer.Option(help="Of the moments: float32 or float64.")] = "float32",
    allow_bypass: Annotated[bool, typer.Option(help="Accept sites that another path bypasses.")] = False,
    out: Out = Path("suture-result"),
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Compare two networks layer by layer: indices, direct matching, task loss matching, verdict, report."""
    demonstration.check_place(out)
    train, test = specs.data(data)
    if target is None and target_weights is not None:
        target = source
    one = specs.network(source, weights=source_weights, like=train, seed=seed)
    other = None if target is None else specs.network(target, weights=target_weights, like=train, seed=seed + 1)
    recipe = TaskRecipe(epochs, batch_size, lr, optimizer=optimizer, schedule=schedule,  # type: ignore[arg-type]
                        crop=crop, flip=flip, seed=seed, init=init, objective=objective,  # type: ignore[arg-type]
                        temperature=temperature, precision=tlm_precision, patience=patience)  # type: ignore[arg-type]
    fitting = _fitting(preset, recipe, family, AlignmentRule(resize, "auto", prefix), examples)  # type: ignore[arg-type]
    detection = None if ood == "none" else OOD(
        _listed(ood) or [], auxiliary=specs.inputs(auxiliary), unseen=specs.inputs(unseen), store=detector_store,
        energy=EnergyRecipe(epochs=detector_epochs, tune_epochs=max(1, detector_epochs // 10),
                            body=detector_body, seed=seed))  # type: ignore[arg-type]
    with bars() as progress:
        made = compare_networks(
            one, other, train, test, **fitting, relu=relu, ood=detection, sites=_listed(sites),
            target_sites=_listed(target_sites),
            methods=[] if methods == "none" else _listed(methods) or [],
            precision=precision,  # type: ignore[arg-type]
            allow_bypass=allow_bypass, names=_names(source, source_weights, target, target_weights), device=device,
            progress=progress, on_stage=partial(Comparison.save, dir=out),
            previous=demonstration.earlier(out))
    report = made.report(out / "report.html")
    _print_verdict(made)
    console.print(f"\nresult: {escape(str(out))}\nreport: {escape(str(report))}", soft_wrap=True)


def _fitting(preset: str | None, recipe: TaskRecipe, family: str, alignment: AlignmentRule,
             examples: int | None) -> dict[str, Any]:
    """How layers are fitted: what the options say, or the preset, which leaves no room for them."""
    if preset is None:
        return {"tlm": recipe, "family": family, "alignment": alignment, "examples": examples, "seed": recipe.seed}
    if preset != "paper":
        raise unknown("preset", preset, ("paper",))
    if (recipe, family, alignment, examples) != (TaskRecipe(seed=recipe.seed), "full", DEFAULT_RULE, None):
        raise SutureError("expected --preset alone, got options of the layers or their recipe beside it; leave them "
                          "out, or leave out --preset")
    return paper(recipe.seed)


@app.command()
def stitch(
    source: Annotated[str, typer.Argument(help=f"Network that gives the front: {NETWORK}")],
    source_site: Annotated[str, typer.Argument(help="Site in it.")],
    target: Annotated[str, typer.Argument(help="Network that gives the tail.")],
    target_site: Annotated[str, typer.Argument(help="Site in it.")],
    source_weights: Annotated[Path | None, typer.Option(help="safetensors, or a state dict saved by torch.")] = None,
    target_weights: Annotated[Path | None, typer.Option(help="The same.")] = None,
    data: Data = "digits",
    method: Annotated[str, typer.Option(help="dm or tlm (30 epochs, or the preset's recipe).")] = "dm",
    preset: Annotated[str | None, typer.Option(help="paper: as in Balogh and Jelasity 2025.")] = None,
    family: Family = "full",
    resize: Resize = "bilinear",
    prefix: Prefix = "auto",
    examples: Examples = None,
    relu: Relu = False,
    out: Annotated[Path, typer.Option(help="File for the layer, safetensors.")] = Path("stitched.safetensors"),
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Fit one stitching layer, save it, and say what the stitched network reaches on the test data."""
    train_data, test = specs.data(data)
    one = specs.network(source, weights=source_weights, like=train_data, seed=seed)
    other = one if (source, source_weights) == (target, target_weights) else specs.network(
        target, weights=target_weights, like=train_data, seed=seed + 1)
    fitting = _fitting(preset, TaskRecipe(seed=seed), family,
                       AlignmentRule(resize, "auto", prefix), examples)  # type: ignore[arg-type]
    with bars() as progress:
        made = stitch_networks(one, source_site, other, target_site, train_data, method=method,  # type: ignore[arg-type]
                               device=device, progress=progress, relu=relu, **fitting)
    made.save(out)
    console.print(f"{escape(str(made.layer))}", soft_wrap=True)
    if isinstance(test, zoo.ImageSet):
        reached, whole = (accuracy(network, test.inputs, test.labels) for network in (made, made.target_network))
        console.print(f"accuracy {reached:.3f} of {len(test)} test images; the target network has {whole:.3f}")
    if made.fit.get("mark"):
        console.print(f"not converged: {escape(made.fit['mark'])}", soft_wrap=True)
    console.print(f"layer: {escape(str(out))}", soft_wrap=True)


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
    if out.suffix != ".safetensors":
        raise SutureError(f"weights are saved as .safetensors, got {out.name!r}; write {out.stem}.safetensors")
    demonstration.check_place(out.parent)
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
    console.print(f"{report.accuracy:.1%} of {len(splits[1])} test images right; weights: {escape(str(out))}",
                  soft_wrap=True)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `suture compare` or `demo` wrote.")],
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("report.html"),
) -> None:
    """One HTML report of one or more comparisons."""
    made = [load(f) for f in folders]
    for comparison in made:
        _print_verdict(comparison)
    console.print(f"\nreport: {escape(str(page.write(made, out)))}", soft_wrap=True)


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
    if every:
        found = list(_every(made, batch.source))
    else:
        infos = SitedNetwork(made, batch.source, _listed(sites), allow_bypass=True, name="network").infos
        found = [(i.site, i) for i in infos]
    # Folded and not cut with an ellipsis: a name has to be there as a whole to be copied.
    table = Table(Column("site", overflow="fold"), "representation", "rows per example", "cuts the network")
    for site, info in found:
        if isinstance(info, SutureError):
            table.add_row(escape(str(site)), "", "", escape(f"no: {str(info).split(';')[0]}"))
            continue
        cuts = "output" if info.final else "yes" if not info.bypass else f"no: {info.bypass[0]} goes around"
        table.add_row(escape(str(site)), str(info.shape), str(info.shape.rows), escape(cuts))
    console.print(table)


def _every(network: nn.Module, inputs: Any) -> Iterator[tuple[Site, SiteInfo | SutureError]]:
    """Every call of every module in order of execution; one that is no site does not hide the others."""
    with no_gradients():
        calls = sorted(walk(record(network, inputs)), key=lambda c: c.finished)
    for site in [Site(*c.id) for c in calls]:
        try:
            yield site, SitedNetwork(network, inputs, [site], allow_bypass=True).infos[0]
        except SutureError as e:
            yield site, e
