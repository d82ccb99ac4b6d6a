"""A study as one TOML file: what it may say, and where each error is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from suture import SutureError, zoo
from suture.studies import StudyFile
from suture.studies.population.sources import SpecNetwork
from suture.studies.spec.commands import _list
from suture.studies.spec.network_tables import Entry, TrainingEntry
from suture.studies.spec.toml_file import TomlFile
from suture.studies.spec.training import list_trainings
from tests.support import tiny

Write = Callable[[str], Path]
LEAST = """
[data]
spec = "tests.support.tiny:data"
[networks]
a = "tests.support.tiny:network"
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def make(text: str) -> Path:
        (tmp_path / "my.toml").write_text(text)
        return Path("my.toml")

    return make


def test_the_least_file(write: Write) -> None:
    made = StudyFile.read(write(LEAST))
    assert made.networks == {"a": Entry("a", SpecNetwork("tests.support.tiny:network"))}
    assert made.folder == Path("my")
    assert made.code == ["tests.support.tiny:network", "tests.support.tiny:data"]
    given = made.open()
    assert (given.pairs, given.engine, given.folder) == ("all", "serial", Path("my"))
    assert torch.equal(given.data[0], tiny.data()[0][0])


def test_every_table(write: Write) -> None:
    made = StudyFile.read(write("""
[data]
spec = "tests.support.tiny:image_sets"
train_size = 20
[networks.run]
train = "zoo:resnet_digits"
seeds = [3, 4]
recipe = {epochs = 1, lr = 1}
about = {width = 16}
[networks.b]
spec = "zoo:resnet_digits"
weights = "b.safetensors"
seed = 2
input = "raw"
[study]
pairs = [["b", "run-seed3"]]
folder = "out"
engine = "processes:3"
[settings]
seed = 5
methods = ["tlm"]
jackknife = 20
groups = [0, 0, 1]
[settings.tlm]
epochs = 2
lr = 1
[settings.alignment]
resize = "nearest"
[settings.ood]
detectors = ["energy"]
energy = {epochs = 3}
thresholds = {works = 0.5}
"""))
    assert made.networks["b"] == Entry("b", SpecNetwork("zoo:resnet_digits", Path("b.safetensors"), 2, "raw"),
                                       {"seed": 2})
    given = made.networks["run-seed4"]
    assert given.about == {"seed": 4, "width": 16}
    assert isinstance(given.given, TrainingEntry)
    assert given.given.choose_recipe(zoo.DIGITS_RECIPE).lr == 1.0
    assert list(made.networks) == ["run-seed3", "run-seed4", "b"]
    how, ood = made.settings, made.settings.detection
    assert (how.methods, how.jackknife, how.alignment.resize) == (("tlm",), 20, "nearest")
    assert (how.recipe.epochs, how.recipe.lr, how.recipe.seed) == (2, 1.0, 5)
    assert ood is not None
    assert ood.energy is not None
    assert (ood.names, ood.energy.epochs, ood.energy.seed, ood.thresholds.works) == (("energy",), 3, 5, 0.5)
    assert made.folder == Path("out")
    sources = made.open().networks
    paths = [sources[f"run-seed{k}"].path for k in (3, 4)]
    assert len({p.name[-28:] for p in paths}) == 2  # seeds have their own keys


@pytest.mark.parametrize(("ood", "methods"), [('"none"', None), ("[]", ()), ('["energy"]', ("energy",))])
def test_ood_in_one_line(write: Write, ood: str, methods: Any) -> None:
    found = StudyFile.read(write(f"{LEAST}[settings]\nood = {ood}")).settings.detection
    assert (None if found is None else found.names) == methods


