"""Make the pages that the browser opens, and what must stand on them.

    python -m tests_browser.make_pages FOLDER

It runs in the environment of suture; the tests run in one that has a browser and not suture.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tests.support.studies import on_a_line
from tests.support.synthetic import comparison

from suture import Comparison
from suture.results import format_people_csv, summarise_findings
from suture.results.page import write_page
from suture.studies import TestOutcome, Validation


def add_signs(made: Comparison) -> Comparison:
    """Mark the first column of task loss matching, and give CKA a null that half of its cells do not beat."""
    table = made.table
    hit = table["measure"].str.startswith("tlm.") & (table["target"] == made.targets[0])
    shape = len(made.sources), len(made.targets)
    tests = np.full((7, *shape), np.nan)
    tests[:3] = np.array([0.5, 0.2, 0.05])[:, None, None]
    tests[3] = np.where(np.arange(shape[1]) % 2, 0.9, 1e-4)
    about = {"cka": {"methods": {"moments": "all"}, "reasons": {"": "all"}}}
    return replace(made, table=table.assign(mark=np.where(hit, "still improving: by 3.0% <b>", "")),
                   arrays={**made.arrays, "null.tests/cka": tests},
                   meta={**made.meta, "nulls": about, "fingerprints": ["9024318472", "46aebb11c3"]})


def rename(made: Comparison) -> Comparison:
    """Give networks and layers names of hundreds of letters, which end or begin what they stand in."""
    names = {name: f"{'encoder.layers.' * 15}{odd}{name}" for name, odd in
             zip(made.sources, ("</script>", "=cmd()", "\u2028", '"\'', "a,b;", "\u202e"), strict=True)}
    table, sites = made.table.replace({"source": names, "target": names}), tuple(names.values())
    return replace(made, source="x" * 300, target="y z " * 60, sources=sites, targets=sites, table=table)


def lose(made: Comparison) -> Comparison:
    """Take the values of all cells into the first target site away."""
    table = made.table.copy()
    hit = table["target"] == made.targets[0]
    table.loc[hit, ["value", "low", "high"]] = np.nan
    table.loc[hit, "reason"], table.loc[hit, "mark"] = "RuntimeError: out of memory <b>", ""
    return replace(made, table=table)


def make_comparisons() -> dict[str, list[Comparison]]:
    """Return the comparisons of each page."""
    one = add_signs(comparison(6, 6, detectors=("maha",)))
    return {
        "report": [one],
        "small": [add_signs(comparison(3, 2, same_network=False, detectors=("maha",)))],
        "large": [comparison(12, 12, detectors=("maha", "energy", "knn", "vim"))],
        "several": [one, add_signs(comparison(6, 6, seed=1, same_network=False)), comparison(3, 3, seed=2)],
        "long": [rename(comparison(6, 6, same_network=False, detectors=("maha",)))],
        "failed": [lose(one)],
        "plain": [comparison(6, 6, same_network=False)],
        "cell": [comparison(1, 1, same_network=False, detectors=("maha",))],
        "huge": [comparison(32, 32, same_network=False)],
        "hostile": [comparison(7, 7, hostile=True, detectors=("maha",), same_network=False)],
    }


def describe(made: list[Comparison]) -> dict[str, Any]:
    """Return what must stand on a page: findings and rows of the tables."""
    return {"findings": [list(summarise_findings(c).all) for c in made],
            "rows": [json.loads(c.table.to_json(orient="records", double_precision=15)) for c in made]}


def make_validation() -> Validation:
    """Return a validation of two measures that was never run."""
    return Validation.make([
        TestOutcome(test, name, 0.8, 0.7, 0.9, 0.01, 0.9, 6, "share", 0.5, passed, f"{name} in {test}.")
        for name in ("cka", "opd") for test, passed in (("self", True), ("depth", False), ("order", None))],
        ("A", "B"), ("layer1.0", "layer1.1"))


def about_many(n: int) -> dict[str, list[Any]]:
    """What is said of n networks, with names that are formulas and markup."""
    return {"=epoch()": list(range(n)), "<b>half</b>": ["early"] * (n // 2) + ["late"] * (n - n // 2)}


def main(folder: Path) -> None:
    """Write pages, their tables as CSV and what must stand on them."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = {}
    for name, made in make_comparisons().items():
        write_page(made, folder / f"{name}.html")
        (folder / f"{name}.csv").write_bytes(format_people_csv(made[0].table))
        truth[name] = describe(made)
    about = {"epoch": range(8), "half": ["early"] * 4 + ["late"] * 4}
    study = on_a_line({f"network {k}": k + 0.5 * (k % 3) for k in range(8)}, about=about)
    study.report(folder / "study.html")
    names = {f"network {k}" * (1 + 9 * (k == 3)): k / 2 for k in range(30)}
    on_a_line(names, about=about_many(30)).report(folder / "many.html")
    make_validation().report(folder / "validation.html")
    (folder / "truth.json").write_text(json.dumps(truth))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
