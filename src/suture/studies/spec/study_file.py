"""The file of a study: networks, data, pairs and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from suture import specs, zoo
from suture._base import clean_file_name, expect, hash_parts, list_options, make_unknown_error
from suture.compare import Settings
from suture.networks import Recipe
from suture.studies.network_study.options import StudyOptions, parse_size
from suture.studies.population.pairs import PairName, list_pairs
from suture.studies.population.sources import NetworkSource, SpecNetwork, TrainedNetwork
from suture.studies.running.engine_choice import find_engine
from suture.studies.running.store import NETWORKS
from suture.studies.spec.data_table import DataTable
from suture.studies.spec.network_tables import Entry, TrainingEntry, list_code, read_networks
from suture.studies.spec.option_tables import read_options
from suture.studies.spec.toml_file import TomlFile

_TABLES = ("networks", "data", "study", "settings", "experiment")
_STUDY = ("pairs", "folder", "engine", "pass_memory")
"""Options of a study that stand in its own table."""


@dataclass(frozen=True)
class StudyFile:
    """What the file of a study says. Its paths are those of the working directory.

    Attributes:
        file: the TOML file.
        networks: by name.
        data: what data to read, and how.
        study: pairs, folder, engine and pass_memory, as far as it gives them.
        settings: of each comparison.
        experiment: what it says to `suture.reproduce`.
    """

    file: TomlFile
    networks: Mapping[str, Entry]
    data: DataTable
    study: Mapping[str, Any]
    settings: Settings
    experiment: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, places: Mapping[str, str] | None = None) -> StudyFile:
        """Read a file without opening networks or data.

        Args:
            places: paths by the names that stand for them, as in ``spec = "{cifar10}"``.

        Raises:
            SutureError: bad input; the message names the file, the key and its line.
        """
        file = TomlFile.read(path)
        return cls.of(file if places is None else file.fill(places))

    @classmethod
    def of(cls, file: TomlFile) -> StudyFile:
        """Return what a TOML file says; errors as for `read`."""
        for name in file.content:
            if name not in _TABLES:
                raise file.refuse((name,), str(make_unknown_error("table", name, _TABLES)))
        made = cls(file, read_networks(file), read_options(file, ("data",), DataTable, DataTable),
                   read_options(file, ("study",), StudyOptions, dict, only=_STUDY),
                   read_options(file, ("settings",), Settings, Settings), file.get_table(("experiment",)))
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
        return self.data.usual

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """Training and test data, all of them."""
        with self.file.locate(("data", "spec")):
            return self.data.load(self.settings.seed)

    def load_images(self, own: DataTable | None) -> tuple[zoo.ImageSet, zoo.ImageSet]:
        """Return the images that networks are trained and tested on: those of the study, or their own."""
        if own not in self._images:
            made = self.loaded if own is None else own.load(self.settings.seed)
            self._images[own] = specs.as_image_sets(made, (own or self.data).spec or "")
        return self._images[own]

    @cached_property
    def _images(self) -> dict[DataTable | None, tuple[zoo.ImageSet, zoo.ImageSet]]:
        return {}

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
        sources = {name: self._make_source(name) for name in self.networks}
        with self.file.locate(("data", "fitting_size")):
            data = self.data.draw_fitting(self.loaded[0], self.settings.seed)
        settings = {o.name: getattr(self.settings, o.name) for o in list_options(Settings)}
        given = {**self.study, "folder": self.folder}
        if given.get("pairs") == "consecutive":
            given["pairs"] = self.list_pairs()
        return StudyOptions(sources, data=data, test=self.loaded[1], **given, **settings,
                            about={name: entry.about for name, entry in self.networks.items()})

    def _make_source(self, name: str) -> NetworkSource:
        entry = self.networks[name]
        if isinstance(entry.given, SpecNetwork):
            return entry.given
        with self.file.locate(("networks", entry.table)):
            images = self.load_images(entry.given.data)
            recipe = entry.given.choose_recipe(self.usual)
        key = hash_parts(zoo.make_training_key(entry.given.name, entry.given.seed, recipe, images[0]))
        path = self.folder / NETWORKS / f"{clean_file_name(entry.given.label)[:60]}-{key}.safetensors"
        return TrainedNetwork(entry.given.name, recipe, path, entry.given.epoch)
