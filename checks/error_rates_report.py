"""Rates of wrong and unproven verdicts, from the cells that checks/error_rates.py measured.

    python checks/error_rates_report.py docs/controls-cells.csv.gz    # the table, and other rules of verdict

The verdict of every cell is made again from its numbers, under the rule that suture uses and under
others. A rule is chosen on the networks of even seeds, and counted on those of odd ones. Intervals are 95
%, from a bootstrap over networks: cells of one network are not independent. `--gather FOLDER` first joins
the files of a run.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from suture.results.verdicts import (
    ARTEFACT,
    DISSIMILAR,
    EDGE,
    LABELS_ONLY,
    LEVEL,
    MOST_RESIDUAL,
    NOT_SHOWN,
    SIMILAR,
    UNPROVEN,
)
from suture.studies.controls.truths import find_truth

WORKS, GOALS, DRAWS = 0.8, {"wrong": 0.05, "unproven": 0.2}, 2000
CLASS_NOISE = ("class noise", "class noise of another")


@dataclass(frozen=True)
class Rule:
    """What makes a verdict; by default, suture's own rule.

    Attributes:
        classes: within which the residual is measured: "" for labels, "_predicted", "_both".
        residual: "free" of offsets, or "strict".
        most: the residual's upper bound is below it in a similar cell.
        level: of the test that a representation holds more than the class.
        radius: "outer" or "inner".
        edge: largest distance, in units of the radius.
        trusts_fit: True if a map of direct matching that does not generalise may still be dissimilar.
        bounds: True if ends of the distance's interval count, False if its value does.
        information_first: True if a cell that shows no information, and is not clearly beyond the edge,
            shares the labels only, though it is not clearly within it either.
    """

    classes: str = ""
    residual: str = "free"
    most: float = MOST_RESIDUAL
    level: float = LEVEL
    radius: str = "outer"
    edge: float = EDGE
    trusts_fit: bool = False
    bounds: bool = True
    information_first: bool = True

    def __str__(self) -> str:
        return (
            f"classes {self.classes.strip('_') or 'labels'}, {self.residual} residual < {self.most:g}, level "
            f"{self.level:g}, {self.radius} radius x {self.edge:g}, {'ends' if self.bounds else 'value'} "
            f"of the distance, marks of direct matching {'left out' if self.trusts_fit else 'as now'}, "
            f"{'information' if self.information_first else 'distance'} first"
        )


def judge_table(table: pd.DataFrame, rule: Rule) -> pd.Series:
    """Return the verdicts of all cells under a rule."""
    marked = table["mark"].fillna("").ne("") & ~((table["method"] == "dm") & rule.trusts_fit)
    low, high = table["works_low"], table["works_high"]
    radius, edge = table[rule.radius], rule.edge
    ends = ("_low", "_high") if rule.bounds else ("", "")
    beyond, within = (table[f"distance{end}"] / radius for end in ends)
    free, p = table[f"{rule.residual}{rule.classes}_high"], table[f"p{rule.classes}"]
    value = table[f"{rule.residual}{rule.classes}"]
    empty = table[f"free{rule.classes}"] >= 1 - 1e-6  # nothing at all within classes: no test is needed
    holds = (p < rule.level) & (free < rule.most)
    lacks = empty | (value.notna() & p.notna() & ~holds)
    cases = [
        ((table["works"] < WORKS) & marked, UNPROVEN),
        (high < WORKS, DISSIMILAR),
        ((low < WORKS) | (low <= table["trivial"]) | table["works"].isna(), UNPROVEN),
        (radius.isna() | table["distance"].isna(), NOT_SHOWN),
        (beyond > edge, ARTEFACT),
        ((within > edge) & ~(lacks & rule.information_first), NOT_SHOWN),
        (lacks, LABELS_ONLY),
        (value.isna() | p.isna(), NOT_SHOWN),
        (holds, SIMILAR),
    ]
    words = pd.Series(
        np.select([c.to_numpy() for c, _ in cases], [w for _, w in cases], LABELS_ONLY), table.index
    )
    return words.mask(table["native"] & words.isin([UNPROVEN, NOT_SHOWN, LABELS_ONLY]), SIMILAR)


def read(path: Path) -> pd.DataFrame:
    """Read the cells, with their truths."""
    table = pd.read_csv(path)
    # Noise of one shape is the same noise, whichever site the shape is from.
    table = table[
        ~table.duplicated(["network", "control", "strength", "method", "site", "detail", "distance", "free"])
        & ~(
            table["control"].eq("class noise")
            & table.duplicated(["network", "control", "method", "site", "distance", "free"])
        )
    ]
    table = table.reset_index(drop=True)
    kinds = table.dropna(subset="kind").groupby("network")["kind"].first()
    table["kind"] = table["kind"].fillna(table["network"].map(kinds))
    table["method"] = table["method"].fillna("")
    table["right"] = [
        find_truth(c, s, k, last).right
        for c, s, k, last in zip(
            table["control"], table["strength"], table["kind"], table["last"], strict=True
        )
    ]
    table["name"] = [
        c + ("" if np.isnan(s) or c == "natural shift" else f" {s:g}") + (f", {m}" if m else "")
        for c, s, m in zip(table["control"], table["strength"], table["method"], strict=True)
    ]
    return table


def grade(table: pd.DataFrame, words: pd.Series) -> pd.DataFrame:
    """Return booleans for each cell with a truth: right, wrong, unproven; and similar class noise."""
    right = pd.Series([w in r for w, r in zip(words, table["right"], strict=True)], table.index)
    unproven = words.isin([UNPROVEN, NOT_SHOWN]) & ~right
    found = pd.DataFrame(
        {
            "network": table["network"],
            "name": table["name"],
            "right": right,
            "unproven": unproven,
            "wrong": ~right & ~unproven,
            "fooled": table["control"].isin(CLASS_NOISE) & (words == SIMILAR),
        }
    )
    return found[table["right"].map(len) > 0]


def bootstrap(graded: pd.DataFrame, column: str, seed: int = 0) -> tuple[float, float, float]:
    """Return a rate with its 95 % interval over networks."""
    of = graded.groupby("network")[column].agg(["sum", "count"]).to_numpy(float)
    drawn = of[np.random.default_rng(seed).integers(len(of), size=(DRAWS, len(of)))].sum(1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return of[:, 0].sum() / of[:, 1].sum(), low, high


def write_rate(graded: pd.DataFrame, column: str) -> str:
    """Write a rate with its interval, in per cent."""
    rate, low, high = bootstrap(graded, column)
    return f"{rate:.1%} ({low:.1%} to {high:.1%})"


def list_rules() -> list[Rule]:
    """List the rules that are tried."""
    parts = itertools.product(
        ("", "_predicted", "_both"),
        ("free", "strict"),
        (1.0, 0.95, 0.9, 0.8),
        (0.05, 0.001),
        (("outer", 1.0), ("outer", 0.5), ("outer", 2.0), ("inner", 1.0)),
        (False, True),
        (True, False),
        (False, True),
    )
    return [Rule(c, r, m, level, radius, edge, *rest) for c, r, m, level, (radius, edge), *rest in parts]


def describe(table: pd.DataFrame, rule: Rule, per_control: bool) -> str:
    """Describe the rates of a rule."""
    graded = grade(table, judge_table(table, rule))
    lines = [
        f"{len(graded)} cells with a truth on {graded['network'].nunique()} networks: wrong "
        f"{write_rate(graded, 'wrong')}, unproven {write_rate(graded, 'unproven')}; class noise called "
        "similar: "
        f"{int(graded['fooled'].sum())} of {int(graded['name'].str.startswith('class noise').sum())}"
    ]
    if per_control:
        lines += ["", "| control | cells | right | wrong | unproven |", "|---|---|---|---|---|"]
        lines += [
            f"| {name} | {len(of)} | {of['right'].mean():.1%} | {of['wrong'].mean():.1%} | "
            f"{of['unproven'].mean():.1%} |"
            for name, of in graded.groupby("name", sort=False)
        ]
    return "\n".join(lines)


def report(path: Path) -> str:
    """Return the whole report."""
    table = read(path)
    even = table["seed"] % 2 == 0
    mine, others = table[even], table[~even]
    rates = []
    for rule in list_rules():
        graded = grade(mine, judge_table(mine, rule))
        rates.append((graded["fooled"].sum(), graded["wrong"].mean(), graded["unproven"].mean(), rule))
    fit = [r for r in rates if not r[0] and r[1] <= GOALS["wrong"]] or [r for r in rates if not r[0]] or rates
    chosen = min(fit, key=lambda r: (r[1] + r[2], r[1]))[3]
    families = table.groupby(table["network"].str.split("/").str[0])
    accuracies = ", ".join(
        f"{name} {of.groupby('network')['accuracy'].first().min():.2f} to "
        f"{of.groupby('network')['accuracy'].first().max():.2f}"
        for name, of in families
    )
    lines = [f"{len(table)} cells, {table['network'].nunique()} networks ({accuracies})"]
    for name, rule in (("suture's rule", Rule()), ("the chosen rule", chosen)):
        lines += [
            "",
            f"## {name}: {rule}",
            "",
            f"Even seeds: {describe(mine, rule, False)}.",
            "",
            f"Odd seeds: {describe(others, rule, True)}",
        ]
    lines += [
        "",
        "## One thing changed in the chosen rule",
        "",
        "| changed | wrong, even | unproven, even | class noise similar | wrong, odd | unproven, odd "
        "| class noise similar |",
        "|---|---|---|---|---|---|---|",
    ]
    for rule in _list_neighbours(chosen):
        row = [_write_change(chosen, rule)]
        for part in (mine, others):
            graded = grade(part, judge_table(part, rule))
            row += [
                f"{graded['wrong'].mean():.1%}",
                f"{graded['unproven'].mean():.1%}",
                f"{graded['fooled'].sum()}",
            ]
        lines.append("| " + " | ".join(row) + " |")
    counted = table[table["right"].map(len) == 0].assign(word=lambda t: judge_table(t, chosen))
    lines += [
        "",
        "## Without a truth",
        "",
        counted.groupby(["name", "word"], sort=False).size().reset_index(name="cells").to_string(index=False),
    ]
    return "\n".join(lines)


def _list_neighbours(of: Rule) -> list[Rule]:
    return [of, *(r for r in list_rules() if _count_changes(astuple(r), astuple(of)) == 1)]


def _count_changes(a: tuple, b: tuple) -> int:
    radius = a[4:6] != b[4:6]
    return sum(x != y for x, y in zip(a[:4] + a[6:], b[:4] + b[6:], strict=True)) + radius


def _write_change(of: Rule, other: Rule) -> str:
    parts = [b for a, b in zip(str(of).split(", "), str(other).split(", "), strict=True) if a != b]
    return ", ".join(parts) or "nothing"


def main() -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cells", type=Path)
    parser.add_argument("--gather", type=Path, help="folder of a run")
    given = parser.parse_args()
    if given.gather:
        parts = [pd.read_csv(f) for f in sorted(given.gather.glob("*.csv"))]
        pd.concat(parts).to_csv(given.cells, index=False, compression={"method": "gzip", "mtime": 0})
    sys.stdout.write(report(given.cells) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
