"""Measure how often unrelated data are called above chance: nulls of indices at the 5 % level.

    python checks/null_rates.py                 every setting, 1,000 draws each; some 30 minutes on one core
    python checks/null_rates.py --draws 100 --only within
    python checks/null_rates.py --write         into the table of docs/indices.md

A setting holds if the 95 % binomial interval of its rate meets 3 to 7 %. Each draw has new data. At more than
10⁶ numbers a side, 50 draws share data whose rows are permuted anew.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from suture.indices import of_matrices
from suture.numbers import Moments, Pair, describe_cka_null, describe_debiased_null

DRAWS, LOW, HIGH = 1000, 0.03, 0.07
PERMUTATIONS = 99
_LARGE = 10**6
_PAGE = Path(__file__).parents[1] / "docs" / "indices.md"
Draw = Callable[[int, int, torch.Generator], Tensor]


def normal(n: int, p: int, g: torch.Generator) -> Tensor:
    return torch.randn(n, p, generator=g, dtype=torch.float64)


def relu(n: int, p: int, g: torch.Generator) -> Tensor:
    return torch.relu(normal(n, 20, g) @ normal(20, p, g))


def heavy(n: int, p: int, g: torch.Generator) -> Tensor:
    """Rows of Student's t distribution with 3 degrees of freedom, one factor for all columns of a row."""
    return normal(n, p, g) / normal(n, 3, g).square().mean(1, keepdim=True).sqrt()


