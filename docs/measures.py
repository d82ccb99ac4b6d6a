"""Test the measures on several seeds of one network: the tables and figures of docs/measures.md.

    python docs/measures.py [--folder runs/measures] [--only indices|stitching|tlm|groups]

Five seeds of `resnet_digits` on the digits. With --data FOLDER (CIFAR-10 as Parquet shards) and --network
resnet20_strided the same on CIFAR-10, which takes hours on a CPU. Trained networks and every pair are kept in
the folder, and the same command goes on from there. --write puts the tables into docs/measures.md.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np

import suture
from common import HERE, Images, read_images
from suture import zoo
from suture.studies import Validation
from suture.studies.measure_tests.battery.control_tests import CONTROLS

PAGE = HERE / "measures.md"
INDICES = ["cka", "cka@flatten", "cka@pool", "pwcca", "svcca@pool", "opd", "rsa_correlation@pool"]
STITCHING = ["dm.relative_accuracy", "dm.agreement", "dm.residual"]
TLM = ["tlm.relative_accuracy", "tlm.residual", "dm.relative_accuracy"]
RECIPE = suture.TaskRecipe(epochs=15, batch_size=64, lr=1e-2, schedule="cosine")
SITES = {"resnet_digits": ["layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1"],
         "resnet20_strided": ["layer1.2", "layer2.0", "layer2.2", "layer3.0", "layer3.2"]}
FEW = {"resnet_digits": ["layer1.1", "layer2.1", "layer3.1"],
       "resnet20_strided": ["layer1.2", "layer2.2", "layer3.2"]}
GROUPS = ("random labels", "shortcut", "augmentation")


def mean_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Mean absolute correlation of the channels of x with those of y, as a user may write it."""
    a, b = (m - m.mean(0) for m in (x, y))
    a, b = (m / np.maximum(np.linalg.norm(m, axis=0), 1e-12) for m in (a, b))
    return float(np.abs(a.T @ b).mean())


def train(network: str, seeds: int, images: Images, folder: Path) -> dict[str, Any]:
    recipe = zoo.RECIPES["digits" if network == "resnet_digits" else "cifar10-resnet20"]
    found = {}
    for seed in range(seeds):
        path = folder / "networks" / f"{network}-seed{seed}.safetensors"
        made, report = zoo.train_and_save(network, path, seed, recipe, (images.base, images.test))
        found[f"seed {seed}"] = made
        print(f"{network}, seed {seed}: {report.accuracy:.3f}", flush=True)
    return found


def run(only: str, given: argparse.Namespace, images: Images) -> Validation:
    folder = given.folder / only
    how: dict[str, Any] = {"device": "cpu", "sample": 500}
    if only in GROUPS:
        made = suture.studies.train_groups(only, given.network, (images.base, images.test), seeds=3,
                                           folder=folder / "networks")
        data, test = made.data.subset(len(images.fit)), made.test.subset(len(images.held_out))
        return suture.validate(made.networks, data, test, about=made.about, by=[made.kind], controls=(),
                               sites=SITES[given.network][-1:], folder=folder,
                               measures=[*INDICES[2:], *STITCHING], **how)
    networks = train(given.network, given.seeds, images, given.folder)
    sites = SITES[given.network]
    if only == "tlm":  # each network with itself, which is the paper's test, because trainings take long
        study = suture.study(networks, images.fit, images.held_out, pairs="self", methods=["tlm", "dm"],
                             indices=(), tlm=RECIPE, sites=FEW[given.network], ood=None,
                             folder=folder / "population", **how)
        return suture.validate(study, measures=TLM)
    measures = [*INDICES, mean_correlation] if only == "indices" else STITCHING
    return suture.validate(networks, images.fit, images.held_out, measures=measures, sites=sites,
                           folder=folder, **how)


def format_table(found: Validation) -> str:
    """Format measures x tests as Markdown: the effect, ✓ passed, ✕ failed."""
    signs = {True: " ✓", False: " ✕", None: ""}
    lines = [f"| test | {' | '.join(found.measures)} |", "|---" * (len(found.measures) + 1) + "|"]
    for test in found.tests:
        if all(np.isnan(found.outcome(measure, test).effect) for measure in found.measures):
            continue
        cells = [found.outcome(measure, test) for measure in found.measures]
        lines.append(f"| {test} ({cells[0].unit}) | " + " | ".join(
            "–" if np.isnan(o.effect) else f"{o.effect:.2f}{signs[o.passed]}" for o in cells) + " |")
    if any(test in CONTROLS and not np.isnan(found.outcome(measure, test).effect)
           for measure in found.measures for test in found.tests):
        fooled = (", ".join(found.list_fooling(measure)) or "none" for measure in found.measures)
        lines.append(f"| fooled by | {' | '.join(fooled)} |")
    return "\n".join(lines)


def write(name: str, text: str) -> None:
    """Put a table into the page, between its two marks."""
    page, marks = PAGE.read_text(), (f"<!-- {name} -->", f"<!-- end of {name} -->")
    pattern = f"{re.escape(marks[0])}.*?{re.escape(marks[1])}"
    PAGE.write_text(re.sub(pattern, lambda _: f"{marks[0]}\n{text}\n{marks[1]}", page, flags=re.DOTALL))


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--folder", type=Path, default=Path("runs/measures"))
    parser.add_argument("--network", default="resnet_digits", choices=list(SITES))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=["indices", "stitching", "tlm", *GROUPS])
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    digits = given.network == "resnet_digits"
    images = read_images("digits" if digits else "cifar10", given.data, 50_000, 640 if digits else 2000,
                         500 if digits else 1000)
    for only in given.only or ["indices", "stitching", *GROUPS, "tlm"]:
        found = run(only, given, images)
        text = format_table(found)
        print(f"{only}\n{text}\n" + "\n".join(found.warnings), flush=True)
        if given.write:
            prefix = "measures" if digits else "measures-cifar10"
            write(f"{prefix}-{only.replace(' ', '-')}", text)
            if only in ("indices", "stitching"):
                found.plot().savefig(HERE / f"{prefix}-{only}.png", dpi=90)


if __name__ == "__main__":
    main()
