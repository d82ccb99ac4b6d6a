"""Compare the inner representations of neural networks by stitching them together.

>>> result = suture.compare(network, other, data=train, test=test)
>>> result.matrix("dm.relative_accuracy"); result.verdict(); result.report("report.html")

Public names are loaded when they are first used, so that `import suture` costs nothing by itself.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from suture import indices as indices
    from suture import studies as studies
    from suture import zoo as zoo
    from suture._base import SutureError as SutureError
    from suture.compare import StitchedNetwork as StitchedNetwork
    from suture.compare import compare as compare
    from suture.compare import compare_arrays as compare_arrays
    from suture.compare import dry_run as dry_run
    from suture.compare import load_stitched as load_stitched
    from suture.compare import merge as merge
    from suture.compare import paper as paper
    from suture.compare import stitch as stitch
    from suture.data import ImagePreprocessing as ImagePreprocessing
    from suture.data import Paired as Paired
    from suture.data import Prepared as Prepared
    from suture.data import TextPreprocessing as TextPreprocessing
    from suture.data import sources as sources
    from suture.indices import merged_moments as merged_moments
    from suture.networks import Site as Site
    from suture.networks import capture as capture
    from suture.networks import find_sites as find_sites
    from suture.networks import run_tail as run_tail
    from suture.numbers import MEASURES as MEASURES
    from suture.ood import OOD as OOD
    from suture.ood import EnergyRecipe as EnergyRecipe
    from suture.ood import Thresholds as Thresholds
    from suture.representations import AlignmentRule as AlignmentRule
    from suture.results import Comparison as Comparison
    from suture.results import load as load
    from suture.results import style as style
    from suture.stitching import Family as Family
    from suture.stitching import StitchingLayer as StitchingLayer
    from suture.stitching import TaskRecipe as TaskRecipe
    from suture.studies import Study as Study
    from suture.studies import controls as controls
    from suture.studies import probe as probe
    from suture.studies import report as report
    from suture.studies import reproduce as reproduce
    from suture.studies import sensitivity as sensitivity
    from suture.studies import study as study
    from suture.studies import validate as validate

_NAMES = {
    "_base": ("SutureError",),
    "numbers": ("MEASURES",),
    "indices": ("merged_moments",),
    "representations": ("AlignmentRule",),
    "data": ("ImagePreprocessing", "Paired", "Prepared", "TextPreprocessing", "sources"),
    "networks": ("Site", "capture", "find_sites", "run_tail"),
    "stitching": ("Family", "StitchingLayer", "TaskRecipe"),
    "ood": ("OOD", "EnergyRecipe", "Thresholds"),
    "results": ("Comparison", "load", "style"),
    "compare": ("StitchedNetwork", "compare", "compare_arrays", "dry_run", "load_stitched", "merge", "paper",
                "stitch"),
    "studies": ("Study", "probe", "report", "reproduce", "sensitivity", "study", "validate"),
}
_ROOM_OF = {name: room for room, names in _NAMES.items() for name in names}
_ROOMS = {"indices": "indices", "zoo": "zoo", "studies": "studies", "controls": "studies.controls"}
"""Rooms, and parts of rooms, that are themselves public."""

__all__ = sorted([*_ROOM_OF, *_ROOMS])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("suture")
    if name in _ROOMS:
        with say_loading():
            return importlib.import_module(f"suture.{_ROOMS[name]}")
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'suture' has no attribute {name!r}")
    with say_loading():
        found = getattr(importlib.import_module(f"suture.{_ROOM_OF[name]}"), name)
    if name != "compare":
        globals()[name] = found
    return found


@contextmanager
def say_loading() -> Iterator[None]:
    """Say on a terminal that PyTorch is loading, for seconds, in a line that goes when it is done.

    A room is imported by then, which shows progress itself (`_base`); that one needs PyTorch.
    """
    workers = sys.modules.get("multiprocessing.process")
    shown = ("torch" not in sys.modules and os.environ.get("SUTURE_PROGRESS") != "0"
             and os.environ.get("TERM") != "dumb" and (workers is None or workers.parent_process() is None)
             and all(s is not None and s.isatty() for s in (sys.stdout, sys.stderr)))
    text = "suture: loading PyTorch"
    if shown:
        sys.stderr.write(text)
        sys.stderr.flush()
    try:
        yield
    finally:
        if shown:
            sys.stderr.write("\b" * len(text) + "\x1b[K")  # what stood before it in the line stays
            sys.stderr.flush()


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Suture(ModuleType):
    """The package, whose `compare` is the function and never the room of that name.

    The import system binds a room to its name in the package as soon as it is loaded.
    """

    @property
    def compare(self) -> Any:
        """Return `suture.compare.compare`."""
        return __getattr__("compare")

    @compare.setter
    def compare(self, room: ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = _Suture
