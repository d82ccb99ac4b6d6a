"""D: what deviations from the published code change, measured on the networks of a scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Doc

from suture import specs
from suture._base import Count, options
from suture.data import Batch, Batches
from suture.indices import of_matrices
from suture.networks import capture, disable_gradients, run_tail
from suture.studies.experiments.claims import NetworkMean, Outcome
from suture.studies.experiments.experiment import Experiment, Part
from suture.studies.experiments.measures.deviations import DEVIATIONS
from suture.studies.experiments.measures.published_code import (
    compute_pwcca,
    cut_rows,
    fit_ours,
    fit_published,
)
from suture.studies.experiments.measures.trained_part import (
    RankOptions,
    list_sites,
    read_experiment,
    train_part,
)
from suture.studies.experiments.record import Found, Record
from suture.studies.network_study.call import run_study
from suture.studies.network_study.options import StudyOptions
from suture.studies.network_study.result import Study
from suture.studies.population.members import list_members
from suture.studies.probes import probe

if TYPE_CHECKING:
    import pandas as pd

ORDERS = ("pwcca@paper", "pwcca_target@paper")
_AT_ONCE = 250
"""Images of one forward pass."""


@options
class DeviationOptions(RankOptions):
    """What the file of D says: cuts and probes, and the numbers of images of pseudo-inverses.

    Attributes:
        {options}
    """

    images: Annotated[Sequence[Count], Doc(
        "Numbers of images that pseudo-inverses are fitted on.")] = (100, 2000)


class DeviationStudy(Experiment):
    """Deviations from the published code."""

    name, title = "D", "Deviations from the published code"
    question = "Where does suture compute something else than the published code, and what does it change?"

    def run(self, part: Part) -> Found:
        import pandas as pd

        given, table = train_part(part), read_experiment(part, DeviationOptions)
        data, test = specs.as_image_sets((given.data, given.test), part.spec.data.spec or "")
        given = replace(given, data=data, test=test)
        networks = {name: member.open(given.data).network.eval().to(given.torch_device)
                    for name, member in list_members(given.networks, {}).items()}
        sites = list_sites(given)
        orders = run_study(_list_orders(given, list(networks), str(part.spec.folder / self.name)))
        images = {"data": _take(given.data, max(table.images)), "test": _take(given.test, None)}
        rows = [*measure_orders(orders), *measure_cuts(networks, sites, given, table),
                *(row for a, b in _list_neighbours(list(networks)) for site in sites
                  for row in measure_maps((a, networks[a]), (b, networks[b]), site, images, table.images)),
                *(row for name, network in networks.items() for site in sites
                  for row in measure_pwcca(name, network, site, images["data"], table.ranks))]
        return Found({"deviations": pd.DataFrame(rows)},
                     {"networks": list(networks), "pairs": len(orders.pairs)})

    def judge_claims(self, record: Record) -> Sequence[Outcome]:
        return ()

    def tabulate(self, record: Record) -> Mapping[str, pd.DataFrame]:
        import pandas as pd

        return {"Deviations": pd.DataFrame([
            {"about": d.what, "published code": d.published, "where": d.where, "here": d.ours,
             "what it changes": describe_change(record, d.key) or d.change or "not measured"}
            for d in DEVIATIONS])}

    def describe(self, record: Record) -> Sequence[str]:
        return ["The published code is github.com/szegedai/stitching-ood at commit 85249b2; files and lines "
                "are its own. Numbers are means over networks and sites, with Student's 95 % interval over "
                "networks."]


def _list_neighbours(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return each network with the next one, in a ring."""
    return [(name, names[(k + 1) % len(names)]) for k, name in enumerate(names)]


def _list_orders(given: StudyOptions, names: Sequence[str], folder: str) -> StudyOptions:
    return replace(given, pairs=_list_neighbours(names), indices=ORDERS, methods=(), ood=None, folder=folder,
                   sites=None, target_sites=None)


