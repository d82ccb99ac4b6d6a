"""Does task loss matching rank another layer above the layer itself, and does direct matching?
(convergence.md)

    python docs/convergence.py run digits
    python docs/convergence.py run cifar10 --data FOLDER     # Parquet with images and labels; needs pyarrow
    python docs/convergence.py page                          # the page and its figures from the tables

For each seed a network is trained and stitched to itself: direct matching once, task loss matching from
random, direct matching's and identity initialisation for 1, 5 and 30 epochs. What was computed is kept in
``docs/.convergence`` and not computed again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import torch

import common
import suture
from common import HERE
from suture import TaskRecipe, zoo
from suture.networks.training import Recipe

STORE = HERE / ".convergence"
EPOCHS, INITS = (1, 5, 30), ("random", "dm", "identity")
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {"network": "resnet_digits", "sites": None, "fit": 1297, "test": 500, "batch": 64, "lr": 1e-2,
               "base": None, "flip": False},
    "cifar10": {"network": "resnet20_strided", "sites": ["layer1.0", "layer1.2", "layer2.1", "layer3.1"],
                "fit": 512, "test": 1000, "batch": 64, "lr": 1e-2, "flip": False,
                "base": Recipe(epochs=8, batch_size=64, lr=1e-2, schedule="onecycle", crop=2, flip=True)},
}


def run(name: str, seeds: list[int], images: common.Images) -> None:
    """Compute what is not yet there, and write the table of one data set."""
    s = SETTINGS[name]
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        network = common.load_trained(s, STORE, name, seed, images)
        for init in INITS:
            for epochs in EPOCHS:
                recipe = TaskRecipe(epochs=epochs, batch_size=s["batch"], lr=s["lr"], init=init, seed=seed)
                rows += one(name, seed, network, images.fit, images.held_out, s["sites"], recipe)
        pd.DataFrame(rows).to_csv(HERE / f"convergence-{name}.csv", index=False, float_format="%.4f")


def one(name: str, seed: int, network: torch.nn.Module, fit: zoo.ImageSet, test: zoo.ImageSet, sites: Any,
        recipe: TaskRecipe) -> list[dict[str, Any]]:
    """One comparison, or what is kept of it: a row for each method."""
    place = STORE / f"{name}-{seed}-{recipe.init}-{recipe.epochs}"
    if not place.exists():
        found = suture.compare(network, None, fit, test, sites=sites, tlm=recipe, indices=(), ood=None,
                               device="cpu", seed=seed)
        found.save(place)
    result = suture.load(place)
    print(f"  {recipe.init}, {recipe.epochs} epochs: {result.meta['notes']}", flush=True)
    # The page counts what half-trained grids show, which verdicts do not claim: without marks.
    table = replace(result, table=result.table.assign(mark="")).verdict().table.set_index("measure")
    rows = []
    for method in ("dm", "tlm"):
        verdict, values = (table.loc[f"{method}.relative_accuracy"],
                           result.matrix(f"{method}.relative_accuracy"))
        late = values.iloc[-(len(values) // 3):, :len(values) // 3].to_numpy()
        marks = result.marks(f"{method}.relative_accuracy").to_numpy()
        rows.append({"data": name, "seed": seed, "method": method, "init": recipe.init, "epochs":
                     recipe.epochs, "layers": verdict["layers"], "another above": verdict["violated"],
                     "beyond noise": verdict["beyond_noise"], "margin": verdict["worst_margin"],
                     "own layers": np.diag(values).mean(), "least own layer": np.diag(values).min(),
                     "late into early": late.mean(), "marked": int((marks != "").sum()), "cells": values.size,
                     "residual": float(np.median(result.matrix(f"{method}.residual"))),
                     "accuracy": result.meta["target_accuracy"], "n_fit": len(fit), "n_test": len(test)})
    return rows


def curves(name: str, seeds: list[int]) -> None:
    """Training accuracy of own-layer and of late-into-early cells, epoch by epoch, one line for each seed."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(INITS), figsize=(10, 3), sharey=True, layout="constrained")
    for ax, init in zip(axes, INITS, strict=True):
        for seed in seeds:
            result = suture.load(STORE / f"{name}-{seed}-{init}-{max(EPOCHS)}")
            accuracy = result.arrays["tlm.train_accuracy"]
            k, part = len(accuracy), len(accuracy) // 3
            own = accuracy[range(k), range(k)].mean(0)
            late = accuracy[-part:, :part].mean((0, 1))
            epochs = np.arange(1, len(own) + 1)
            ax.plot(epochs, own, color="#1b6ca8", label="own layer" if seed == seeds[0] else None)
            ax.plot(epochs, late, color="#c8553d", label="late into early" if seed == seeds[0] else None)
        ax.set(title=f"{init} initialisation", xlabel="epoch", ylim=(0, 1.02))
    axes[0].set_ylabel("training accuracy")
    axes[0].legend(frameon=False)
    figure.savefig(HERE / f"convergence-{name}.png", dpi=110)
    plt.close(figure)


def page() -> None:
    """Tables and figures of every data set that was run, between the markers of docs/convergence.md."""
    parts = []
    for name in SETTINGS:
        source = HERE / f"convergence-{name}.csv"
        if not source.exists():
            continue
        table = pd.read_csv(source)
        curves(name, sorted(table["seed"].unique()))
        dm = table[table.method == "dm"].drop_duplicates("seed").assign(init="closed form", epochs="")
        tlm = table[table.method == "tlm"]
        s, first = SETTINGS[name], table.iloc[0]
        parts += [f"### {name}", "",
                  f"`{s['network']}`, seeds {', '.join(map(str, sorted(table.seed.unique())))} (test "
                  f"accuracy {', '.join(f'{a:.3f}' for a in dm.accuracy)}), {first.layers} sites, n = "
                  f"{first.n_fit} fitting and {first.n_test} test images; TLM with Adam at {s['lr']}, batch "
                  f"{s['batch']}, constant rate.", "",
                  _table(pd.concat([dm, tlm])), "", f"![{name}: learning curves](convergence-{name}.png)", ""]
    common.fill(HERE / "convergence.md", parts, "convergence.py")


def _table(rows: pd.DataFrame) -> str:
    """One line for each method, initialisation and number of epochs; seeds side by side."""
    lines = ["| | epochs | another layer above (beyond noise), of the layers | own layers, mean | late into "
             "early | median residual | marked cells |", "|---|---|---|---|---|---|---|"]
    for (method, init, epochs), group in rows.groupby(["method", "init", "epochs"], sort=False):
        def each(column: str, form: str = "{:.2f}", group: pd.DataFrame = group) -> str:
            return ", ".join(form.format(v) for v in group.sort_values("seed")[column])

        above = ", ".join(f"{int(a)} ({int(b)})" for a, b in
                          group.sort_values("seed")[["another above",
                                                     "beyond noise"]].itertuples(index=False))
        marked = "" if method == "dm" else each("marked", "{:.0f}") + f" of {group.cells.iloc[0]}"
        lines.append(f"| {method.upper()}, {init} | {epochs} | {above}, of {group.layers.iloc[0]} "
                     f"| {each('own layers')} | {each('late into early')} | {each('residual')} | {marked} |")
    return "\n".join(lines)


if __name__ == "__main__":
    common.main(__doc__, SETTINGS, run, page)