def test_auxiliary_data_by_path_are_part_of_the_keys(write: Write) -> None:
    """A study computes a pair anew if its auxiliary data have changed, not if they lie elsewhere."""
    spec = LEAST + "[settings]\nmethods = ['dm']\nood.auxiliary = '{}.npy'\nood.most = 8\n"
    made = np.random.default_rng(0).random((9, 2, 8, 8)).astype(np.float32)
    keys = {}
    for name, changed in (("a", 0), ("same", 0), ("b", 1)):
        np.save(name, made + changed)
        file = StudyFile.read(write(spec.format(name)))
        assert file.settings.detection is not None
        assert len(file.settings.detection.auxiliary) == 9
        keys[name] = _list(file)[0].tasks[0].key
    assert keys["a"] == keys["same"] != keys["b"]


def test_checkpoints_come_in_the_order_of_their_numbers(write: Write, tmp_path: Path) -> None:
    for name in ("r1/epoch-10.pt", "r1/epoch-9.pt", "r2/epoch-1.pt"):
        (tmp_path / "runs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / name).touch()
    made = StudyFile.read(write("""
[data]
spec = "digits"
[networks.x]
spec = "zoo:resnet_digits"
checkpoints = "runs/*/*.pt"
pattern = "{run}/epoch-{epoch}"
about = {width = 3}
"""))
    spec = "zoo:resnet_digits"
    expected = [(f"x-{run}/epoch-{k}", SpecNetwork(spec, Path(f"runs/{run}/epoch-{k}.pt")),
                 {"run": run, "epoch": k, "width": 3}) for run, k in (("r1", 9), ("r1", 10), ("r2", 1))]
    assert [(name, entry.given, entry.about) for name, entry in made.networks.items()] == expected
    assert replace(made, study={"pairs": "consecutive"}).list_pairs() == (("x-r1/epoch-9", "x-r1/epoch-10"),)


def test_epochs_that_are_kept_and_recipes_by_name(write: Write) -> None:
    made = StudyFile.read(write("""
[data]
spec = "tests.support.tiny:image_sets"
[networks.run]
train = "zoo:resnet_digits"
keep = [0, 2]
seeds = [3, 4]
recipe = "digits"
about = {width = 16}
[networks.b]
train = "zoo:resnet_digits"
recipe = {name = "cifar10-resnet20", epochs = 2}
"""))
    assert list(made.networks) == ["run-seed3-epoch0", "run-seed3-epoch2", "run-seed4-epoch0",
                                   "run-seed4-epoch2", "b"]
    assert made.networks["run-seed4-epoch2"].about == {"seed": 4, "epoch": 2, "width": 16}
    sources: Any = made.open().networks
    assert sources["run-seed3-epoch2"].recipe == replace(zoo.DIGITS_RECIPE, seed=3)
    assert sources["b"].recipe == replace(zoo.RECIPES["cifar10-resnet20"], epochs=2)
    assert len({s.training for s in sources.values()}) == 3
    assert sources["run-seed3-epoch2"].path.name.endswith("-epoch2.safetensors")
    consecutive = replace(made, study={"pairs": "consecutive"})
    assert consecutive.list_pairs() == consecutive.open().pairs == (
        ("run-seed3-epoch0", "run-seed3-epoch2"), ("run-seed4-epoch0", "run-seed4-epoch2"),
        ("run-seed4-epoch2", "b"))
    tasks = list_trainings(sources)
    assert [(t.pair[0], t.keep) for t in tasks] == [("run-seed3", (0, 2)), ("run-seed4", (0, 2)), ("b", ())]


BAD = [
    ("[networks.b]\nspec = 'x'\nwieghts = 'w'", 9, "networks.b.wieghts", "weights"),
    ("[networks.b]\nspec = 'x'\n\nseed = 'a'", 10, "networks.b.seed", "whole number"),
    ("[networks.b]\nspec = 'x'\nseed = 1\nseeds = [1, 2]", 9, "networks.b.seed", "both"),
    ("[networks.b]\nspec = 'x'\nseeds = [1, 1]", 9, "networks.b.seeds", "differ"),
    ("[networks.b]\nspec = 'x'\ntrain = 'zoo:resnet20'", 8, "networks.b.spec", "both"),
    ("[networks.b]\nabout = {epoch = 3}", 7, "networks.b", "none"),
    ("[networks.b]\nspec = 'x'\nrecipe = {epochs = 3}", 9, "networks.b.recipe", "train"),
    ("[networks.b]\nspec = 'x'\n[networks.b.about]\nw = [1]", 9, "networks.b.about", "text"),
    ("[networks.b]\ntrain = 'resnet20'", 8, "networks.b.train", "zoo:NAME"),
    ("[networks.b]\nkeep = [1]\ntrain = 'zoo:resnet2'", 9, "networks.b.train", "'resnet2'"),
    ("[networks.b]\ntrain = 'zoo:resnet20'\n[networks.b.recipe]\nepoch = 3", 10, "networks.b.recipe.epoch",
     "epochs"),
    ("[networks.b]\ntrain = 'zoo:resnet20'\n[networks.b.recipe]\nseed = 3", 10, "networks.b.recipe.seed", ""),
    ("[networks.b]\ntrain = 'zoo:resnet20'\nrecipe = 'cifar10-resnet2'", 9, "networks.b.recipe",
     "cifar10-resnet20"),
    ("[networks.b]\ntrain = 'zoo:resnet20'\n[networks.b.recipe]\nname = 'digit'", 10,
     "networks.b.recipe.name", "digits"),
    ("[networks.b]\ntrain = 'zoo:resnet20'\nkeep = [1, 1]", 9, "networks.b.keep", "differ"),
    ("[networks.b]\ntrain = 'zoo:resnet20'\nkeep = []", 9, "networks.b.keep", "differ"),
    ("[networks.b]\ntrain = 'zoo:resnet20'\nkeep = [-1]", 9, "networks.b.keep", "0"),
    ("[networks.b]\nspec = 'x'\nkeep = [1]", 9, "networks.b.keep", "train"),
    ("[networks.b]\ntrain = 'zoo:resnet20'\n\nkeep = [1, 101]", 10, "networks.b.keep", "0 to 100, got 101"),
    ("[networks.b]\ntrain = 'zoo:resnet20'\nrecipe = 'cifar10-resnet20'\nkeep = [31]", 10, "networks.b.keep",
     "0 to 30"),
    ("[networks.b]\nspec = 'x'\ncheckpoints = 'none/*.pt'", 7, "networks.b", "none/*.pt"),
    ("[networks.b]\nspec = 'x'\ncheckpoints = 'my.toml'\npattern = '{a}-{b}'", 7, "networks.b", "'my'"),
    ("[networks.b]\nspec = 'x'\ncheckpoints = 'my.toml'\npattern = '{a b}'", 7, "networks.b", "{a b}"),
    ("[networks.b]\nspec = 'x'\ninput = 'sise=3'", 9, "networks.b.input", "size"),
    ("[networks.a-seed0]\nspec = 'x'\n[networks.'']\nspec = 'x'", 9, "networks.", "''"),
    ("[networks.a-seed0]\nspec = 'x'\n[networks.aa]\nspec = 'x'\n[data.x]", 11, "data.x", "train_size"),
    ("[settings]\nmethdos = []", 8, "settings.methdos", "methods"),
    ("[settings]\nmethods = [\n 'dn',\n]", 8, "settings.methods", "dm"),
    ("[settings]\nprecision = 'float16'", 8, "settings.precision", "float32"),
    ("[settings]\nseed = 1979-05-27", 8, "settings.seed", "whole number"),
    ("[settings]\nprogress = 'x'", 8, "settings.progress", "Python"),
    ("[settings]\nood.own = {a = 'b'}", 8, "settings.ood.own", "Python"),
    ("[settings]\nood.energy = {epoch = 3}", 8, "settings.ood.energy.epoch", "epochs"),
    ("[settings]\nalignment = 'nearest'", 8, "settings.alignment", "table"),
    ("[settings]\ngroups = 'none.npy'", 8, "settings.groups", "none.npy"),
    ("[settings]\nood.auxiliary = 'tests.support.tiny:none'", 8, "settings.ood.auxiliary", "none"),
    ("[settings.tlm]\nepochs = 0", 8, "settings.tlm.epochs", "at least 1"),
    ("[settings.tlm]\nseeds = 3\ninit = 'dm'", 8, "settings.tlm.seeds", "init="),
    ("[study]\npairs = 'al'", 8, "study.pairs", "all"),
    ("[study]\npairs = [['a', 'b']]", 8, "study.pairs", "'b'"),
    ("[study]\nengine = 'slurm'", 8, "study.engine", "serial"),
    ("[study]\nfolder = 3", 8, "study.folder", "3"),
    ("[study]\npass_memory = 'much'", 8, "study.pass_memory", "4GB"),
    ("[study]\npass_memory = 4", 8, "study.pass_memory", "got 4"),
    ("[networks.b]\nspec = 'x'\nabout = {network = 'y'}", 7, "networks.b", "source_network"),
    ("[networks.b]\nspec = 'x'\ncheckpoints = 'my.toml'\npattern = '{network}'", 7, "networks.b", "got 'my'"),
    ("[study]\nnetworks = 3", 8, "study.networks", "pairs"),
    ("[sttings]", 7, "sttings", "settings"),
]


@pytest.mark.parametrize(("text", "line", "key", "named"), BAD)
def test_an_error_names_file_line_key_and_what_is_allowed(write: Write, text: str, line: int, key: str,
                                                          named: str) -> None:
    path = write(f"# a study{LEAST}\n{text}")
    with pytest.raises(SutureError) as error:
        StudyFile.read(path)
    assert str(error.value).startswith(f"my.toml, line {line}, {key}: ")
    assert named in str(error.value)


@pytest.mark.parametrize(("text", "named"), [
    ("[data]\nspec = ", "end of document"), (LEAST + "[data]", "line 6"), ("", "networks"),
    ("[networks]", "networks"),
    (LEAST.replace('spec = "tests.support.tiny:data"', ""), "spec of the data")])
def test_a_file_that_is_no_study(write: Write, text: str, named: str) -> None:
    with pytest.raises(SutureError, match=named):
        StudyFile.read(write(text))
    with pytest.raises(SutureError, match=r"missing\.toml"):
        StudyFile.read(Path("missing.toml"))
    Path("my.toml").write_bytes(b"\xff")
    with pytest.raises(SutureError, match="UTF-8"):
        StudyFile.read(Path("my.toml"))


def test_the_file_of_the_docs(write: Write, tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "studies.md"
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "epoch-2.pt").touch()
    text = page.read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0]
    made = StudyFile.read(write(text))
    epochs = [f"seed-seed{seed}-epoch{k}" for seed in range(3) for k in (1, 5)]
    assert list(made.networks) == [*epochs, "run-epoch-2", "published"]
    assert made.networks["run-epoch-2"].about == {"epoch": 2, "width": 64}