def _take(data: Any, most: int | None) -> Batch:
    """Return the first examples of data as one batch."""
    batches = list(Batches(data, most=most))
    source, target, labels = (torch.cat([getattr(b, side) for b in batches])
                              for side in ("source", "target", "labels"))
    return Batch(source, target, labels)


def _row(key: str, network: str, site: str, quantity: str, published: float, ours: float) -> dict[str, Any]:
    return {"key": key, "network": network, "site": site, "quantity": quantity, "published": published,
            "ours": ours}


def measure_orders(study: Study) -> Iterator[dict[str, Any]]:
    """Yield for each pair of networks the share of verdicts of PWCCA that its order of arguments turns.

    A verdict says which of two source layers is more similar to a target layer.
    """
    for a, b in study.pairs:
        one, other = (study.comparison(a, b).matrix(name).to_numpy() for name in ORDERS)
        k = len(one)
        turned = [np.sign(one[i, t] - one[j, t]) != np.sign(other[i, t] - other[j, t])
                  for t in range(one.shape[1]) for i in range(k) for j in range(i)
                  if not np.isnan([one[i, t], one[j, t], other[i, t], other[j, t]]).any()]
        yield _row("order", b, "all", "share", float(np.mean(turned)) if turned else float("nan"), 0.0)


def measure_cuts(networks: Mapping[str, nn.Module], sites: Sequence[str], given: StudyOptions,
                 table: DeviationOptions) -> Iterator[dict[str, Any]]:
    """Yield accuracies of probes whose representations are cut batch by batch, and by all data."""
    for name, network in networks.items():
        found: list[Any] = [
            probe(network, given.data, given.test, sites=list(sites), ranks=table.ranks, recipe=table.probe,
                  basis=basis, batch_size=table.probe.batch_size,
                  device=given.device).table.set_index(["site", "rank"])["accuracy"]
            for basis in ("batch", "data")]
        for (site, rank), value in found[0].items():
            if rank in (table.ranks if not isinstance(table.ranks, str) else ()):
                yield _row("cut", name, str(site), str(rank), float(value), float(found[1][site, rank]))


