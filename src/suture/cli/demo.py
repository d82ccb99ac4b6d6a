"""The demo: two networks of one architecture on the digits, one stitched to itself and into the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from suture import zoo
from suture._base import Progress, check_file, check_folder, hold_lock, listen_to_signals
from suture.compare import compare
from suture.results import Comparison, ReportOptions, write_report
from suture.stitching import TaskRecipe

NETWORK = "resnet_digits"
RECIPE = TaskRecipe(epochs=13, batch_size=64, lr=1e-2, schedule="cosine")
"""Recipe of the demo: long enough for its finding; about half of the cells have converged by then."""
PAIRS: Mapping[tuple[str, str], Sequence[str]] = {("A", "A"): ("dm", "tlm"), ("A", "B"): ("dm",)}
"""Methods of each pair, source first. Task loss matching of a second pair would take as long again."""
SITES: Sequence[str] | None = None
"""Sites of both networks; None for all blocks."""


@dataclass(frozen=True)
class DemoResult:
    """Accuracies by network name, comparisons by folder name, and the path of the report."""

    accuracies: dict[str, float]
    comparisons: dict[str, Comparison]
    report: Path


def run_demo(out: str | Path = "suture-demo", *, seed: int = 0, device: str = "auto",
             recipe: TaskRecipe | None = None, progress: Progress | None = None,
             report: ReportOptions | None = None, restart: bool = False) -> DemoResult:
    """Train two small ResNets on the digits, compare one with itself and with the other, write the report.

    Task loss matching, which takes most of the time, is for the network and itself alone.
    Results are saved as they come. A second call continues where the first was stopped. The networks have
    seeds 2 seed and 2 seed + 1; everything else uses `seed`. `recipe` is for task loss matching, by default
    `RECIPE`. `report` is for the page of each pair; that of all pairs has no figures. With `restart`, earlier
    networks and results in the folder are made again.
    """
    folder = check_folder(out)
    check_file(folder / "report.html")
    with hold_lock(folder) as note, listen_to_signals():
        if note and progress is not None:
            progress(note, 1, 1)
        return _run(folder, seed, device, recipe or RECIPE, progress, report, restart)


def _run(folder: Path, seed: int, device: str, recipe: TaskRecipe, progress: Progress | None,
         report: ReportOptions | None, restart: bool) -> DemoResult:
    accuracies: dict[str, float] = {}
    networks = {}
    train, test = zoo.digits("train"), zoo.digits("test")
    for k, name in enumerate("AB"):
        networks[name], trained = zoo.train_and_save(
            NETWORK, folder / f"{name}.safetensors", 2 * seed + k, zoo.DIGITS_RECIPE, (train, test),
            _prefix_progress(progress, f"network {name}"), restart=restart)
        accuracies[name] = trained.accuracy
    made: dict[str, Comparison] = {}
    for (a, b), methods in PAIRS.items():
        place = folder / f"{a}-{b}"
        made[place.name] = compare(
            networks[a], None if a == b else networks[b], train, test, names=(a, b), tlm=recipe, sites=SITES,
            methods=methods, seed=seed, device=device, progress=_prefix_progress(progress, f"{a} into {b}"),
            save_to=place, restart=restart)
    for name, comparison in made.items():
        write_report([comparison], folder / name / "report.html", report)
    return DemoResult(accuracies, made, write_report(list(made.values()), folder / "report.html"))


def _prefix_progress(progress: Progress | None, prefix: str) -> Progress | None:
    if progress is None:
        return None
    inner = progress
    return lambda stage, done, total: inner(f"{prefix}: {stage}", done, total)
