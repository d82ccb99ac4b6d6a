"""The networks of a TOML file: specs with weights, checkpoints of a run, and networks to train."""

from __future__ import annotations

import glob
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import Doc

from suture import specs, zoo
from suture._base import (
    FilePath,
    Seed,
    SutureError,
    Whole,
    expect,
    make_unknown_error,
    options,
    show_value,
)
from suture.data import parse_preprocessing
from suture.networks import Recipe
from suture.studies.population.members import read_words
from suture.studies.population.sources import SpecNetwork
from suture.studies.spec.data_table import DataTable
from suture.studies.spec.option_tables import read_options
from suture.studies.spec.toml_file import TomlFile

_WORD = (str, int, float, bool)
_OF_TRAINING = ("recipe", "keep", "data")


@options
class NetworkTable:
    """One network of a file, or several that differ in weights or seed."""

    spec: Annotated[str | None, Doc("Network: zoo:NAME, torchvision:NAME, timm:NAME, hf:NAME or "
                                    "module:function (imports your code).")] = None
    train: Annotated[str | None, Doc("Network to train on the data before the pairs: zoo:NAME.")] = None
    weights: Annotated[FilePath | None, Doc("File of the weights of `spec`.")] = None
    checkpoints: Annotated[str | None, Doc(
        "Glob of files of weights of `spec`, such as runs/a/*.safetensors. Each is a network "
        "NAME-FILE.")] = None
    pattern: Annotated[str | None, Doc(
        "Pattern of the names of checkpoints whose fields are words about them, such as "
        "epoch-{epoch}.")] = None
    seed: Annotated[Seed | None, Doc("Seed of random weights, and of the training.")] = None
    seeds: Annotated[Sequence[Seed] | None, Doc(
        "Several seeds, each of which is a network NAME-seedS.")] = None
    input: Annotated[str | None, Doc(
        "Input in place of what the network asks for: raw, or size=64,...")] = None
    recipe: Annotated[str | Mapping[str, Any] | None, Doc(
        "Recipe of `train`: a name such as cifar10-resnet20, or a table of what differs from the usual one, "
        "or from that which it names, as {name = 'digits', epochs = 5}.")] = None
    data: Annotated[Mapping[str, Any] | None, Doc(
        "Table of what differs from [data] in the data of `train`, such as {classes = '5,6,7'}.")] = None
    keep: Annotated[Sequence[Annotated[Whole, Field(ge=0)]] | None, Doc(
        "Epochs of `train`, each of which is a network NAME-epochE; 0 is before training. Default: the "
        "last.")] = None
    about: Annotated[Mapping[str, Any] | None, Doc(
        "Table of what you say of it, such as {epoch = 10}; columns of the result.")] = None

    def __post_init__(self) -> None:
        expect((self.spec is None) != (self.train is None), "spec or train", "both" if self.spec else "none")
        if self.train is not None:
            check_trained(self.train)
        for name, fits in (("weights", self.spec), ("checkpoints", self.spec), ("input", self.spec),
                           ("recipe", self.train), ("keep", self.train), ("data", self.train),
                           ("pattern", self.checkpoints)):
            beside = {"pattern": "checkpoints"}.get(name, "train" if name in _OF_TRAINING else "spec")
            expect(getattr(self, name) is None or fits is not None, f"{beside} beside {name}", "none")
        for one, other in (("weights", "checkpoints"), ("seed", "seeds"), ("checkpoints", "seeds")):
            expect(None in (getattr(self, one), getattr(self, other)), f"{one} or {other}", "both")
        for name in ("seeds", "keep"):
            listed = getattr(self, name)
            expect(listed is None or 0 < len(set(listed)) == len(listed),
                   f"{name} that differ, at least one", show_value(listed))
        if isinstance(self.recipe, str):
            check_recipe(self.recipe)
        if self.input is not None:
            parse_preprocessing(self.input)
        for name, word in (self.about or {}).items():
            expect(isinstance(word, _WORD), f"a text or a number as {name} in about", show_value(word))


@options
class RecipeTable(Recipe):
    """What differs in a recipe, and the name of that recipe."""

    name: Annotated[str | None, Doc("Recipe that the others change. Default: digits on the digits, else "
                                    "paper.")] = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_recipe(self.name)


def check_trained(spec: str) -> None:
    expect(spec.startswith("zoo:"), "zoo:NAME as train", repr(spec))
    if (name := spec.removeprefix("zoo:")) not in zoo.networks:
        raise make_unknown_error("network of the zoo", name, zoo.networks)


def check_recipe(name: str) -> None:
    if name not in zoo.RECIPES:
        raise make_unknown_error("recipe", name, zoo.RECIPES)


@dataclass(frozen=True)
class Entry:
    """One network of a file.

    Attributes:
        table: its name in the file.
        given: the source, or for one to train its table.
        about: what the file says of it.
        run: name of the training, or the folder of checkpoints, that it is an epoch of; "" for none.
    """

    table: str
    given: SpecNetwork | TrainingEntry
    about: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""

    @property
    def is_given(self) -> bool:
        """True if it need not be trained."""
        return isinstance(self.given, SpecNetwork)

    @property
    def training_data(self) -> DataTable | None:
        """The data that it is trained on; None for those of the study."""
        return None if isinstance(self.given, SpecNetwork) else self.given.data


