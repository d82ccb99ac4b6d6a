"""How far out of distribution are stitched representations, and which detectors can tell? (detectors.md)

    python docs/detectors.py run digits
    python docs/detectors.py run cifar10 --data FOLDER     # Parquet with images and labels; needs pyarrow
    python docs/detectors.py page                          # the tables of the page

For each seed a network is trained and stitched to itself by direct matching and by task loss matching until
it converges, with every detector of suture looking on, with and without a ReLU behind the stitching layer.
Each detector is also shown planted cases. What was computed is kept in ``docs/.ood`` and not computed again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

import common
import suture
from common import HERE
from suture import OOD, EnergyRecipe, TaskRecipe, zoo
from suture._base.hashing import fingerprint_network
from suture.data.batches import Batches
from suture.networks.calls import disable_gradients
from suture.networks.preparation import find_device, prepare
from suture.networks.sites import SitedNetwork
from suture.networks.training import Recipe
from suture.ood import DETECTORS, Detection, stack_scores, tabulate_scores
from suture.results.drawing import histograms
from suture.stitching.tasks import extract_logits

STORE = HERE / ".ood"
PLANTED = ("identity", "noise", "shrunken", "rotated")
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {"network": "resnet_digits", "sites": None, "fit": 1297, "test": 500, "base": None,
               "tlm": TaskRecipe(epochs=40, batch_size=64, lr=1e-2, schedule="cosine"),
               "energy": EnergyRecipe(epochs=15, tune_epochs=5, lr=1e-2, schedule="onecycle", crop=1)},
    "cifar10": {"network": "resnet20_strided", "sites": ["layer1.2", "layer2.1", "layer3.1"],
                "base_images": 20000, "fit": 3000, "test": 2000, "relu": (False,),
                "base": Recipe(epochs=8, batch_size=64, lr=1e-2, schedule="onecycle", crop=2, flip=True),
                "tlm": TaskRecipe(epochs=80, batch_size=50, lr=5e-3, schedule="cosine", patience=8), "energy":
                EnergyRecipe(epochs=6, tune_epochs=2, lr=1e-2, schedule="onecycle", crop=2, flip=True)},
}


def planted(x: Tensor, seed: int) -> Iterator[Tensor]:
    """The representations themselves; with as much noise as they spread, channel by channel; half as far from
    the mean; and turned about it by a random rotation of the channels."""
    axes = [k for k in range(x.ndim) if k != 1]
    mean, spread = x.mean(axes, keepdim=True), x.std(axes, keepdim=True)
    g = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(x.shape[1], x.shape[1], generator=g)).Q
    yield x
    yield x + spread * torch.randn(x.shape, generator=g)
    yield mean + (x - mean) / 2
    yield mean + torch.einsum("nc...,dc->nd...", x - mean, turn)


@torch.no_grad()
def try_planted(network: torch.nn.Module, fit: zoo.ImageSet, test: zoo.ImageSet, sites: Any, ood: OOD,
                seed: int) -> pd.DataFrame:
    """Every detector on the planted cases of every site."""
    device = find_device("cpu")
    target = SitedNetwork(prepare(network, fit.inputs[:4], device, "network"), fit.inputs[:4], sites)
    detection = Detection(ood, target, device, 100, seed, fingerprint_network(network), fit.tensors)
    fitting = detection.make_fitter()
    data = Batches(fit.tensors, size=100)
    with disable_gradients():
        for batch in data:
            fitting.update(target.front(batch.target), batch.labels)
        detection.finish(fitting, data)
        scoring = detection.make_collector()
        for batch in Batches(test.tensors, size=100):
            done = target.run_full(batch.target)
            for j, x in enumerate(target.pick_representations(done)):
                scoring.add(j, x, None, extract_logits(done.output))
                for k, other in enumerate(planted(x, seed)):
                    scoring.add((k, j), other, None, extract_logits(target.tail(j, other, done)))
    shape = len(PLANTED), len(target.sites)
    rows = tabulate_scores(stack_scores(scoring, "dm", shape), "dm", shape, ood.names, seed, {})
    found = [(PLANTED[k], str(target.sites[j]), *name.removeprefix("dm.").split("_", 1), e.value)
             for k, j, name, e, _ in rows]
    return pd.DataFrame(found, columns=["case", "site", "what", "detector", "value"]).assign(seed=seed)


def run(name: str, seeds: list[int], images: common.Images) -> None:
    """Compute what is not yet there, and write the tables of one data set."""
    s = SETTINGS[name]
    fit, held_out = images.fit, images.held_out
    cells, qualities, cases = [], [], []
    for seed in seeds:
        network = common.load_trained(s, STORE, name, seed, images)
        ood = OOD(tuple(DETECTORS), energy=s["energy"], store=STORE / "detectors", most=2000)
        for relu in s.get("relu", (False, True)):
            place = STORE / f"{name}-{seed}-{'relu' if relu else 'plain'}"
            if not place.exists():
                suture.compare(network, None, fit, held_out, sites=s["sites"], tlm=s["tlm"], indices=(),
                               device="cpu", relu=relu, ood=ood, seed=seed).save(place)
            result = suture.load(place)
            print(f"  {'relu' if relu else 'plain'}: {result.meta['notes']}", flush=True)
            cells.append(_cells(result).assign(seed=seed, relu=relu))
            if not relu:
                qualities.append(_quality(result).assign(seed=seed))
        kept = STORE / f"{name}-{seed}-planted.csv"
        if not kept.exists():
            try_planted(network, fit, held_out, s["sites"], ood, seed).to_csv(kept, index=False)
        cases.append(pd.read_csv(kept))
        for tables, what in ((cells, "cells"), (qualities, "quality"), (cases, "planted")):
            pd.concat(tables).to_csv(HERE / f"ood-{name}-{what}.csv", index=False, float_format="%.4f")
        (STORE / f"{name}.json").write_text(json.dumps({"n_fit": len(fit), "n_test": len(held_out)}))


def _cells(result: suture.Comparison) -> pd.DataFrame:
    """One row for each cell, method and detector."""
    rows = []
    for method in ("dm", "tlm"):
        words = result.cells(method).to_numpy()
        works, marks = (f(f"{method}.relative_accuracy").to_numpy() for f in (result.matrix, result.marks))
        for detector in DETECTORS:
            both, one = (result.matrix(f"{method}.{w}_{detector}").to_numpy() for w in ("ood", "auroc"))
            rows += [(method, detector, i, j, works[i, j], both[i, j], one[i, j], words[i, j],
                      bool(marks[i, j]))
                     for i, j in np.ndindex(works.shape)]
    return pd.DataFrame(rows, columns=["method", "detector", "i", "j", "relative_accuracy", "ood", "auroc",
                                       "verdict", "marked"])


def _quality(result: suture.Comparison) -> pd.DataFrame:
    return pd.DataFrame([{"detector": d, "site": s, **of}
                         for d, sites in result.meta["ood"]["quality"].items()
                         for s, of in zip(result.targets, sites, strict=True)])


# -- the page ------------------------------------------------------------------------------------------------

def page() -> None:
    """Tables of every data set that was run, between the markers of docs/detectors.md."""
    parts = []
    for name in SETTINGS:
        if not (HERE / f"ood-{name}-cells.csv").exists():
            continue
        cells, quality, cases = (pd.read_csv(HERE / f"ood-{name}-{w}.csv")
                                 for w in ("cells", "quality", "planted"))
        parts += [f"### {name}", "", _about(name, cells), "", *_detectors(cells, quality, cases), "",
                  *_distances(name, cells), "", *_rectified(cells), "",
                  f"![{name}: energies of native, auxiliary and stitched "
                  f"representations](ood-{name}-energy.png)", ""]
        histograms.draw_histograms(suture.load(STORE / f"{name}-0-plain"),
                                   "energy").savefig(HERE / f"ood-{name}-energy.png", dpi=90)
    common.fill(HERE / "detectors.md", parts, "detectors.py")


def _about(name: str, cells: pd.DataFrame) -> str:
    s, n = SETTINGS[name], json.loads((STORE / f"{name}.json").read_text())
    plain = cells[~cells.relu & (cells.detector == "mahalanobis") & (cells.method == "tlm")]
    own = plain[plain.i == plain.j].relative_accuracy
    patience = s["tlm"].patience
    until = f" at most, until {patience} brought no better held-out objective" if patience else ""
    return (f"`{s['network']}`, seeds {', '.join(map(str, sorted(cells.seed.unique())))}, "
            f"{plain.i.nunique()} sites, n = {n['n_fit']} fitting and {n['n_test']} test images. TLM: "
            f"{s['tlm'].epochs} epochs{until}, Adam at {s['tlm'].lr}, cosine; its own-layer cells reach "
            f"{own.min():.3f} to {own.max():.3f}, and {int(plain.marked.sum())} of {len(plain)} cells are "
            f"marked as not converged ({_unconverged(plain)}).")


def _unconverged(plain: pd.DataFrame) -> str:
    """Of which kind the cells are that have not converged: from an earlier into a later layer, or back, or
    own."""
    kinds = {"into later layers": plain.i < plain.j, "own layers": plain.i == plain.j,
             "into earlier layers": plain.i > plain.j}
    return ", ".join(f"{int((plain.marked & of).sum())} of {int(of.sum())} {name}"
                     for name, of in kinds.items())


def _detectors(cells: pd.DataFrame, quality: pd.DataFrame, cases: pd.DataFrame) -> list[str]:
    lines = ["Two-sided AUROC, median over sites or cells that have converged and seeds (in brackets the "
             "smallest and largest):", "",
             "| detector | auxiliary | unseen | planted: identity | noise | shrunken | rotated | DM, own "
             "layer | DM, other | TLM, own layer | TLM, other | rank correlation with energy: "
             "DM | TLM | both |",
             "|" + "---|" * 14]
    plain = cells[~cells.relu & ~cells.marked]
    for d in DETECTORS:
        mine, q, p = plain[plain.detector == d], quality[quality.detector == d], cases[cases.detector == d]
        row = [_range(q[k]) for k in ("auxiliary", "unseen")]
        row += [_range(p[(p.case == c) & (p.what == "ood")].value) for c in PLANTED]
        for method in ("dm", "tlm"):
            of = mine[mine.method == method]
            row += [_range(of[of.i == of.j].ood), _range(of[of.i != of.j].ood)]
        row += [_agreement(plain, d, methods) for methods in (["dm"], ["tlm"], ["dm", "tlm"])]
        lines.append(f"| {d} | " + " | ".join(row) + " |")
    return lines


def _agreement(plain: pd.DataFrame, detector: str, methods: list[str]) -> str:
    """Spearman correlation over cells with the trained detector, for each seed."""
    found = []
    for _, of in plain[plain.method.isin(methods)].groupby("seed"):
        wide = of.pivot_table(index=["method", "i", "j"], columns="detector", values="ood")
        if {detector, "energy"} <= set(wide) and (wide[[detector, "energy"]].std() > 0).all():
            found.append(f"{spearmanr(wide[detector], wide['energy']).statistic:.2f}")
    return ", ".join(found) or "–"


def _range(values: pd.Series[float]) -> str:
    v = values.dropna()
    return f"{v.median():.2f} ({v.min():.2f}–{v.max():.2f})" if len(v) else "–"


def _distances(name: str, cells: pd.DataFrame) -> list[str]:
    lines = ["Fréchet distance over the native variance, median over cells of other layers, by seed:", "",
             "| | all | shift | shrinkage | rotation | own layer |", "|---" * 6 + "|"]
    for method in ("dm", "tlm"):
        row: list[list[str]] = [[] for _ in range(5)]
        for seed in sorted(cells.seed.unique()):
            result = suture.load(STORE / f"{name}-{seed}-plain")
            parts = [result.matrix(f"{method}.frechet{p}").to_numpy()
                     for p in ("", "_shift", "_shrinkage", "_rotation")]
            other = ~np.eye(len(parts[0]), dtype=bool)
            for into, values in zip(row, [*(p[other] for p in parts), np.diag(parts[0])], strict=True):
                into.append(f"{np.median(values):.2f}")
        lines.append(f"| {method.upper()} | " + " | ".join(", ".join(r) for r in row) + " |")
    return lines


def _rectified(cells: pd.DataFrame) -> list[str]:
    if not cells.relu.any():
        return ["(Not computed with a ReLU.)"]
    lines = ["With and without a ReLU behind the stitching layer, cells of other layers, median:", "",
             "| | relative accuracy | with ReLU | AUROC (Mahalanobis) | with ReLU | AUROC (energy) | with "
             "ReLU | two-sided (energy) | with ReLU |", "|" + "---|" * 9]
    for method in ("dm", "tlm"):
        of = cells[(cells.method == method) & (cells.i != cells.j)]
        row = []
        for detector, column in (("mahalanobis", "relative_accuracy"), ("mahalanobis", "auroc"),
                                 ("energy", "auroc"), ("energy", "ood")):
            row += [f"{of[(of.detector == detector) & (of.relu == r)][column].median():.3f}"
                    for r in (False, True)]
        lines.append(f"| {method.upper()} | " + " | ".join(row) + " |")
    return lines


if __name__ == "__main__":
    common.main(__doc__, SETTINGS, run, page)
