"""The spec files of the experiments at each scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from suture._base import SutureError, expect, make_unknown_error, show_value
from suture.studies.experiments.registry import EXPERIMENTS

SCALES: Mapping[str, str] = {"tiny": "scikit-learn's digits", "small": "CIFAR-10",
                             "paper": "the paper's data"}
"""Scales, and the data of each."""
_ENDING = ".toml"
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
    files = sorted(folder.glob(f"{name}{_ENDING}")) + sorted(folder.glob(f"{name}-*{_ENDING}"))
    return {path.stem.removeprefix(name).removeprefix("-"): path for path in files}


@dataclass(frozen=True)
class SpecFile:
    """One spec file of a scale.

    Attributes:
        experiment, part: that it belongs to.
        path: of the file.
    """

    experiment: str
    part: str
    path: Path


def list_files(folder: Path) -> list[SpecFile]:
    """Return all files of a scale, in the order of the experiments."""
    return [SpecFile(name, part, path) for name in EXPERIMENTS
            for part, path in list_parts(folder, name).items()]


def choose_files(given: str | Iterable[str], folder: Path) -> list[SpecFile]:
    """Return the files that are asked for, in their order.

    Args:
        given: "all", names of experiments, each of which stands for all of its files, and names of files,
            such as E1.toml.

    Raises:
        SutureError: an unknown one, or one that the scale does not have.
    """
    files = list_files(folder)
    there = list(dict.fromkeys(file.experiment for file in files))
    names = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
    expect(bool(names) and all(isinstance(name, str) for name in names), "names of experiments",
           show_value(given), f"write all, or some of {', '.join(there)}")
    if [name.lower() for name in names] == ["all"]:
        return files
    wanted = {name.lower() for name in names}
    for name in names:
        if name.lower().endswith(_ENDING):
            if name.lower() not in {file.path.name.lower() for file in files}:
                raise make_unknown_error(f"file of scale {folder.name}", name, [f.path.name for f in files])
            continue
        if name.upper() not in EXPERIMENTS:
            raise make_unknown_error("experiment", name, [*EXPERIMENTS, "all"])
        expect(name.upper() in there, f"an experiment of scale {folder.name}: {', '.join(there)}", name)
    return [file for file in files if file.experiment.lower() in wanted or file.path.name.lower() in wanted]