def duplicated(n: int, p: int, g: torch.Generator) -> Tensor:
    return normal(n, p, g)[torch.arange(n) // 2]


def positions(n: int, p: int, g: torch.Generator) -> Tensor:
    """16 neighbouring positions for each of n / 16 examples: a random walk over them, after a ReLU."""
    steps = normal(n, p, g).reshape(-1, 16, p).cumsum(1)
    return torch.relu(steps + 2 * normal(n // 16, p, g)[:, None]).flatten(0, 1)


def spread(n: int, p: int, g: torch.Generator) -> Tensor:
    """Five classes, the last ones smaller, with means of their own and spreads of 1 to 16."""
    classes = classify(n)
    return normal(5, p, g)[classes] * 3 + normal(n, p, g) * (2.0 ** classes)[:, None]


def classify(n: int) -> Tensor:
    return (5 * (torch.arange(n) / n) ** 2).long().clamp(max=4)


@dataclass(frozen=True)
class Setting:
    """Unrelated data, x and y drawn apart, and indices."""

    name: str
    indices: tuple[str, ...]
    n: int
    p: int
    x: Draw = normal
    y: Draw = normal
    options: dict[str, Any] = field(default_factory=dict)

    def draw(self, draws: int) -> Iterator[list[float]]:
        """Yield the p-values of all indices for each draw."""
        g = torch.Generator().manual_seed(self.n * self.p)
        if self.n * self.p > _LARGE:
            yield from self._permute(draws, g)
            return
        for k in range(draws):
            x, y = self.x(self.n, self.p, g), self.y(self.n, self.p, g)
            found = [v.null for v in of_matrices(x, y, self.indices, seed=k, **self.options).values()]
            assert all(null is not None and not null.reason for null in found), (self, found)
            yield [null.p for null in found if null is not None]

    def _permute(self, draws: int, g: torch.Generator) -> Iterator[list[float]]:
        """Yield p-values of biased and debiased CKA; the sums of one side do not depend on the order."""
        for k in range(draws):
            if k % 50 == 0:
                x, y = self.x(self.n, self.p, g), self.y(self.n, self.p, g)
                pair = Pair.of(Moments.of(x, y))
                grams, m = pair.grams, pair.moments
                nulls = describe_cka_null(*grams), describe_debiased_null(*grams)
                a, b = ((of - of.mean(0)).float() for of in (x, y))
                traces = float(m.sxx.trace() * m.syy.trace())
                lengths = a.double().square().sum(1), b.double().square().sum(1)
            order = torch.randperm(self.n, generator=g)
            n, products = self.n, float((a.T @ b[order]).double().square().sum()) / traces
            joint = float(lengths[0] @ lengths[1][order]) / traces
            unbiased = products + 1 / ((n - 1) * (n - 2)) - joint * (1 + 2 / (n - 2))
            scales = grams[0].norm * grams[1].norm, grams[0].unbiased * grams[1].unbiased
            yield [null.compute_p_value(of / scale**0.5) for null, of, scale in
                   zip(nulls, (products, unbiased), scales, strict=True)]


def _list_closed() -> Iterator[Setting]:
    shapes = (30, 4), (30, 1000), (100, 64), (300, 16), (2000, 4), (2000, 64)
    both = "cka", "cka_debiased"
    for name, x, y in (("normal", normal, normal), ("ReLU", relu, relu), ("heavy tails", heavy, heavy),
                       ("duplicated rows in x", duplicated, relu)):
        for n, p in shapes:
            yield Setting(name, both if p < n else tuple(f"{i}@flatten" for i in both), n, p, x, y)
    yield Setting("ReLU", both, 2000, 1000, relu, relu)


def list_settings() -> list[Setting]:
    """List all settings, the quick ones first."""
    found = list(_list_closed())
    for n, p in ((60, 8), (300, 64)):
        found.append(Setting("within, unequal spread", ("cka@within", "cka_debiased@within"), n, p, spread,
                             spread, {"within": classify(n)}))
    draws = {"nulls": PERMUTATIONS}
    found.append(Setting("within, unequal spread", ("r2@within",), 100, 5, spread, spread,
                         {"within": classify(100), **draws}))
    for n, p in ((480, 4), (960, 16)):
        found.append(Setting("positions, groups permuted", ("cka", "r2"), n, p, positions, positions,
                             {"groups": torch.arange(n) // 16, **draws}))
    found.append(Setting("normal", ("r2", "opd"), 60, 5, options=draws))
    return found


@dataclass(frozen=True)
class Rate:
    """How often a setting was above chance, with its 95 % interval (Clopper and Pearson)."""

    setting: Setting
    index: str
    found: int
    draws: int

    @property
    def interval(self) -> tuple[float, float]:
        from scipy import stats

        of = stats.binomtest(self.found, self.draws).proportion_ci()
        return float(of.low), float(of.high)

    @property
    def holds(self) -> bool:
        low, high = self.interval
        return low < HIGH and high > LOW

    @property
    def row(self) -> str:
        s, (low, high) = self.setting, self.interval
        how = f"{PERMUTATIONS} permutations" if "nulls" in s.options else "closed form"
        rate = 100 * self.found / self.draws
        interval = f"{100 * low:.1f} to {100 * high:.1f} %" + ("" if self.holds else " (outside)")
        return f"| {s.name} | `{self.index}` | {s.n} | {s.p} | {how} | {rate:.1f} % | {interval} |"


def measure(setting: Setting, draws: int) -> list[Rate]:
    """Measure the rate of p-values of at most 0.05 among null draws, for each index."""
    found = zip(*setting.draw(draws), strict=True)
    return [Rate(setting, index, sum(p <= 0.05 for p in of), draws)
            for index, of in zip(setting.indices, found, strict=True)]


def write_table(rates: list[Rate], draws: int) -> None:
    """Put the table between the marks of docs/indices.md."""
    head = ("| data | index | n | p = q | null | above chance at 5 % | 95 % interval |\n"
            "| --- | --- | --- | --- | --- | --- | --- |\n")
    body = "\n".join(r.row for r in rates)
    note = f"\n\n`checks/null_rates.py`, {draws:,} draws a row, torch {torch.__version__}, one thread.\n"
    page = _PAGE.read_text(encoding="utf-8")
    _PAGE.write_text(re.sub(r"(<!-- rates -->\n).*?(<!-- end rates -->)",
                            lambda m: f"{m[1]}{head}{body}{note}{m[2]}", page, flags=re.S), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--only", default="", help="settings with this in their name or index")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rates = []
    for setting in list_settings():
        if given.only in f"{setting.name} {setting.indices}":
            start = time.perf_counter()
            new = measure(setting, given.draws)
            print("\n".join(r.row for r in new), f" {time.perf_counter() - start:.0f} s", flush=True)  # noqa: T201
            rates += new
    bad = [r for r in rates if not r.holds]
    print(f"{len(rates) - len(bad)} of {len(rates)} settings hold")  # noqa: T201
    if given.write:
        write_table(rates, given.draws)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
