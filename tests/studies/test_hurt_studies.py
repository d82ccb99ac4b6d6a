"""What happens around a study: disks, names, functions that build other networks, and any form of data."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import suture
from suture import Study, SutureError
from suture._base import files
from suture.studies.running import tasks
from suture.studies.running.tasks import PairTask
from tests.support import tiny

HOW: dict[str, Any] = {"methods": [], "indices": ["cka"], "device": "cpu", "sites": ["block*"],
                       "pairs": [("a", "a"), ("a", "b")]}
INPUTS, LABELS = tiny.data()[0]


def run(folder: Path | None = None, networks: Any = None, data: Any = None, **more: Any) -> Study:
    given = {"a": tiny.network(), "b": tiny.other()} if networks is None else networks
    return suture.study(given, tiny.data()[0] if data is None else data, folder=folder, **{**HOW, **more})



@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    folder = tmp_path_factory.mktemp("finished") / "study"
    return folder, run(folder)


def find_hit(folder: Path, what: str) -> Path:
    return next(folder.glob({"record": "tasks/a--b-*.json", "result": "pairs/a--b-*/comparison.safetensors",
                             "place": "pairs/a--b-*"}[what]))


@pytest.mark.parametrize("what", ["record", "result", "place"])
@pytest.mark.parametrize("by", ["folder", "file"])
def test_what_is_in_the_way_is_set_aside(what: str, by: str, tmp_path: Path, counted: list[tuple[str, str]],
                                         finished: tuple[Path, Study]) -> None:
    folder = shutil.copytree(finished[0], tmp_path / "study")
    hit = find_hit(folder, what)
    hit.rename(tmp_path / "old")
    hit.mkdir() if by == "folder" else hit.write_text("mine")
    assert len(Study.load(folder).pairs) == 1  # and reading renames nothing
    assert hit.exists()
    assert run(folder).table.equals(finished[1].table)
    assert counted == [("a", "b")]
    assert len(Study.load(folder).pairs) == 2


def test_a_damaged_checkpoint_is_computed_again(tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if "moments" in stage:
            os.kill(os.getpid(), 15)

    with pytest.raises(KeyboardInterrupt, match="after 0 of 2"):
        run(tmp_path, progress=stop)
    kept = next(tmp_path.glob("pairs/*/checkpoint-moments.safetensors"))
    kept.write_bytes(kept.read_bytes()[:-3])
    assert not run(tmp_path).failures


def test_what_a_killed_process_leaves_is_in_nobodys_way(tmp_path: Path,
                                                        finished: tuple[Path, Study]) -> None:
    folder = shutil.copytree(finished[0], tmp_path / "study")
    (folder / "study.json").write_text("{")
    with pytest.raises(SutureError, match="damaged"):
        Study.load(folder)
    (folder / "study.json").unlink()
    for name in (".study.json.0123456789abcdef", ".trial.0123456789abcdef"):
        (folder / name).write_text("")
    assert run(folder).table.equals(finished[1].table)


@pytest.mark.parametrize("what", ["record", "result", "all"])
def test_a_full_disk_fails_pairs_and_ends_in_one_line(what: str, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    whole, hit = files.write_new_file, {"record": "tasks", "result": "pairs", "all": str(tmp_path)}[what]

    def write(path: Path, data: bytes) -> None:
        if hit in str(path) and (what == "all" or "--b-" in str(path)) and "study.json" not in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, data)

    monkeypatch.setattr(files, "write_new_file", write)
    if what == "all":
        with pytest.raises(SutureError, match="No space left") as caught:
            run(tmp_path)
        assert "\n" not in str(caught.value)
    else:
        made = run(tmp_path)
        assert made.pairs == (("a", "a"),)
        assert "No space left" in made.failures["a", "b"]
    monkeypatch.undo()
    assert not run(tmp_path).failures


def test_calls_with_other_settings_share_a_folder(tmp_path: Path, counted: list[tuple[str, str]]) -> None:
    one, other = run(tmp_path), run(tmp_path, indices=["cka", "opd"])
    assert Study.load(tmp_path).table.equals(other.table)  # the call that began last
    assert run(tmp_path).table.equals(one.table)
    assert len(counted) == 4
    assert Study.load(tmp_path).table.equals(one.table)


NAMES = ["net/../../x", "..", ".", "x" * 300, "сеть", "ネット", "A", "a", "con", "a b\tc", "-", "a--b", "b-",
         "%s", "\N{ELEPHANT}", "e\u0301", "\u00e9", "C:\\x"]


def test_any_name_is_one_of_a_network(tmp_path: Path) -> None:
    given, odd = {name: tiny.network() for name in NAMES}, [("..", "net/../../x"), ("x" * 300, "x" * 300)]
    assert not run(tmp_path / "study", given, pairs=odd).failures
    assert os.listdir(tmp_path) == ["study"]
    assert Study.load(tmp_path / "study").networks == tuple(NAMES)
    slugs = {PairTask((name, name), "0" * 16).slug.lower() for name in NAMES}
    assert len(slugs) == len(NAMES)
    assert all(re.fullmatch(r"[a-z0-9._-]{1,180}", slug) for slug in slugs)
    for name in ("", "  "):
        with pytest.raises(SutureError, match="names of networks"):
            run(networks={name: tiny.network()})


def share_a_module() -> dict[str, Any]:
    """Two functions that load their weights into one module."""
    module, states = tiny.network(), {"a": tiny.network().state_dict(), "b": tiny.other().state_dict()}

    def build(name: str) -> Callable[[], nn.Module]:
        def load() -> nn.Module:
            module.load_state_dict(states[name])
            return module

        return load

    return {name: build(name) for name in states}


def test_functions_that_share_a_module_are_not_mixed_up() -> None:
    made = run(networks=share_a_module(), pairs="all")
    assert "'a'" in made.failures["a", "b"]
    assert "\n" not in made.failures["a", "b"]
    for name, network in (("a", tiny.network()), ("b", tiny.other())):
        alone = suture.compare(network, None, tiny.data()[0], names=(name, name),
                               **{k: v for k, v in HOW.items() if k != "pairs"})
        assert made.comparison(name, name).table.equals(alone.table)


def test_a_function_that_builds_another_network_each_time_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_KEPT", 1)
    given = {"a": tiny.network, "b": lambda: tiny.Tiny(), "c": lambda: tiny.network()}
    made = run(networks=given, pairs="all")
    assert set(made.pairs) == {("a", "a"), ("a", "c"), ("c", "c")}
    assert all("'b'" in reason and "seed" in reason for reason in made.failures.values())


def test_one_module_may_have_two_names() -> None:
    module = tiny.network()
    for given in ({"a": module, "b": module}, {"a": lambda: module, "b": lambda: module}):
        made = run(networks=given)
        alone = suture.compare(module, module, tiny.data()[0], names=("a", "b"),
                               **{k: v for k, v in HOW.items() if k != "pairs"})
        assert made.comparison("a", "b").table.equals(alone.table)


class Columns(Dataset[Any]):
    def __len__(self) -> int:
        return len(INPUTS)

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        return {"x": INPUTS[k], "labels": LABELS[k]}


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(zip(INPUTS, LABELS, strict=True))


class Shuffled:
    def __iter__(self) -> Any:
        order = torch.randperm(len(INPUTS))
        return iter(tiny.batches(INPUTS[order], LABELS[order]))


class Noisy:
    def __iter__(self) -> Any:
        return iter(tiny.batches(INPUTS + torch.rand(1), LABELS))


SOUND: dict[str, Callable[[], Any]] = {
    "loader": lambda: DataLoader(TensorDataset(INPUTS, LABELS), 8), "columns": Columns,
    "loader of columns": lambda: DataLoader(Columns(), 8), "stream": lambda: DataLoader(Stream(), 8),
    "paired": lambda: suture.Paired((INPUTS, LABELS), (INPUTS + 1, LABELS)),
    "prepared": lambda: suture.Prepared((INPUTS, LABELS), torch.neg, tiny.twice_as_large)}


@pytest.mark.parametrize("name", SOUND)
def test_any_form_of_data_gives_what_compare_gives(name: str, tmp_path: Path) -> None:
    pairs = [("a", "b")]
    made, again = (run(tmp_path, data=SOUND[name](), pairs=pairs) for _ in range(2))
    alone = suture.compare(tiny.network(), tiny.other(), SOUND[name](), names=("a", "b"),
                           **{k: v for k, v in HOW.items() if k != "pairs"})
    assert made.comparison("a", "b").table.equals(alone.table)
    assert again.table.equals(made.table)
    assert len(os.listdir(tmp_path / "tasks")) == 1


@pytest.mark.parametrize("make", [
    Shuffled, lambda: DataLoader(TensorDataset(INPUTS, LABELS), 8, shuffle=True)])
def test_shuffled_data_are_the_same_data(make: Callable[[], Any], tmp_path: Path,
                                         counted: list[tuple[str, str]]) -> None:
    first = run(tmp_path, data=make())
    assert run(tmp_path, data=make()).table.equals(first.table)
    assert len(counted) == 2
    assert not first.meta["notes"]


def test_random_data_are_computed_again_and_say_so(tmp_path: Path, counted: list[tuple[str, str]]) -> None:
    run(tmp_path, data=Noisy())
    assert "otherwise in every pass" in run(tmp_path, data=Noisy()).meta["notes"][0]
    assert len(counted) == 4


def test_other_preprocessing_of_the_data_is_other_data(tmp_path: Path,
                                                       counted: list[tuple[str, str]]) -> None:
    for how in (torch.neg, torch.abs, torch.neg):
        run(tmp_path, data=suture.Prepared((INPUTS, LABELS), how))
    assert len(counted) == 4


def take_x(raw: dict[str, Tensor]) -> Tensor:
    return raw["x"]


def test_columns_for_networks_with_preprocessing() -> None:
    made = run(networks={name: lambda make=make: (make(), take_x)  # type: ignore[misc]
                         for name, make in (("a", tiny.network), ("b", tiny.other))}, data=Columns())
    assert made.table["value"].equals(run(data=(INPUTS, LABELS)).table["value"])


@pytest.mark.parametrize(("data", "words"), [
    (SOUND["paired"], "Paired"), (SOUND["prepared"], "Prepared"), (lambda: iter([INPUTS]), "more than once")])
def test_data_that_do_not_fit_are_one_line(data: Callable[[], Any], words: str) -> None:
    with pytest.raises(SutureError, match=words) as caught:
        run(networks={"a": tiny.network, "b": lambda: (tiny.other(), torch.neg)}, data=data())
    assert "\n" not in str(caught.value)
