"""Draw the figures of docs/studies.md from the studies that `make studies` runs.

    suture study run docs/studies/checkpoints.toml; suture study run docs/studies/seeds.toml
    python docs/studies/figures.py [FOLDER]     # that of both studies; default: runs

Deterministic but for rounding: the trainings have seeds, and each uses one thread.
"""

from __future__ import annotations

import sys
from pathlib import Path

from suture import Study

HERE = Path(__file__).parent
FIGURES = {"checkpoints": ("map", "embedding", "trend"), "seeds": ("map", "embedding")}


def main(folder: Path) -> None:
    for name, kinds in FIGURES.items():
        study = Study.load(folder / name)
        for kind in kinds:
            study.plot(kind).savefig(HERE / f"{name}-{kind}.png", dpi=100)
        print(name, study.summary("cka").to_string(), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