@pytest.mark.parametrize(("name", "count"), [("checkpoints", 12), ("seeds", 6)])
def test_the_studies_of_the_docs(name: str, count: int) -> None:
    folder = Path(__file__).parents[2] / "docs" / "studies"
    made = StudyFile.read(folder / f"{name}.toml")
    assert (len(made.networks), made.folder) == (count, Path("runs") / name)
    page = (folder.parent / "studies.md").read_text()
    assert all(f"(studies/{path.name})" in page for path in folder.glob("*.png"))


def test_lines_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    text = '# "a"\nx.y = """\n[z]\nz = 1\n"""\n\n["q r".s]\nt = [\n 1,\n]\nu = {v = 1}\n'
    path.write_bytes(text.replace("\n", "\r\n").encode())
    file = TomlFile.read(path)
    lines = {("x", "y"): 2, ("q r",): 7, ("q r", "s", "t"): 8, ("q r", "s", "u", "v"): 11, ("no",): 1,
             ("q r", "s", "none"): 7}
    assert {keys: file.find_line(keys) for keys in lines} == lines


DIGITS = """
[data]
spec = "digits"
train_size = 60
[networks.n]
train = "zoo:resnet_digits"
seeds = [0]
[settings]
seed = 3
"""


def test_a_file_adds_to_the_one_that_it_extends(write: Write, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "first.toml").write_text(DIGITS)
    (tmp_path / "second.toml").write_text('extends = "base/first.toml"\n[networks.n]\nseeds = [1, 2]')
    made = StudyFile.read(write('extends = "second.toml"\n[settings]\nmethods = ["dm"]'))
    assert list(made.networks) == ["n-seed1", "n-seed2"]
    assert (made.settings.seed, made.settings.methods, made.data.train_size) == (3, ("dm",), 60)
    assert made.folder == Path("my")


