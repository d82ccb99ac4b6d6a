"""Copy the pages of `suture reproduce` into docs/paper, one folder a scale. (docs/reproduce.md)

    python docs/paper.py reproduction/small

A page, its figures, its tables and the records that they are made from are copied; networks and comparisons
are not. `tests/studies/test_experiments.py` makes each page anew from its records and finds it unchanged.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from common import HERE
from suture.studies import read_reproduction

KEPT = ("page.md", "figures", "tables", "records")


def main(place: Path) -> None:
    """Write the page of a scale anew, and copy what docs keep of it."""
    read_reproduction(place, place.name)
    target = HERE / "paper" / place.name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in KEPT:
        if (place / name).is_dir():
            shutil.copytree(place / name, target / name, ignore=shutil.ignore_patterns("*-column.png"))
        else:
            shutil.copy(place / name, target / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