@dataclass(frozen=True)
class TrainingEntry:
    """A network to train.

    Attributes:
        name: in the zoo.
        recipe: what differs, and the name of the recipe if it is not the usual one.
        seed: of its weights and its training.
        label: of the training, in the names of its files.
        epoch: after which it is taken; None for the last.
        data: that it is trained on; None for those of the study.
    """

    name: str
    recipe: Mapping[str, Any]
    seed: int
    label: str
    epoch: int | None = None
    data: DataTable | None = None

    def choose_recipe(self, usual: Recipe) -> Recipe:
        """Return the recipe; `usual` is that of the data."""
        given = dict(self.recipe)
        name = given.pop("name", None)
        return replace(usual if name is None else zoo.RECIPES[name], **{**given, "seed": self.seed})


def read_networks(file: TomlFile) -> dict[str, Entry]:
    """Return the networks of a file by name, in its order.

    Raises:
        SutureError: none, two of one name, or bad keys; the message names the line.
    """
    found: dict[str, Entry] = {}
    tables = file.get_table(("networks",))
    expect(bool(tables), f"networks in {file.path.name}", "none", "write [networks.NAME] with spec or train")
    for name, given in tables.items():
        place = "networks", name
        if isinstance(given, str):
            table = NetworkTable(given)
        else:
            table = read_options(file, place, NetworkTable, NetworkTable)
        if isinstance(table.recipe, Mapping):
            read_options(file, (*place, "recipe"), RecipeTable, RecipeTable,
                         only=[o for o in RecipeTable.__dataclass_fields__ if o != "seed"])
        own = None if table.data is None else read_options(file, (*place, "data"), DataTable, partial(
            DataTable.extend, file.get_table(("data",))))
        with file.locate(place):
            expect(bool(name.strip()), "a name of the network", repr(name))
            for each, entry in _expand(name, table, own):
                expect(each not in found, "one name for each network", f"{each!r} twice")
                read_words(each, entry.about)
                found[each] = entry
    return found


def _expand(name: str, table: NetworkTable, data: DataTable | None) -> Iterator[tuple[str, Entry]]:
    about = dict(table.about or {})
    if table.checkpoints is not None:
        for short, path, fields in _find_checkpoints(table.checkpoints, table.pattern):
            given = SpecNetwork(str(table.spec), path, table.seed or 0, table.input)
            yield f"{name}-{short}", Entry(name, given, fields | about, f"{name}-{Path(short).parent}")
        return
    each: Sequence[int | None] = table.seeds or [table.seed]
    for seed in each:
        own = name if table.seeds is None else f"{name}-seed{seed}"
        words = about if seed is None else {"seed": seed} | about
        if table.train is not None:
            recipe = {"name": table.recipe} if isinstance(table.recipe, str) else dict(table.recipe or {})
            last = TrainingEntry(table.train.removeprefix("zoo:"), recipe, seed or 0, own, data=data)
            for epoch in table.keep or (None,):
                kept = {} if epoch is None else {"epoch": epoch}
                yield own if epoch is None else f"{own}-epoch{epoch}", Entry(
                    name, replace(last, epoch=epoch), {"seed": seed or 0} | kept | about,
                    "" if epoch is None else own)
        else:
            weights = None if table.weights is None else Path(table.weights)
            yield own, Entry(name, SpecNetwork(str(table.spec), weights, seed or 0, table.input), words)


def _find_checkpoints(pattern: str, names: str | None) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Yield name, file and fields of each checkpoint, numbers in names in their order."""
    parts = Path(pattern).parts
    fixed = next((k for k, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    base = Path(*parts[:fixed])
    found = [(path.relative_to(base).with_suffix("").as_posix(), path)
             for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file()]
    expect(bool(found), f"files of weights at {pattern}", "none")
    for short, path in sorted(found, key=lambda each: _split_numbers(each[0])):
        yield short, path, {} if names is None else _read_fields(names, short)


def _split_numbers(text: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part)
            for part in re.split(r"(\d+)", text) if part]


def _read_fields(pattern: str, name: str) -> dict[str, Any]:
    """Return the fields of a pattern such as "epoch-{epoch}" in a name."""
    try:
        pieces = list(string.Formatter().parse(pattern))
        expression = "".join(re.escape(text) + (f"(?P<{word}>.+?)" if word is not None else "")
                             for text, word, _, _ in pieces)
        found = re.fullmatch(expression, name)
    except (ValueError, re.error) as error:
        raise SutureError(f"expected a pattern such as epoch-{{epoch}}, got {pattern!r}: {error}") from error
    if found is None:
        raise SutureError(f"expected names of checkpoints like {pattern!r}, got {name!r}")
    return {word: _read_number(text) for word, text in found.groupdict().items()}


def _read_number(text: str) -> Any:
    for kind in (int, float):
        if re.fullmatch(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", text):
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def list_code(entries: Mapping[str, Entry]) -> list[str]:
    """Return the specs that import code of the user; a bad one is the failure of its network alone."""
    named = [entry.given.spec for entry in entries.values() if isinstance(entry.given, SpecNetwork)]
    found = []
    for spec in dict.fromkeys(named):
        with suppress(SutureError):
            found += [spec] * specs.imports_code(spec)
    return found