@pytest.mark.parametrize(("base", "own", "where"), [
    ("[settings]\nseeed = 3\n", "", "first.toml, line 2"),
    ("", "[settings]\nmethods = 3\n", "my.toml, line 3"),
    ("[settings]\nseed = 3\n", "[settings]\nseed = 'x'\n", "my.toml, line 3")])
def test_an_error_names_the_file_that_it_stands_in(write: Write, tmp_path: Path, base: str, own: str,
                                                   where: str) -> None:
    (tmp_path / "first.toml").write_text(base + LEAST)
    with pytest.raises(SutureError, match=where):
        StudyFile.read(write(f'extends = "first.toml"\n{own}'))


@pytest.mark.parametrize(("text", "value"), [('extends = "my.toml"', "my.toml"), ("extends = 3", "3"),
                                             ('extends = "none.toml"', "none.toml")])
def test_what_cannot_be_extended(write: Write, text: str, value: str) -> None:
    with pytest.raises(SutureError, match=value):
        StudyFile.read(write(text))


def test_paths_are_filled_in(write: Write) -> None:
    text = LEAST.replace("tests.support.tiny:data", "{mine}/a:b")
    assert StudyFile.read(write(text), {"mine": "here"}).data.spec == "here/a:b"
    with pytest.raises(SutureError, match=r"my.toml, line 3, data.spec: .*mine"):
        StudyFile.read(write(text), {})
    assert StudyFile.read(write(text)).data.spec == "{mine}/a:b"


