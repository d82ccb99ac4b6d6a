"""What the networks of a population answer on the test data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from suture._base import SutureError
from suture.compare import Setup
from suture.networks import disable_gradients
from suture.numbers import Floats
from suture.stitching import Task
from suture.studies.measure_tests.network_statistics import FEWEST
from suture.studies.network_study.compared_networks import ComparedNetworks
from suture.studies.running.tasks import PairTask, Work

_MOST = 200_000_000
"""Largest number of probabilities of all networks that are kept to compare outputs."""


@dataclass(frozen=True, eq=False)
class PopulationOutputs:
    """Answers of N networks on the same n examples (or scored tokens).

    Attributes:
        hits: (N, n), 1 for a right answer; None without labels.
        disagreement: (N, N) share of the examples with different answers; None if unknown.
        divergence: (N, N) mean Jensen-Shannon divergence of the predictions, in nats; None if unknown.
        reason: why something is missing.
    """

    hits: Floats | None
    disagreement: Floats | None = None
    divergence: Floats | None = None
    reason: str = ""

    @property
    def accuracies(self) -> Floats | None:
        """Share of right answers of each network (N,)."""
        return None if self.hits is None else np.asarray(self.hits.mean(1))

    @property
    def reliability(self) -> float:
        """Share of the variance of the accuracies that is not the noise of the test examples.

        1 - 1 / F, with the F of a two-way analysis of variance (networks, examples), because all networks
        answer the same examples (Hoyt 1941). At most 0 where they are as close as their binomial error makes
        them; nan with too few networks.
        """
        if self.hits is None or len(self.hits) < FEWEST:
            return math.nan
        h = self.hits
        networks, examples = h.shape
        rows, columns, whole = h.mean(1), h.mean(0), h.mean()
        between = examples * ((rows - whole) ** 2).sum() / (networks - 1)
        rest = ((h - rows[:, None] - columns + whole) ** 2).sum() / ((networks - 1) * max(1, examples - 1))
        return float(1 - rest / between) if between > 0 else -math.inf


def read_hits(study: ComparedNetworks, names: tuple[str, ...]) -> PopulationOutputs:
    """Return the right answers that a study has kept of its target networks."""
    found = dict[str, Floats]()
    for (_, target), made in study.comparisons.items():
        hits, tokens = made.arrays.get("target.correct"), made.arrays.get("target.tokens")
        if hits is not None and target not in found:
            found[target] = hits.astype(np.float64) / (1 if tokens is None else np.maximum(tokens, 1))
    if any(name not in found for name in names) or len({len(h) for h in found.values()}) != 1:
        return PopulationOutputs(None, reason="the study has no answers of all networks; give networks and "
                                              "test data")
    return PopulationOutputs(np.stack([found[name] for name in names]),
                             reason="a study keeps no outputs; give networks and test data")


def collect_outputs(work: Work, names: tuple[str, ...]) -> PopulationOutputs:
    """Run each network on the test data, one after the other."""
    found = list[_Answers]()
    # Without a way to stitch, a comparison has no test data.
    evaluated = work.replace(settings={**work.settings, "methods": ("dm",), "indices": (), "ood": None})
    for name in names:
        try:
            answers = _run(evaluated.set_up(PairTask((name, name), "")), _MOST // len(names))
        except SutureError as error:
            return PopulationOutputs(None, reason=f"{name}: {error}")
        if answers is None:
            return PopulationOutputs(None, reason="the networks predict no classes, or there is no test data")
        found.append(answers)
    return _compare(found)


class _Answers(NamedTuple):
    """Classes (n,) of one network, if they are right (n,), and probabilities (n, classes) if they are few."""

    classes: Tensor
    hits: Floats | None
    chances: Tensor | None


def _compare(found: list[_Answers]) -> PopulationOutputs:
    n = len(found)
    disagreement, divergence = np.zeros((n, n)), np.zeros((n, n))
    for i, j in combinations(range(n), 2):
        one, other = found[i], found[j]
        disagreement[i, j] = disagreement[j, i] = float((one.classes != other.classes).double().mean())
        divergence[i, j] = divergence[j, i] = (
            math.nan if one.chances is None or other.chances is None else
            measure_divergence(one.chances, other.chances))
    known = [answers.hits for answers in found if answers.hits is not None]
    kept = all(answers.chances is not None for answers in found)
    return PopulationOutputs(np.stack(known) if len(known) == n else None, disagreement,
                             divergence if kept else None, "" if len(known) == n else
                             "test data without labels")


@disable_gradients()
def _run(setup: Setup, most: int) -> _Answers | None:
    """Return the answers on the test data, with at most so many probabilities; None without any."""
    if setup.task is Task.NONE or setup.data.test is None:
        return None
    classes, hits, chances, kept = list[Tensor](), list[Tensor](), list[Tensor](), 0
    for batch in setup.data.test:
        for piece, done in setup.pieces.map(batch, setup.settings.torch_device,
                                            lambda b: setup.target.run_full(b.target)):
            rows = setup.task.find_rows(setup.target.view_output(piece.target), piece.labels)
            logits = rows.select(setup.task.extract_logits(done.output)).float().cpu()
            classes.append(logits.argmax(1))
            kept += logits.numel()
            chances = [*chances, logits.softmax(1)] if kept <= most else []
            if rows.labels is not None:
                hits.append(classes[-1] == rows.labels.cpu())
    return _Answers(torch.cat(classes), torch.cat(hits).double().numpy() if hits else None,
                    torch.cat(chances) if kept <= most else None)


def measure_divergence(one: Tensor, other: Tensor) -> float:
    """Return the mean Jensen-Shannon divergence of two predictions (n, classes), in nats."""
    middle = (one + other) / 2
    parts = [torch.special.xlogy(p, p / middle.clamp(min=torch.finfo(p.dtype).tiny)).sum(1)
             for p in (one, other)]
    return float(((parts[0] + parts[1]) / 2).double().mean())


def list_functions(given: Mapping[str, object], names: tuple[str, ...], depth: int) -> Floats:
    """Return what a user says each network is able to do, (N, L): a number, or one for each layer."""
    found = np.full((len(names), depth), np.nan)
    for k, name in enumerate(names):
        if name not in given:
            raise SutureError(f"expected a function of each network, got none of {name}")
        value = np.asarray(given[name], dtype=np.float64)
        if value.shape not in ((), (depth,)):
            raise SutureError(f"expected a number or {depth} numbers as function of {name}, got shape "
                              f"{value.shape}")
        found[k] = value
    return found
