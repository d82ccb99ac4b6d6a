"""How often do the tests of measures find what is not there, and what is? At the 5 % level, in simulation.

    python checks/measure_null_rates.py [--draws 1000] [--only specificity]

Each draw is a new population of values without the effect that a test looks for, but with levels of networks
and of layers, which all pairs share. The rate of p <= 0.05 should be 3 to 7 %: a setting holds if the 95 %
binomial interval of its rate meets that. Beside it stands the rate with an effect, the power.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from unittest import mock

import numpy as np
import pandas as pd
from scipy import stats

from suture.results import COLUMNS, Comparison
from suture.studies.measure_tests import network_statistics
from suture.studies.measure_tests.battery import function_tests, group_tests
from suture.studies.measure_tests.battery.control_tests import ControlValues, check_control
from suture.studies.measure_tests.battery.function_tests import check_differences, check_function
from suture.studies.measure_tests.battery.group_tests import check_groups
from suture.studies.measure_tests.battery.layer_tests import (
    BY_SOURCE,
    check_correspondence,
    check_depth,
    check_self,
)
from suture.studies.measure_tests.battery.specificity import check_specificity
from suture.studies.measure_tests.population_cells import ComparedPair, PopulationCells
from suture.studies.network_study import inference

LOW, HIGH, LEVEL = 0.03, 0.07, 0.05
PERMUTATIONS = 199
Draw = Callable[[np.random.Generator, float], float]


def make_cells(values: np.ndarray) -> PopulationCells:
    """Make a population of values (N, N, L, L) without results per example."""
    n, _, depth, _ = values.shape
    layers = tuple(f"l{k}" for k in range(depth))
    values_of = Comparison("a", "b", layers, layers, False, True, pd.DataFrame(columns=COLUMNS), {}, {})
    pair = ComparedPair(lambda: values_of, np.arange(depth), np.arange(depth))
    return PopulationCells("cka", tuple(f"n{k}" for k in range(n)), layers, values,
                           np.zeros(values.shape, bool), {(i, j): pair for i in range(n) for j in range(n)})


def draw_values(rng: np.random.Generator, n: int, depth: int) -> np.ndarray:
    """Draw values with levels of the layers of each network, as sources and as targets."""
    rows, columns = rng.normal(size=(2, n, depth)) + rng.normal(size=(2, n, 1))
    return np.asarray(rng.normal(size=(n, n, depth, depth)) + rows[:, None, :, None]
                      + columns[None, :, None, :])


def draw_population(rng: np.random.Generator, own: float, slope: float = 0.0, n: int = 5, depth: int = 4
                    ) -> PopulationCells:
    apart = np.abs(np.subtract.outer(np.arange(depth), np.arange(depth)))
    return make_cells(draw_values(rng, n, depth) + own * (apart == 0) - slope * apart)


def of_self(rng: np.random.Generator, effect: float) -> float:
    return float(check_self(draw_population(rng, effect)).p)


def of_correspondence(rng: np.random.Generator, effect: float, by: str = "correspondence") -> float:
    return float(check_correspondence(draw_population(rng, effect), by).p)


def of_depth(rng: np.random.Generator, effect: float, number: int = 0) -> float:
    return float(check_depth(draw_population(rng, 0.0, effect))[number].p)


def of_specificity(rng: np.random.Generator, effect: float) -> float:
    return float(check_specificity(draw_population(rng, effect)).p)


def draw_points(rng: np.random.Generator, n: int, effect: float) -> tuple[PopulationCells, np.ndarray]:
    """Draw networks as points whose first coordinate makes what they are able to do, to some degree."""
    points = rng.normal(size=(n, 3))
    points[:, 0] *= 1 + effect
    function = effect * points[:, 0] + rng.normal(size=n)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return make_cells(np.repeat(np.repeat(-distance[..., None, None], 2, 2), 2, 3)), function


def of_function(rng: np.random.Generator, effect: float, number: int = 0, n: int = 12) -> float:
    cells, function = draw_points(rng, n, effect)
    return float(check_function(cells, np.repeat(function[:, None], 2, axis=1), 1.0)[number].p)


def of_published_function(rng: np.random.Generator, effect: float) -> float:
    """The p-value of the published code, for comparison."""
    sentence = check_function(*_with_layers(draw_points(rng, 12, effect)), 1.0)[0].sentence
    return float(sentence.rpartition("published p is ")[2].rstrip(")."))


def _with_layers(drawn: tuple[PopulationCells, np.ndarray]) -> tuple[PopulationCells, np.ndarray]:
    return drawn[0], np.repeat(drawn[1][:, None], 2, axis=1)


def of_differences(rng: np.random.Generator, effect: float) -> float:
    cells, function = draw_points(rng, 12, effect)
    apart = np.abs(np.subtract.outer(function, function))
    return check_differences(cells, "accuracy difference", apart, 0.5).p


def of_groups(rng: np.random.Generator, effect: float, number: int = 0) -> float:
    labels = np.repeat([0, 1, 2], 3)
    points = rng.normal(size=(9, 3)) + effect * np.eye(3)[labels]
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return check_groups(make_cells(-distance[..., None, None]), labels.tolist(), "kind")[number].p


def of_controls(rng: np.random.Generator, effect: float, targets: tuple[int, ...] = (0, 1)) -> float:
    """Sources have levels at each layer, and so have targets."""
    n, depth = 5, 4
    sources = rng.normal(size=(2 * n, depth)) + effect * (np.arange(2 * n) < n)[:, None]
    values = (sources[:, None] + rng.normal(size=(len(targets), depth))
              + rng.normal(size=(2 * n, len(targets), depth)))
    cells = np.full((n, n, depth, depth), np.nan)
    for t, j in enumerate(targets):
        cells[:, j][:, np.arange(depth), np.arange(depth)] = values[:n, t]
        values[n + j, t] = np.nan
    return check_control(make_cells(cells), ControlValues("pure noise", values[n:], targets)).p


@dataclass(frozen=True)
class Setting:
    """A test, its p-value of one draw, and an effect to find."""

    name: str
    draw: Draw
    effect: float
    exact: bool = True


SETTINGS = (
    Setting("self", of_self, 1.5), Setting("correspondence", of_correspondence, 1.0),
    Setting("correspondence by source", partial(of_correspondence, by=BY_SOURCE), 1.0),
    Setting("depth", of_depth, 0.5), Setting("depth violations", partial(of_depth, number=1), 0.5),
    Setting("specificity", of_specificity, 1.0),
    Setting("function", of_function, 1.0), Setting("function (Kendall)", partial(of_function, number=1), 1.0),
    Setting("function, 5 networks", partial(of_function, n=5), 1.0),
    Setting("function, the published p", of_published_function, 1.0, exact=False),
    Setting("accuracy difference", of_differences, 1.0), Setting("groups", of_groups, 2.0),
    Setting("groups (precision)", partial(of_groups, number=1), 2.0),
    Setting("controls", of_controls, 1.5),
    Setting("controls, one target", partial(of_controls, targets=(0,)), 1.5))


def measure(setting: Setting, draws: int) -> tuple[float, float, bool]:
    """Return the rate of p <= 0.05 without and with the effect, and if the first is 3 to 7 %."""
    rates = []
    with ExitStack() as patches:
        for module in (network_statistics, function_tests, group_tests, inference):
            patches.enter_context(mock.patch.object(module, "DRAWS", PERMUTATIONS))
        for effect in (0.0, setting.effect):
            rng = np.random.default_rng(len(setting.name))
            rates.append(sum(setting.draw(rng, effect) <= LEVEL for _ in range(draws)) / draws)
    interval = stats.binomtest(round(rates[0] * draws), draws).proportion_ci()
    return rates[0], rates[1], bool(interval.low <= HIGH and interval.high >= LOW)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    failed = []
    for setting in SETTINGS:
        if given.only in setting.name:
            rate, power, holds = measure(setting, given.draws)
            print(f"| {setting.name} | {rate:.1%} | {power:.0%} |", flush=True)  # noqa: T201
            if setting.exact and not holds:
                failed.append(setting.name)
    if failed:
        raise SystemExit(f"outside 3 to 7 %: {', '.join(failed)}")


if __name__ == "__main__":
    main()
