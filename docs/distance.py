"""Natural ranges and verdicts of networks stitched to themselves, and into another seed. (distance.md)

    python docs/distance.py run digits
    python docs/distance.py run cifar10 --data FOLDER     # Parquet with images and labels; needs pyarrow
    python docs/distance.py page                          # the tables of the page

For each seed a network is trained and stitched to itself and into the network of the next seed, by direct
matching and by task loss matching. What was computed is kept in ``docs/.distance`` and not computed again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import common
import suture
from common import HERE
from suture import OOD, TaskRecipe
from suture.networks.training import Recipe

STORE = HERE / ".distance"
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {"network": "resnet_digits", "sites": None, "fit": 1297, "test": 500, "base": None,
               "tlm": TaskRecipe(epochs=20, batch_size=64, lr=1e-2, schedule="cosine")},
    "cifar10": {"network": "resnet20_strided", "sites": ["layer1.2", "layer2.1", "layer3.1"],
                "base_images": 10000, "fit": 1000, "test": 1000,
                "base": Recipe(epochs=6, batch_size=64, lr=1e-2, schedule="onecycle", crop=2, flip=True),
                "tlm": TaskRecipe(epochs=16, batch_size=50, lr=1e-2, schedule="cosine")},
}
WORDS = ("similar", "artefact", "shares the labels only", "works, not shown similar", "dissimilar",
         "unproven")


def run(name: str, seeds: list[int], images: common.Images) -> None:
    """Compute what is not yet there, and write the table of one data set."""
    s = SETTINGS[name]
    rows, ranges = [], []
    networks = [common.load_trained(s, STORE, name, seed, images) for seed in (*seeds, seeds[-1] + 1)]
    for k, seed in enumerate(seeds):
        for kind, target in (("itself", None), ("the next seed", networks[k + 1])):
            result = suture.compare(networks[k], target, images.fit, images.held_out, sites=s["sites"],
                                    tlm=s["tlm"], indices="cka_debiased", device="cpu", seed=seed,
                                    ood=OOD(()), names=(f"seed {seed}", f"seed {seed + bool(target)}"),
                                    save_to=STORE / f"{name}-{seed}-{kind.replace(' ', '-')}")
            print(result.findings(), flush=True)
            rows += _cells(result, seed, kind)
            ranges.append(result.natural_range().assign(seed=seed, into=kind))
        pd.DataFrame(rows).to_csv(HERE / f"distance-{name}-cells.csv", index=False, float_format="%.4g")
        pd.concat(ranges).to_csv(HERE / f"distance-{name}-ranges.csv", index=False, float_format="%.4g")


def _cells(result: suture.Comparison, seed: int, into: str) -> list[dict[str, Any]]:
    """Return one row for each cell and method."""
    rows = []
    for method in ("dm", "tlm"):
        words, marks = result.cells(method), result.marks(f"{method}.relative_accuracy")
        for source in result.sources:
            for target in result.targets:
                values = {m: result.matrix(f"{method}.{m}").loc[source, target] for m in (
                    "relative_accuracy", "natural_distance", "informational_residual", "strict_residual")}
                rows.append({"seed": seed, "into": into, "method": method, "source": source, "target": target,
                             **values, "verdict": words.loc[source, target],
                             "marked": bool(marks.loc[source, target]),
                             "n_fit": result.meta["n_fit"], "n_test": result.meta["n_test"]})
    return rows


def page() -> None:
    """Write the tables of every data set that was run between the markers of docs/distance.md."""
    parts = []
    for name, s in SETTINGS.items():
        if (HERE / f"distance-{name}-cells.csv").exists():
            cells, ranges = (pd.read_csv(HERE / f"distance-{name}-{what}.csv")
                             for what in ("cells", "ranges"))
            seeds = ", ".join(map(str, sorted(cells.seed.unique())))
            parts += [f"### {name}", "", f"`{s['network']}`, seeds {seeds}, n = {cells.n_fit[0]} fitting and "
                      f"{cells.n_test[0]} test images, ranges and distances on 200 of them.", "",
                      *_write_ranges(ranges), "", *_write_verdicts(cells), ""]
    common.fill(HERE / "distance.md", parts, "distance.py")


def _write_ranges(ranges: pd.DataFrame) -> list[str]:
    """Return the table of the radii by site, in the order of seeds."""
    lines = ["| site | inner radius | set by | outer radius | set by | outer without that kind |",
             "|---" * 6 + "|"]
    own = ranges[ranges.into == "itself"]
    whole = own[own.range == "built-in shifts"]
    for site, of in whole.groupby("site", sort=False):
        less = [own[(own.seed == row.seed) & (own.site == site) & (own.range == f"without {row.outer_shift}")]
                for row in of.itertuples()]
        lines.append(f"| {site} | {_list(of.inner)} | {', '.join(dict.fromkeys(of.inner_shift))} | "
                     f"{_list(of.outer)} | {', '.join(dict.fromkeys(of.outer_shift))} | "
                     f"{_list(pd.concat(less).outer)} |")
    return lines


def _list(values: pd.Series[float]) -> str:
    return ", ".join(f"{v:.2f}" for v in values)


def _write_verdicts(cells: pd.DataFrame) -> list[str]:
    """Return the table of verdicts, in the order of seeds, and of distances of the cells that work."""
    lines = ["| into | by | " + " | ".join(WORDS)
             + " | marked | natural distance where it works, median (most) |",
             "|---" * (len(WORDS) + 4) + "|"]
    for (into, method), group in cells.groupby(["into", "method"], sort=False):
        counts = [", ".join(str(int((g.verdict == w).sum())) for _, g in group.groupby("seed"))
                  for w in WORDS]
        marked = ", ".join(str(int(g.marked.sum())) for _, g in group.groupby("seed"))
        far = group[~group.verdict.isin(["dissimilar", "unproven"]) & ~group.marked].natural_distance
        lines.append(f"| {into} | {method.upper()} | {' | '.join(counts)} | {marked} | "
                     f"{f'{np.median(far):.2f} ({far.max():.2f})' if len(far) else 'all are marked'} |")
    return lines


if __name__ == "__main__":
    common.main(__doc__, SETTINGS, run, page)
