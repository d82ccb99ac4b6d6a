"""The options of a study: those of a comparison, and the networks, pairs, folder and engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import SkipValidation
from typing_extensions import Doc

from suture._base import FilePath, SutureError, expect, options, show_value
from suture.compare import Settings
from suture.studies.following.finished_pair import Callback

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def parse_size(text: Any) -> int:
    """Return the number of bytes that a text such as "500MB" says."""
    given = text.strip().lower() if isinstance(text, str) else ""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]b|b|)", given)
    if found is None:
        raise SutureError(f"expected memory such as 4GB, got {show_value(text)}; write '4GB', or '0' for "
                          "none")
    return round(float(found[1]) * _UNITS[found[2]])


@options
class StudyOptions(Settings):
    """Arguments of `suture.study`: networks, data, pairs and the settings of each comparison."""

    networks: Annotated[Any, Doc(
        "Networks by name, or a list of them: modules, functions without arguments that build one (or a pair "
        "of one and its preprocessing), or specs such as zoo:resnet_digits. Functions and specs build a "
        "network when it is its turn, so that many need not be in memory at once.")]
    data: Annotated[Any, Doc(
        "Examples for stitching layers and indices, as `suture.compare` takes them.")] = None
    test: Annotated[Any, Doc("Examples for the evaluation of stitched networks.")] = None
    pairs: Annotated[Any, SkipValidation, Doc(
        "Pairs (source, target): all (every pair once, each network with itself too), directed (both ways), "
        "self, consecutive, with:NAME (the network NAME into each), a list of pairs of names, or a function "
        "of two names.")] = "all"
    about: Annotated[Mapping[str, Mapping[str, Any]] | None, Doc(
        "What you say of each network, by its name, such as {'a': {'seed': 0, 'epoch': 10}}; columns of the "
        "table.")] = None
    folder: Annotated[FilePath | None, Doc(
        "Folder that results are written to as they come. The same call goes on from there, and several "
        "processes may share it. Changed networks, data or settings are computed anew beside it. None: "
        "nothing is kept.")] = None
    engine: Annotated[Any, SkipValidation, Doc(
        "Engine that runs the pairs: serial, processes:N or ray:N (N workers of this machine), ray, "
        "ray:ADDRESS (a cluster), or a `suture.studies.Ray` with CPUs and GPUs for each pair. All but serial "
        "need a folder, which all workers see.")] = "serial"
    on_result: Annotated[Any, SkipValidation, Doc(
        "Function, or list of functions, called with a `suture.studies.FinishedPair` of each pair that is "
        "compared or fails, such as `suture.studies.MLflow()`. Its errors do not end the study.")] = None
    pass_memory: Annotated[str, Doc(
        "Memory for passes over the data that pairs share, such as 500MB: pairs are taken together as far as "
        "their sums and representations fit into it, and into half of the free memory. 0: each pair passes "
        "the data on its own.")] = "4GB"

    @property
    def memory_bytes(self) -> int:
        return parse_size(self.pass_memory)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.memory_bytes  # raises for a bad one
        expect(self.names is None, "names of networks as keys of networks", "names=",
               "write networks={name: network}")
        for callback in self.callbacks:
            expect(callable(callback), "a function, or a list of functions, as on_result", callback)

    @property
    def callbacks(self) -> list[Callback]:
        """The functions to call with each finished pair."""
        given = self.on_result
        return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