def measure_maps(source: tuple[str, nn.Module], target: tuple[str, nn.Module], site: str,
                 images: Mapping[str, Batch], sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield dropped directions, relative accuracies and residuals of both ways of direct matching."""
    data, test = images["data"], images["test"]
    x, y = (_capture(network, data.source, site) for network in (source[1], target[1]))
    fitted = {n: (fit_published(*rows), fit_ours(*rows)) for n in sizes if n <= len(x)
              for rows in [[_to_rows(z[:n]) for z in (x, y)]]}
    maps = [layer for published, ours in fitted.values()
            for layer in ((published.weight, published.bias), ours[:2])]
    native, *reached = find_accuracies(source[1], target[1], test, site, maps)
    for k, (n, (published, (_, _, dropped, residual))) in enumerate(fitted.items()):
        yield _row("pinv", target[0], site, f"dropped, {n}", published.dropped, dropped)
        yield _row("pinv", target[0], site, f"accuracy, {n}", *(reached[2 * k + m] / native for m in (0, 1)))
        yield _row("residual", target[0], site, str(n), published.reported, published.residual)
        yield _row("residual", target[0], site, f"{n}, ours", published.residual, residual)


def find_accuracies(source: nn.Module, target: nn.Module, test: Batch, site: str,
                    maps: Sequence[tuple[Tensor, Tensor]]) -> list[float]:
    """Return the accuracy of the target network, and of each affine map in front of its tail.

    Examples are run in small batches on the device of the networks: a forward pass of all test images would
    need tens of gigabytes.
    """
    assert test.labels is not None
    right = [0] * (1 + len(maps))
    for images, labels in zip(torch.split(test.source, _AT_ONCE),
                              torch.split(test.labels, _AT_ONCE), strict=True):
        with disable_gradients():
            own, x = images.to(_find_device(target)), _capture(source, images, site)
            logits = [target(own), *(run_tail(target, own, site, _apply(x, *of).to(own)) for of in maps)]
        for k, each in enumerate(logits):
            right[k] += int((each.argmax(1).cpu() == labels).sum())
    return [count / len(test.labels) for count in right]


def _capture(network: nn.Module, images: Tensor, site: str) -> Tensor:
    """Return the representations of images at a site, computed in small batches, on the CPU."""
    return torch.cat([capture(network, part.to(_find_device(network)), [site])[site].cpu()
                      for part in torch.split(images, _AT_ONCE)])


def _find_device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def measure_pwcca(name: str, network: nn.Module, site: str, data: Batch, ranks: Any
                  ) -> Iterator[dict[str, Any]]:
    """Yield PWCCA of a representation and itself cut to few components, which is 1 for every rank."""
    rows = _to_rows(_capture(network, data.source[:100], site))
    for rank in (r for r in (() if isinstance(ranks, str) else ranks) if r < rows.shape[1]):
        cut = cut_rows(rows, rank)
        ours = of_matrices(cut.double(), rows.double(), ["pwcca"])["pwcca"].value
        yield _row("positive", name, site, str(rank), compute_pwcca(cut, rows), float(ours))


def _to_rows(x: Tensor) -> Tensor:
    """Return one row for each position of maps (N, C, H, W) or tokens (N, T, D)."""
    return (x.movedim(1, -1) if x.ndim == 4 else x).reshape(-1, x.shape[1] if x.ndim == 4 else x.shape[-1])


def _apply(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mapped = (x.movedim(1, -1) if x.ndim == 4 else x) @ weight.to(x).T + bias.to(x)
    return mapped.movedim(-1, 1) if x.ndim == 4 else mapped


def describe_change(record: Record, key: str) -> str:
    """Describe in one sentence the measured numbers of a deviation; "" if there are none."""
    table = record.read("deviations")
    of = table[table["key"] == key] if len(table) and key else None
    if of is None or of.empty:
        return ""
    return _SENTENCES[key](of)


def _average(of: pd.DataFrame, side: str) -> NetworkMean:
    return NetworkMean.of(of.groupby("network")[side].mean())


def _tell_cut(of: pd.DataFrame) -> str:
    gap = _average(of.assign(gap=of["published"] - of["ours"]), "gap")
    return (f"accuracy of probes at ranks {', '.join(dict.fromkeys(of['quantity'].astype(str)))}: "
            f"{_average(of, 'published').format()} with components of the batch, "
            f"{_average(of, 'ours').format()} with those of all data, difference {gap.format()}")


def _tell_pinv(of: pd.DataFrame) -> str:
    heard = []
    for quantity, rows in of.groupby("quantity", sort=False):
        what, _, n = str(quantity).partition(", ")
        words = {"dropped": "directions dropped", "accuracy": "relative accuracy"}[what]
        heard.append(f"{words} with {n} images {_average(rows, 'published').mean:.3g}, here "
                    f"{_average(rows, 'ours').mean:.3g}")
    return "; ".join(heard)


def _tell_residual(of: pd.DataFrame) -> str:
    own = of[~of["quantity"].astype(str).str.endswith("ours")]
    return "; ".join(f"with {n} images {_average(rows, 'published').mean:.4f} is reported where the "
                     f"installed layer has {_average(rows, 'ours').mean:.4f}"
                     for n, rows in own.groupby("quantity", sort=False))


def _tell_order(of: pd.DataFrame) -> str:
    return (f"the other order turns {_average(of, 'published').format()} of the verdicts on which of two "
            "source layers is more similar to a target layer")


def _tell_positive(of: pd.DataFrame) -> str:
    return "; ".join(f"PWCCA of a layer and itself cut to rank {rank}: "
                     f"{_average(rows, 'published').mean:.3f}, here {_average(rows, 'ours').mean:.3f}"
                     for rank, rows in of.groupby("quantity", sort=False))


_SENTENCES = {"cut": _tell_cut, "pinv": _tell_pinv, "residual": _tell_residual, "order": _tell_order,
              "positive": _tell_positive}
