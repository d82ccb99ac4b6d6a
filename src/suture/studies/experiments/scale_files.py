"""The spec files of the experiments at each scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from suture._base import SutureError, expect, make_unknown_error
from suture.studies.experiments.registry import EXPERIMENTS

SCALES: Mapping[str, str] = {"tiny": "scikit-learn's digits", "small": "CIFAR-10",
                             "paper": "the paper's data"}
"""Scales, and the data of each."""
_PLACES = (Path(__file__).parents[2] / "experiments", Path(__file__).parents[4] / "experiments")
"""Folders of the spec files: of an installed package, and of a checkout."""


def find_scale(scale: str) -> Path:
    """Return the folder of the spec files of a scale.

    Raises:
        SutureError: no such scale, or the files are missing.
    """
    if scale not in SCALES:
        raise make_unknown_error("scale", scale, SCALES)
    found = next((place / scale for place in _PLACES if (place / scale).is_dir()), None)
    if found is None:
        raise SutureError(f"the spec files of scale {scale!r} are missing in {str(_PLACES[0])!r}; install "
                          "suture again")
    return found


def list_parts(folder: Path, name: str) -> dict[str, Path]:
    """Return the files of an experiment by part: E5.toml has the part "", E5-back.toml "back"."""
    files = sorted(folder.glob(f"{name}.toml")) + sorted(folder.glob(f"{name}-*.toml"))
    return {path.stem.removeprefix(name).removeprefix("-"): path for path in files}


def choose_experiments(given: str | Iterable[str], folder: Path) -> list[str]:
    """Return the names of the experiments that are asked for, in their order; "all" are those with files.

    Raises:
        SutureError: an unknown one, or one that the scale does not have.
    """
    there = [name for name in EXPERIMENTS if list_parts(folder, name)]
    names = [given] if isinstance(given, str) else list(given)
    if names == ["all"]:
        return there
    expect(bool(names), "at least one experiment", "none", f"write all, or some of {', '.join(there)}")
    wanted = [name.upper() for name in names]
    for name in wanted:
        if name not in EXPERIMENTS:
            raise make_unknown_error("experiment", name, [*EXPERIMENTS, "all"])
        expect(name in there, f"an experiment of scale {folder.name}: {', '.join(there)}", name)
    return [name for name in there if name in wanted]
