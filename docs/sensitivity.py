"""Which deletion of principal components does a measure notice, and which one changes a probe?
(sensitivity.md)

    python docs/sensitivity.py run digits
    python docs/sensitivity.py run tlm           # one site, which task loss matching trains at every rank
    python docs/sensitivity.py run alignments    # which alignment finds corresponding layers
    python docs/sensitivity.py page              # the page and its figure from the tables

Networks and comparisons are kept in ``docs/.sensitivity`` and not computed again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn

import common
import suture
from common import HERE
from suture import TaskRecipe
from suture.networks import ViT, train
from suture.networks.training import Recipe
from suture.studies import ProbeRecipe, Sensitivity, rank_alignments

STORE = HERE / ".sensitivity"
SEEDS = range(5)
SITES = ["layer1.1", "layer2.1", "layer3.1"]
INDICES = ["cka", "cka@pool", "cka@flatten", "cka_debiased", "cka_debiased@pool", "pwcca", "pwcca_target",
           "opd", "opd@pool", "svcca", "r2", "rsa_spearman@pool"]
SHOWN = ["cka", "cka@flatten", "opd", "pwcca", "dm.relative_accuracy", "dm.residual"]
PROBE = ProbeRecipe(epochs=40, lr=1e-2, drop=20)
TLM = TaskRecipe(epochs=20, batch_size=64, lr=1e-2)
ALIGNED = ["cka", "cka@pool", "cka@flatten", "cka@within", "cka_debiased", "cka_debiased@pool", "opd",
           "opd@pool", "pwcca", "pwcca@pool", "r2", "r2@pool"]
LEARNT = Recipe(epochs=40, batch_size=64, lr=3e-3, schedule="onecycle")


class Patches(nn.Module):
    """A small transformer on the 16 patches of a digit."""

    def __init__(self) -> None:
        super().__init__()
        self.body = ViT(4, 16, 10, dim=32, depth=6, heads=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(nn.functional.unfold(x, 2, stride=2).transpose(1, 2))


def make_mlp() -> nn.Module:
    """Six hidden layers on the 64 pixels."""
    layers: list[nn.Module] = [nn.Flatten()]
    layers += [nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(6)]
    return nn.Sequential(*layers, nn.Linear(64, 10))


KINDS: dict[str, tuple[Callable[[], nn.Module] | None, list[str] | None]] = {
    "ResNet": (None, None), "ViT": (Patches, [f"body.blocks.{k}" for k in range(6)]),
    "MLP": (make_mlp, [str(k) for k in range(1, 7)])}


def load(kind: str, seed: int) -> nn.Module:
    """A trained network, or the kept one."""
    make, _ = KINDS[kind]
    images = common.read_images("digits", None, 0, 1297, 500)
    if make is None:
        return common.load_trained({"network": "resnet_digits", "base": None}, STORE, "digits", seed, images)
    place = STORE / f"{kind}-{seed}.pt"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = make()
    if not place.exists():
        train(network, images.base.inputs, images.base.labels, LEARNT)
        torch.save(network.state_dict(), place)
    network.load_state_dict(torch.load(place, weights_only=True))
    return network.eval()


def run_digits() -> Sensitivity:
    """The test on five ResNets, or what is kept of it."""
    images = common.read_images("digits", None, 0, 1297, 500)
    networks = {f"seed {k}": load("ResNet", k) for k in SEEDS}
    found = suture.sensitivity(networks, images.fit, images.held_out, sites=SITES, indices=INDICES,
                               probe=PROBE, device="cpu", folder=STORE / "digits", progress=show)
    found.table.to_csv(HERE / "sensitivity-digits.csv", index=False, float_format="%.4f")
    return found


def run_tlm() -> Sensitivity:
    """The test of task loss matching at one site and on fewer images, or what is kept of it."""
    images = common.read_images("digits", None, 0, 400, 500)
    networks = {f"seed {k}": load("ResNet", k) for k in SEEDS}
    return suture.sensitivity(networks, images.fit, images.held_out, sites=SITES[1:2], indices=["cka"],
                              methods=["dm", "tlm"], tlm=TLM, probe=PROBE, device="cpu",
                              folder=STORE / "tlm", progress=show)


def show(stage: str, done: int, total: int | None) -> None:
    """Say which network is done."""
    if stage in ("networks", "pairs"):
        print(f"  {stage}: {done} of {total}", flush=True)


def run_alignments() -> None:
    """The studies of three kinds of networks, without stitching."""
    images = common.read_images("digits", None, 0, 1297, 500)
    studies = {}
    for kind, (_, sites) in KINDS.items():
        networks = {f"seed {k}": partial(load, kind, k) for k in SEEDS}
        studies[kind] = suture.study(networks, images.fit, sites=sites, methods=[], indices=ALIGNED,
                                     device="cpu", pairs="directed", folder=STORE / f"alignments-{kind}")
    table = rank_alignments(studies)
    table.to_csv(HERE / "sensitivity-alignments.csv", index=False, float_format="%.4f")
    print(table.to_string())


def page() -> None:
    """The tables between the markers of docs/sensitivity.md, and its figure."""
    found = run_digits()
    found.plot(SHOWN).savefig(HERE / "sensitivity-digits.png", dpi=100)
    accuracy = found.probes[found.probes["rank"] == found.probes["width"]].groupby("site")["accuracy"].mean()
    parts = ["### Five ResNets on the digits", "",
             f"`resnet_digits`, seeds 0 to 4, 1297 fitting and 500 test images; probes of the whole width "
             f"reach {', '.join(f'{a:.3f} at {site}' for site, a in accuracy.items())}.", "",
             *tabulate_measures(found), "", "![curves](sensitivity-digits.png)", "",
             "### Task loss matching", "", *tabulate_ranks(run_tlm()), "",
             "### Which alignment finds the corresponding layer", "", *tabulate_alignments(), ""]
    common.fill(HERE / "sensitivity.md", parts, "sensitivity.py")


def tabulate_measures(found: Sensitivity) -> list[str]:
    """One line for each measure: what it notices, and its rank correlation with the probe."""
    lines = ["| measure | deleted when it exceeds the seeds' median, of the width | deleted when the probe "
             "changes | no later than the probe: median | 95 % | Spearman with the probe |",
             "|---|---|---|---|---|---|"]
    table = found.table.set_index(["measure", "test"])
    for measure in found.measures:
        mine = found.detection[found.detection.measure == measure]
        mine = mine[mine.threshold == "median"]
        shares = [table.loc[(measure, f"sensitivity ({level})")] for level in ("median", "95 %")]
        rho = table.loc[(measure, "sensitivity (Spearman)")]
        unknown = int(mine.reason.str.startswith("other networks").sum())
        never = int(mine["rank"].isna().sum()) - unknown
        shown = "none" if never + unknown == len(mine) else f"{(mine.deleted / mine.width).median():.2f}"
        words = ", ".join(f"{word} in {n}" for word, n in (("never", never), ("not known", unknown)) if n)
        lines.append(f"| `{measure}` | {shown}{f' ({words} of {len(mine)})' if words else ''} "
                     f"| {(mine.probe_deleted / mine.width).median():.2f} | "
                     + " | ".join(f"{s.effect:.2f} (p = {s.p:.2g})" for s in shares)
                     + (f" | {rho.effect:.2f} ({rho.low:.2f} to {rho.high:.2f}) |" if rho.n
                        else f" | none: {rho.reason} |"))
    return lines


def tabulate_ranks(found: Sensitivity) -> list[str]:
    """One line for each rank: means over networks, in brackets how many values are marked."""
    names = ["dm.relative_accuracy", "tlm.relative_accuracy", "dm.residual", "tlm.residual"]
    ranks = sorted(found.curves["rank"].unique(), reverse=True)
    lines = [f"| rank | probe | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for rank in ranks:
        probe = found.probes[found.probes["rank"] == rank]["accuracy"].mean()
        cells = []
        for name in names:
            of = found.curves[(found.curves["rank"] == rank) & (found.curves.measure == name)]
            marked = int((of["mark"] != "").sum())
            cells.append(f"{of.value.mean():.2f}{f' ({marked} of {len(of)} marked)' if marked else ''}")
        lines.append(f"| {rank} | {probe:.2f} | {' | '.join(cells)} |")
    spread = found.spread.set_index("measure").loc[names, "median"]
    return [*lines, f"| other seeds, median | | {' | '.join(f'{v:.2f}' for v in spread)} |"]


def tabulate_alignments() -> list[str]:
    """One line for each index and alignment, kinds of networks side by side."""
    table = pd.read_csv(HERE / "sensitivity-alignments.csv")
    kinds = list(dict.fromkeys(table["kind"]))
    lines = [f"| index | {' | '.join(kinds)} |", f"|---|{'---|' * len(kinds)}"]
    for (index, alignment), of in table.groupby(["index", "alignment"], sort=False):
        cells = []
        for kind in kinds:
            row = of[of.kind == kind].iloc[0]
            text = f"{row.share:.2f} ({row.low:.2f} to {row.high:.2f})"
            cells.append(f"**{text}**" if row.best else text)
        lines.append(f"| `{index}{'' if alignment == 'stitch' else '@' + alignment}` | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    if sys.argv[1:] == ["run", "digits"]:
        run_digits()
    elif sys.argv[1:] == ["run", "tlm"]:
        run_tlm()
    elif sys.argv[1:] == ["run", "alignments"]:
        run_alignments()
    elif sys.argv[1:] == ["page"]:
        page()
    else:
        sys.exit(__doc__)
