"""How often is a verdict wrong, and how often is it unproven? Measured on controls with known answers.

    python checks/error_rates.py --out FOLDER [--only digits_resnet/0]    # networks, then their cells

Small networks of five families are trained (digits: a ResNet, a ViT, an MLP; CIFAR-10, if it is there: a
ResNet; a synthetic language: a text encoder), several seeds each. Every cell of the truth table
(docs/controls.md) is measured on each of them: altered native representations and mild natural shifts
(`suture.controls.grade`), and source networks by direct matching, and class noise also by task loss
matching. Cells are saved network by network, with all numbers that a verdict rests on, and a run goes on
where it was stopped. `checks/error_rates_report.py` counts them.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import suture
from suture import controls, zoo
from suture.compare import ExampleRows
from suture.networks import Recipe, ResNet, ViT, train
from suture.ood import NaturalRange, Outcome, RangeSearch
from suture.results.standing import find_standing
from suture.results.verdicts import judge_cells
from suture.studies.controls import grading

CIFAR = Path("/work/shared/data/cifar10")
TLM = suture.TaskRecipe(epochs=6, batch_size=64, lr=1e-2)
CELL = {
    "control": "",
    "strength": math.nan,
    "detail": "",
    "method": "",
    "source": "",
    "site": "",
    "kind": "",
    "last": False,
}
GROUPINGS: dict[str, Callable[[Outcome], Tensor]] = {
    "_predicted": lambda of: of.classes,
    "_both": lambda of: 1000 * (of.classes if of.labels is None else of.labels) + of.classes,
}
"""Other classes than the labels for residuals: predictions, and labels with predictions."""
ESTIMATES = (
    "works",
    "distance",
    "inner",
    "outer",
    *(f"{e}{g}" for e in ("free", "strict") for g in ("", *GROUPINGS)),
)
NUMBERS = [
    *(f"{e}{end}" for e in ESTIMATES for end in ("", "_low", "_high")),
    "p",
    *(f"p{g}" for g in GROUPINGS),
    "trivial",
]
COLUMNS = ["network", "seed", "accuracy", *CELL, *NUMBERS, "open_ended", "native", "mark", "verdict", "truth"]


class DeepMLP(nn.Module):
    """Hidden layers of 64 ReLUs: (N, 64) -> logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(4))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class PatchViT(nn.Module):
    """A small ViT on 2x2 patches of 8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = ViT(4, 16, 10, dim=48, depth=4, heads=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.vit(F.unfold(x, 2, stride=2).transpose(1, 2))


class TextEncoder(nn.Module):
    """A small transformer encoder on token ids with a mask; logits from the mean of the tokens."""

    def __init__(self, words: int = 60, dim: int = 48, classes: int = 8) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, dim), nn.Embedding(32, dim)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, 4, 96, 0.0, batch_first=True, norm_first=True) for _ in range(3)
        )
        self.head = nn.Linear(dim, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.words(input_ids) + self.places.weight[: input_ids.shape[1]]
        for block in self.blocks:
            x = block(x, src_key_padding_mask=attention_mask == 0)
        kept = attention_mask[..., None].to(x)
        return self.head((x * kept).sum(1) / kept.sum(1))


class Bundle(nn.Module):
    """Several source networks as one, so that one comparison measures all of them."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return torch.stack([part(*inputs, **named) for part in self.parts]).sum(0)