def test_networks_are_trained_on_all_and_compared_on_a_part(write: Write) -> None:
    made = StudyFile.read(write(DIGITS.replace("[networks.n]", "fitting_size = 20\n[networks.n]")))
    assert len(made.open().data) == 20
    assert len(made.load_images(None)[0]) == 60
    whole = StudyFile.read(write(DIGITS))
    assert made.open().networks["n-seed0"].path.name == whole.open().networks["n-seed0"].path.name


def test_networks_may_be_trained_on_other_classes(write: Write) -> None:
    text = DIGITS.replace("train_size = 60", "classes = '3,1'")
    made = StudyFile.read(write(f"{text}[networks.other]\ntrain = 'zoo:resnet_digits'\n"
                                "data = {classes = '0,9,8'}"))
    given = made.open()
    assert (given.data.classes, given.test.classes) == (2, 2)
    own = made.networks["other"].training_data
    images = made.load_images(own)[0]
    assert images.classes == 3
    digits = zoo.digits("train")
    nines = digits.inputs[digits.labels == 9]
    assert torch.equal(images.inputs[images.labels == 1], nines)
    assert len({source.path.name for source in given.networks.values()}) == 2


@pytest.mark.parametrize("classes", ["1,1", "11", "", "a", "-1"])
def test_classes_that_are_none(write: Write, classes: str) -> None:
    with pytest.raises(SutureError, match=r"my\.toml, line 3"):
        StudyFile.read(write(DIGITS.replace("train_size = 60", f"classes = '{classes}'"))).open()
