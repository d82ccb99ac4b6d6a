"""The file of a study: networks, data, pairs and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import Doc

from suture import specs, zoo
from suture._base import clean_file_name, expect, hash_parts, list_options, make_unknown_error, options
from suture.compare import Settings
from suture.networks import Recipe
from suture.studies.network_study.options import StudyOptions, parse_size
from suture.studies.population.pairs import PairName, list_pairs
from suture.studies.population.sources import NetworkSource, SpecNetwork, TrainedNetwork
from suture.studies.running.engine_choice import find_engine
from suture.studies.running.store import NETWORKS
from suture.studies.spec.network_tables import Entry, TrainingEntry, list_code, read_networks
from suture.studies.spec.option_tables import read_options
from suture.studies.spec.toml_file import TomlFile

_TABLES = ("networks", "data", "study", "settings")
_STUDY = ("pairs", "folder", "engine", "pass_memory")
"""Options of a study that stand in its own table."""


@options
class DataTable(specs.ReadingOptions):
    """The data of a file."""

    spec: Annotated[str | None, Doc("Data, as `suture compare --data` takes them.")] = None

    def __post_init__(self) -> None:
        expect(bool(self.spec), "spec of the data", "none", 'write spec = "digits", or another')


@dataclass(frozen=True)
class StudyFile:
    """What the file of a study says. Its paths are those of the working directory.

    Attributes:
        file: the TOML file.
        networks: by name.
        data: what data to read, and how.
        study: pairs, folder, engine and pass_memory, as far as it gives them.
        settings: of each comparison.
    """

    file: TomlFile
    networks: Mapping[str, Entry]
    data: DataTable
    study: Mapping[str, Any]
    settings: Settings

    @classmethod
    def read(cls, path: Path) -> StudyFile:
        """Read a file without opening networks or data.

        Raises:
            SutureError: bad input; the message names the file, the key and its line.
        """
        file = TomlFile.read(path)
        for name in file.content:
            if name not in _TABLES:
                raise file.refuse((name,), str(make_unknown_error("table", name, _TABLES)))
        made = cls(file, read_networks(file), read_options(file, ("data",), DataTable, DataTable),
                   read_options(file, ("study",), StudyOptions, dict, only=_STUDY),
                   read_options(file, ("settings",), Settings, Settings))
        made.check_epochs()
        with file.locate(("study", "pairs")):
            made.list_pairs()
        with file.locate(("study", "engine")):
            find_engine(made.study.get("engine", "serial"))
        with file.locate(("study", "pass_memory")):
            parse_size(made.study.get("pass_memory", "0"))
        with file.locate(("study", "folder")):
            expect(isinstance(made.study.get("folder", ""), str), "a folder", repr(made.study.get("folder")))
        return made

    def list_pairs(self) -> tuple[PairName, ...]:
        """Return the pairs; consecutive networks are of one training, or of none."""
        wanted, run = self.study.get("pairs", "all"), {name: e.run for name, e in self.networks.items()}
        found = list_pairs(list(self.networks), wanted)
        if wanted != "consecutive":
            return found
        kept = tuple((a, b) for a, b in found if run[a] == run[b] or not (run[a] and run[b]))
        expect(bool(kept), "consecutive networks of one training", "none")
        return kept

    @property
    def usual(self) -> Recipe:
        """The recipe of the data, for networks that name none."""
        return zoo.DIGITS_RECIPE if self.data.spec == "digits" else Recipe.paper()

    def check_epochs(self) -> None:
        """Check that every epoch to keep is one of its training."""
        for entry in self.networks.values():
            if isinstance(entry.given, TrainingEntry) and entry.given.epoch is not None:
                last = entry.given.choose_recipe(self.usual).epochs
                with self.file.locate(("networks", entry.table, "keep")):
                    expect(entry.given.epoch <= last, f"epochs to keep from 0 to {last}", entry.given.epoch,
                           "write a larger epochs in its recipe")

    @property
    def folder(self) -> Path:
        """The folder of its results, which is named after the file unless the file names one."""
        return Path(self.study.get("folder") or self.file.path.with_suffix(""))

    @property
    def code(self) -> list[str]:
        """The functions of the user that it runs."""
        found = list_code(self.networks)
        return found + [self.data.spec] * specs.runs_code(self.data.spec or "")  # type: ignore[list-item]

    def open(self) -> StudyOptions:
        """Read the data, and return the arguments of `suture.study`."""
        with self.file.locate(("data", "spec")):
            data = self.data.load_data(self.data.spec or "", self.settings.seed)
        sources = {name: self._make_source(entry, data) for name, entry in self.networks.items()}
        settings = {o.name: getattr(self.settings, o.name) for o in list_options(Settings)}
        given = {**self.study, "folder": self.folder}
        if given.get("pairs") == "consecutive":
            given["pairs"] = self.list_pairs()
        return StudyOptions(sources, data=data[0], test=data[1], **given, **settings,
                            about={name: entry.about for name, entry in self.networks.items()})

    def _make_source(self, entry: Entry, data: tuple[Any, Any]) -> NetworkSource:
        if isinstance(entry.given, SpecNetwork):
            return entry.given
        with self.file.locate(("networks", entry.table)):
            images = specs.as_image_sets(data, self.data.spec or "")
            recipe = entry.given.choose_recipe(self.usual)
        key = hash_parts(zoo.make_training_key(entry.given.name, entry.given.seed, recipe, images[0]))
        path = self.folder / NETWORKS / f"{clean_file_name(entry.given.label)[:60]}-{key}.safetensors"
        return TrainedNetwork(entry.given.name, recipe, path, entry.given.epoch)