def draw_texts(n: int, seed: int) -> dict[str, Tensor]:
    """Draw texts of 8 to 16 words: a third of them are from the class's own five words, the rest from all."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 8
    own = 20 + 5 * labels[:, None] + torch.randint(5, (n, 16), generator=g)
    ids = torch.where(torch.rand(n, 16, generator=g) < 0.35, own, 1 + torch.randint(59, (n, 16), generator=g))
    mask = (torch.arange(16) < torch.randint(8, 17, (n, 1), generator=g)).long()
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def train_texts(network: nn.Module, data: dict[str, Tensor], seed: int, epochs: int = 12) -> None:
    """Train the text encoder with Adam and cross-entropy."""
    g, labels = torch.Generator().manual_seed(seed), data["labels"]
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=g).split(64):
            loss = F.cross_entropy(
                network(data["input_ids"][rows], data["attention_mask"][rows]), labels[rows]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@dataclass(frozen=True)
class Family:
    """One architecture on one task.

    Attributes:
        data: returns (training data, test data), in a form of `suture.compare`.
        make: returns an untrained network.
        fit: trains it: (network, training data, seed).
        sites: of the networks.
        seeds: number of networks.
        recipe: for training on random labels; None to leave that out.
    """

    data: Callable[[], tuple[Any, Any]]
    make: Callable[[], nn.Module]
    fit: Callable[[nn.Module, Any, int], None]
    sites: tuple[str, ...]
    seeds: int
    recipe: Recipe | None


def fit_by(recipe: Recipe) -> Callable[[nn.Module, Any, int], None]:
    """Return a function that trains by a recipe."""
    return lambda network, data, seed: void(train(network, *data, replace(recipe, seed=seed)))


def void(_: object) -> None:
    """Return nothing."""


def read_digits(flat: bool) -> tuple[Any, Any]:
    """Return the digits as images or vectors."""
    return tuple(
        (x.flatten(1) if flat else x, y) for x, y in (zoo.digits(part).tensors for part in ("train", "test"))
    )


def read_cifar() -> tuple[Any, Any]:
    """Return 5,000 training and 400 test images of CIFAR-10, normalised."""

    def read(part: str, n: int) -> tuple[Tensor, Tensor]:
        import io

        from PIL import Image

        table = pd.read_parquet(next(iter(sorted(CIFAR.rglob(f"*{part}*.parquet"))))).iloc[:n]
        x = np.stack(
            [np.asarray(Image.open(io.BytesIO(one["bytes"])).convert("RGB")) for one in table["img"]]
        )
        x = torch.tensor(x).permute(0, 3, 1, 2).float() / 255
        return (x - 0.47) / 0.25, torch.tensor(table["label"].to_numpy())

    return read("train", 5000), read("test", 400)


def read_texts() -> tuple[Any, Any]:
    """Return the synthetic language."""
    return draw_texts(1500, 1), draw_texts(500, 2)


QUICK = Recipe(epochs=8, batch_size=64, lr=1e-2, schedule="onecycle", crop=1)
VECTORS = Recipe(epochs=25, batch_size=64, lr=3e-3, schedule="onecycle")
FAMILIES: dict[str, Family] = {
    "digits_mlp": Family(
        lambda: read_digits(True),
        DeepMLP,
        fit_by(VECTORS),
        tuple(f"layers.{k}" for k in range(4)),
        6,
        VECTORS,
    ),
    "texts": Family(read_texts, TextEncoder, train_texts, tuple(f"blocks.{k}" for k in range(3)), 6, None),
    "digits_vit": Family(
        lambda: read_digits(False),
        PatchViT,
        fit_by(replace(VECTORS, lr=2e-3)),
        tuple(f"vit.blocks.{k}" for k in range(4)),
        6,
        None,
    ),
    "digits_resnet": Family(
        lambda: read_digits(False),
        lambda: zoo.build("resnet_digits"),
        fit_by(QUICK),
        ("layer1.0", "layer2.0", "layer3.0", "layer3.1"),
        6,
        None,
    ),
    "cifar_resnet": Family(
        read_cifar,
        lambda: ResNet((12, 24, 48), (1, 1, 1), (1, 2, 2)),
        fit_by(Recipe(epochs=10, batch_size=64, lr=1e-2, schedule="onecycle", crop=2, flip=True)),
        tuple(f"layer{s}.0" for s in (1, 2, 3)),
        4,
        None,
    ),
}


def get_network(name: str, seed: int, out: Path) -> nn.Module:
    """Train a network, or read it if it was trained before."""
    family, place = FAMILIES[name], out / f"{name}-{seed}.pt"
    torch.manual_seed(seed)
    network = family.make()
    controls_seed = controls.random_weights(network, seed) if name == "digits_resnet" else network
    network.load_state_dict(controls_seed.state_dict())
    if place.exists():
        network.load_state_dict(torch.load(place, weights_only=True))
    else:
        family.fit(network, family.data()[0], seed)
        torch.save(network.state_dict(), place)
    return network.eval()


def take(data: Any, n: int) -> Any:
    """Return the first n examples."""
    return {k: v[:n] for k, v in data.items()} if isinstance(data, dict) else tuple(t[:n] for t in data)


def get_inputs(data: Any) -> Any:
    """Return a few inputs of a network."""
    few = take(data, 8)
    return {k: v for k, v in few.items() if k != "labels"} if isinstance(few, dict) else few[0]


def measure(name: str, seed: int, out: Path, brief: bool = False) -> pd.DataFrame:
    """Measure all cells of one network; a brief run leaves out the source networks."""
    family, network, (fit, test) = FAMILIES[name], get_network(name, seed, out), FAMILIES[name].data()
    started, found = time.perf_counter(), list[pd.DataFrame]()
    kept: list[tuple[NaturalRange, list[str]]] = []
    find = RangeSearch.find

    def find_once(self: RangeSearch, *args: Any, **named: Any) -> NaturalRange:
        names = [str(site) for site in self.target.sites]
        if not kept:
            kept.append((find(self, *args, **named), names))
        whole, known = kept[0]
        return replace(
            whole,
            kinds=tuple(
                replace(k, distances=tuple(k.distances[known.index(n)] for n in names)) for k in whole.kinds
            ),
        )

    others: dict[str, dict[tuple[int, int], dict[str, Any]]] = {}
    plain = ExampleRows.measure

    def measure_all(self: ExampleRows, method: str, fitted: Any) -> Any:
        for end, classes in GROUPINGS.items():
            with mock.patch.object(Outcome, "find_classes", lambda of, c=classes: (c(of), "labels")):
                rows, more = plain(ExampleRows(self.setup, self.range.as_record()), method, fitted)
            for row in rows:
                cell = others.setdefault(method, {}).setdefault((row.i, row.j), {})
                name = {
                    f"{method}.informational_residual": "free",
                    f"{method}.strict_residual": "strict",
                }.get(row.measure)
                if name:
                    cell |= {
                        f"{name}{end}": row.value.value,
                        f"{name}{end}_low": row.value.low,
                        f"{name}{end}_high": row.value.high,
                    }
            for i, j in np.ndindex(self.setup.shape):
                others[method].setdefault((i, j), {})[f"p{end}"] = more.arrays[f"{method}.residual_p"][i, j]
        return plain(self, method, fitted)

    # The range is that of the same network on the same examples in all of these comparisons.
    with (
        mock.patch.object(RangeSearch, "find", find_once),
        mock.patch.object(ExampleRows, "measure", measure_all),
        mock.patch.dict(grading.GROUPINGS, GROUPINGS),
    ):
        found.append(read_grades(controls.grade(network, fit, test, list(family.sites), seed=seed)))
        note(name, seed, "graded", started)
        if brief:
            return finish(name, seed, found)
        parts, labels = make_sources(name, seed, out, network, get_inputs(fit))
        sources = [f"parts.{k}.{site}" for k, site, _ in labels]
        common: dict[str, Any] = {
            "target_sites": list(family.sites),
            "indices": (),
            "ood": suture.OOD(()),
            "seed": seed,
            "allow_bypass": True,
        }
        made = suture.compare(Bundle(parts), network, fit, test, sites=sources, methods=["dm"], **common)
        found.append(read_cells(made, "dm", labels, family.sites, others["dm"]))
        note(name, seed, "direct matching", started)
        made = suture.compare(
            network,
            network,
            controls.permuted_examples(fit, seed),
            controls.permuted_examples(test, seed),
            sites=list(family.sites),
            methods=["dm"],
            **common,
        )
        found.append(
            read_cells(
                made, "dm", [(0, s, "permuted examples") for s in family.sites], family.sites, others["dm"]
            )
        )
        noise = next(k for k, (_, _, control) in enumerate(labels) if control == "class noise")
        part, site, _ = labels[noise]
        ends = (family.sites[0], family.sites[-1])
        made = suture.compare(
            parts[part],
            network,
            take(fit, 640),
            test,
            sites=[site],
            methods=["tlm"],
            tlm=TLM,
            **common | {"target_sites": list(ends)},
        )
        found.append(read_cells(made, "tlm", [(part, site, "class noise")], ends, others["tlm"]))
        note(name, seed, "task loss matching", started)
    return finish(name, seed, found)


def finish(name: str, seed: int, found: list[pd.DataFrame]) -> pd.DataFrame:
    """Join the cells of a network, with its name and its accuracy on classes of equal size."""
    table = pd.concat(found, ignore_index=True)
    share = 1 / (8 if name == "texts" else 10)
    return table.assign(network=f"{name}/{seed}", seed=seed, accuracy=share / table["trivial"].iloc[0])


def note(name: str, seed: int, what: str, started: float) -> None:
    """Say how far a network is."""
    sys.stderr.write(
        f"{time.strftime('%H:%M:%S')} {name}/{seed}: {what}, {time.perf_counter() - started:.0f} s\n"
    )


def make_sources(
    name: str, seed: int, out: Path, network: nn.Module, inputs: Any
) -> tuple[list[nn.Module], list[tuple[int, str, str]]]:
    """Make the source networks, and name (part, site, control) of each of their sites."""
    family, parts, labels = FAMILIES[name], list[nn.Module](), list[tuple[int, str, str]]()

    def add(part: nn.Module, control: str, sites: tuple[str, ...]) -> None:
        labels.extend((len(parts), site, control) for site in sites)
        parts.append(part)

    sites = family.sites
    middle = sites[len(sites) // 2]
    for site in dict.fromkeys((middle, sites[-1])):
        noise = controls.class_noise(network, inputs, site, seed=seed)
        add(noise, "class noise", (noise.site,))
    other = get_network(name, (seed + 2) % family.seeds, out)  # of the same half: halves share no network
    noise = controls.class_noise(other, inputs, middle, seed=seed)
    add(noise, "class noise of another", (noise.site,))
    nothing = controls.pure_noise(network, inputs, middle, seed=seed)
    add(nothing, "pure noise", (nothing.site,))
    add(controls.rotated(network, inputs, middle, seed=seed), "rotated copy", (middle,))
    add(other, "two seeds", sites)
    add(controls.random_weights(network, 100 + seed), "random weights", sites)
    if family.recipe is not None:
        add(
            controls.random_labels(network, family.data()[0], replace(family.recipe, epochs=15), seed=seed),
            "random labels",
            sites,
        )
    return parts, labels


def read_cells(
    result: suture.Comparison,
    method: str,
    labels: list[tuple[int, str, str]],
    sites: tuple[str, ...],
    others: dict[tuple[int, int], dict[str, Any]],
) -> pd.DataFrame:
    """Return the cells with a truth as rows: noise into all sites, the rest at one depth."""
    by, words = find_standing(result).criteria[method], judge_cells(result, method).words
    found = NaturalRange.from_record(result.meta["ood"]["range"])
    names = {
        "works": f"{method}.{by.quantity}",
        "free": f"{method}.informational_residual",
        "strict": f"{method}.strict_residual",
    }
    ends = {
        (e, end): result.matrix(measure, end or "value").to_numpy()
        for e, measure in names.items()
        for end in ("", "low", "high")
    }
    marks, r2 = result.marks(names["works"]).to_numpy(), result.matrix(f"{method}.r2").to_numpy()
    rows = []
    for i, (_, site, control) in enumerate(labels):
        everywhere = "noise" in control
        for j in range(len(sites)) if everywhere else [sites.index(site)]:
            row = CELL | {
                "control": control,
                "method": method,
                "source": site,
                "site": sites[j],
                "last": j == len(sites) - 1,
                "detail": f"from {site}",
            }
            row |= {f"{e}_{end}" if end else e: ends[e, end][i, j] for e, end in ends}
            row |= dict(
                zip(
                    ("distance", "distance_low", "distance_high"),
                    result.arrays[f"{method}.distance"][i, j],
                    strict=True,
                )
            )
            row |= read_radii(found, j) | others[i, j]
            row |= {
                "p": result.arrays[f"{method}.residual_p"][i, j],
                "trivial": by.trivial,
                "native": bool(r2[i, j] >= 1 - 1e-6),
                "mark": marks[i, j],
                "verdict": words.iloc[i, j],
            }
            rows.append(row)
    return pd.DataFrame(rows)


def read_radii(found: NaturalRange, j: int) -> dict[str, Any]:
    """Return the radii of a site with their intervals."""
    row: dict[str, Any] = {"open_ended": found.is_open(j)}
    for name, (e, _) in (("inner", found.find_inner(j)), ("outer", found.find_outer(j))):
        row |= {name: e.value, f"{name}_low": e.low, f"{name}_high": e.high}
    return row


def read_grades(graded: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `controls.grade` in the form of the cells."""
    of = {"relative_accuracy": "works"} | {
        f"{a}{g}": f"{b}{g}"
        for g in ("", *GROUPINGS)
        for a, b in (("informational_residual", "free"), ("strict_residual", "strict"))
    }
    last = graded["site"].iloc[-1]
    table = graded.rename(
        columns={f"{a}{end}": f"{b}{end}" for a, b in of.items() for end in ("", "_low", "_high")}
    )
    return table.assign(
        method="",
        source="",
        last=table["site"] == last,
        native=table["control"] == "identity",
        mark="",
        open_ended=False,
    )


def run(out: Path, only: list[str], brief: bool) -> None:
    """Measure all networks that have no file yet, the first seeds of all families first."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    wanted = [(name, seed) for seed in range(6) for name, f in FAMILIES.items() if seed < f.seeds]
    for name, seed in wanted:
        place = out / f"{name}-{seed}.csv"
        if place.exists() or (only and f"{name}/{seed}" not in only and name not in only):
            continue
        if name == "cifar_resnet" and not CIFAR.exists():
            sys.stderr.write("no CIFAR-10 here: cifar_resnet is left out\n")
            continue
        table = measure(name, seed, out, brief).reindex(columns=COLUMNS)
        table.to_csv(place.with_suffix(".part"), index=False, float_format="%.5g")
        place.with_suffix(".part").rename(place)


def main() -> int:
    """Measure the networks that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("error-rates"), help="folder of networks and cells")
    parser.add_argument(
        "--only", action="append", default=[], help="a family, or FAMILY/SEED; may be repeated"
    )
    parser.add_argument(
        "--brief", action="store_true", help="altered representations only, no source networks"
    )
    given = parser.parse_args()
    run(given.out, given.only, given.brief)
    return 0


if __name__ == "__main__":
    sys.exit(main())
