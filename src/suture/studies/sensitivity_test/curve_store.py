"""Curves of networks in a folder, each known by all that decides it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

from suture._base import check_folder, hash_parts, replace_file
from suture.studies.sensitivity_test.network_curves import Deletion, NetworkCurves

CURVES, STUDY = "curves", "study"
"""Folders of the curves of each network, and of the study of all pairs."""


@dataclass(frozen=True)
class CurveStore:
    """The folder of a sensitivity test. A damaged file is computed again."""

    folder: Path

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> CurveStore:
        """Return the store of a folder that can be written."""
        place = check_folder(folder)
        (place / CURVES).mkdir(parents=True, exist_ok=True)
        return cls(place)

    def find_place(self, task: str, deletion: Deletion) -> Path:
        """Return the file of a network's curves; `task` is the key of its comparison with itself."""
        how = {"task": task, "ranks": repr(deletion.ranks), "batchwise": deletion.batchwise,
               "recipe": asdict(deletion.recipe)}
        return self.folder / CURVES / f"{hash_parts(how)}.json"

    @staticmethod
    def read(place: Path) -> NetworkCurves | None:
        """Return the curves in a file; None without any."""
        try:
            return NetworkCurves(**json.loads(place.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    @staticmethod
    def write(place: Path, curves: NetworkCurves) -> None:
        """Write curves, all or nothing."""
        replace_file(place, json.dumps(asdict(curves)).encode())
