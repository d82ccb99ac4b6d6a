"""Golden results: what suture computed before it was taken apart, it computes still."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import numpy as safetensors
from safetensors import safe_open

import suture
from tests.golden import cases, make
from tests.golden.differences import COMPARISONS, Differences, read_comparison
from tests.golden.interface import find_package
from tests.golden.networks import network

STORED = [*(name for name in cases.CASES if name not in cases.UNSTORED), make.INTERFACE]
FOLDERS = sorted(
    p.parent.relative_to(make.RESULTS).as_posix() for p in make.RESULTS.rglob("*") if p.name in COMPARISONS
)
FIRST = {folder.split("/")[0]: folder for folder in reversed(FOLDERS)}.values()
"""One stored comparison of each case."""
BETWEEN = {
    "dm": ("small0", "digits0"),
    "tlm": ("digits0", "small0"),
    "tokens": ("small0", "vit"),
    "ridge": ("small0", "small0"),
}
EXAMPLE = "digits_self/result"


LONG = ("digits_seeds", "every_detector", "every_family", "resumed", "patches_and_maps", "two_preparations",
        "text_encoder", "as_in_the_paper", "digits_self", "masked_words", "options")
"""Cases that take long, and whose parts have references or siblings in the tests of the rooms."""
SHORT = [name for name in STORED if name not in LONG]


def _run(names: Sequence[str], factory: pytest.TempPathFactory) -> Path:
    """Run cases once, in one process with pinned kernels, with the package that is tested here."""
    folder = factory.mktemp("golden")
    make.run(folder, list(names), source=str(Path(suture.__file__).parents[1]))
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(SHORT, tmp_path_factory)


@pytest.fixture(scope="module")
def long_found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(LONG, tmp_path_factory)


@pytest.mark.parametrize("name", [n for n in SHORT if n != make.INTERFACE])
def test_a_case_gives_what_is_stored(name: str, found: Path) -> None:
    assert make.differences(name, make.RESULTS, found).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_a_long_case_gives_what_is_stored(name: str, long_found: Path) -> None:
    assert make.differences(name, make.RESULTS, long_found).problems == []


def test_every_stored_folder_is_of_a_case() -> None:
    assert sorted(STORED) == sorted(p.name for p in make.RESULTS.iterdir())


# -- the interface


@pytest.mark.parametrize("page", sorted(p.name for p in (make.RESULTS / make.INTERFACE).glob("*.txt")))
def test_help_pages_say_the_same(page: str, found: Path) -> None:
    all_of = Differences()
    all_of.pages(page, make.RESULTS / make.INTERFACE / page, found / make.INTERFACE / page)
    assert all_of.problems == []


def test_public_names_are_still_there() -> None:
    for module, names in _interface("names").items():
        assert [n for n in names if not hasattr(find_package(module), n)] == []


def test_public_callables_take_the_same_parameters(found: Path) -> None:
    now = json.loads((found / make.INTERFACE / "parameters.json").read_text())
    for name, parameters in _interface("parameters").items():
        assert now.get(name) == parameters, name


def test_tables_of_indices_and_measures_say_the_same(found: Path) -> None:
    now = json.loads((found / make.INTERFACE / "tables.json").read_text())
    assert now == _interface("tables")


# -- what was saved before


@pytest.mark.parametrize("folder", [
    pytest.param(folder, marks=() if folder in FIRST else pytest.mark.slow) for folder in FOLDERS])
def test_a_stored_comparison_loads_as_it_is(folder: str, tmp_path: Path) -> None:
    stored = make.RESULTS / folder
    result = suture.load(stored)
    _, text, kept = read_comparison(stored)
    assert sorted(kept) == sorted(result.arrays)
    for name, array in result.arrays.items():
        there = kept[name]
        assert (there.dtype, there.shape, there.tobytes()) == (array.dtype, array.shape, array.tobytes())
    table = pd.read_csv(io.StringIO(text), keep_default_na=False, dtype=str)
    assert list(table.columns) == list(result.table.columns)
    for column in table.columns:
        now = result.table[column]
        if now.dtype == np.float64:
            numbers = np.array([float(v or "nan") for v in table[column]])
            np.testing.assert_array_equal(now.to_numpy(), numbers)
        else:
            assert [str(v) for v in now] == list(table[column])
    result.save(tmp_path / "again")
    assert Differences(allowed=0).folders(stored, tmp_path / "again").problems == []


@pytest.mark.parametrize("name", sorted(BETWEEN))
def test_a_stored_stitching_layer_loads_as_it_is(name: str) -> None:
    file = make.RESULTS / "stitched" / f"{name}.safetensors"
    source, target = map(network, BETWEEN[name])
    made = suture.load_stitched(file, source, target)
    kept, now = safetensors.load_file(file), made.layer.state_dict()
    assert sorted(kept) == sorted(now)
    for key, value in kept.items():
        np.testing.assert_array_equal(now[key].numpy(), value)
    stored = json.loads(file.with_suffix(".json").read_text())
    assert [str(s) for s in made.sites] == stored["sites"]
    logits = made(cases.images(40, "test")[0])
    logits = logits["logits"] if isinstance(logits, dict) else logits
    np.testing.assert_allclose(logits.detach().numpy()[:8], stored["logits"], rtol=1e-3, atol=1e-4)


def test_stored_moments_merge() -> None:
    files = [make.RESULTS / "of_files" / f"{k}.safetensors" for k in range(2)]
    stored = json.loads((make.RESULTS / "of_files" / "merged.json").read_text())
    for name, value in suture.merged_moments(files, "default", intervals=True).items():
        assert (value.value, value.low, value.high) == pytest.approx(
            (stored[name]["value"], stored[name]["low"], stored[name]["high"]), rel=1e-9
        )


@pytest.mark.slow
def test_runs_went_on_as_if_never_stopped(long_found: Path) -> None:
    same = json.loads((long_found / "resumed" / "same.json").read_text())
    assert same == {"moments": True, "dm": True, "tlm": True}


# -- the comparison itself


def _replaced(file: str, pattern: str, by: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / file
        text, count = re.subn(pattern, by, path.read_text(encoding="utf-8"), count=1)
        assert count == 1
        path.write_text(text, encoding="utf-8")

    return change


def _file(folder: Path) -> Path:
    """The file with the arrays of a comparison, in either format."""
    return next(p for p in folder.glob("*.safetensors"))


def _meta(pattern: str, by: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with safe_open(_file(folder), "np") as file:
            metadata = file.metadata()
        about = json.loads(metadata["about"])
        about["meta"], count = re.subn(pattern, by, about["meta"], count=1)
        assert count == 1
        safetensors.save_file(
            safetensors.load_file(_file(folder)), _file(folder), {**metadata, "about": json.dumps(about)}
        )

    return change


def _array(change: Callable[[np.ndarray], None], name: str) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        with safe_open(_file(folder), "np") as file:
            metadata = file.metadata()
        arrays = safetensors.load_file(_file(folder))
        arrays[name] = arrays[name].copy()
        change(arrays[name])
        safetensors.save_file(arrays, _file(folder), metadata)

    return changed


def _flip(array: np.ndarray) -> None:
    array.flat[3] = not array.flat[3]


def _move(array: np.ndarray) -> None:
    array.flat[3] += 1e-5


BREAKS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a number": (EXAMPLE, _replaced("table.csv", r"(,cka,0\.\d{3})\d", r"\g<1>x".replace("x", "00"))),
    "a count": (EXAMPLE, _replaced("table.csv", r",64,larger", ",63,larger")),
    "a direction": (EXAMPLE, _replaced("table.csv", ",larger,", ",smaller,")),
    "a mark": (EXAMPLE, _replaced("table.csv", "still improving", "still falling")),
    "a note": (EXAMPLE, _meta("has not converged", "has converged")),
    "a setting": (EXAMPLE, _meta('"epochs": 3', '"epochs": 4')),
    "a float32 array": (EXAMPLE, _array(_move, "dm.kl")),
    "a boolean array": (EXAMPLE, _array(_flip, "dm.correct")),
    "a missing file": (EXAMPLE, lambda folder: (folder / "table.csv").unlink()),
    "an index": ("of_matrices", _replaced("all.json", r'("value": -?\d\.\d{9})\d', r"\g<1>7000")),
    "a help line": (make.INTERFACE, _replaced("help_compare.txt", "--jackknife", "--jacknife")),
    "a parameter": (make.INTERFACE, _replaced("parameters.json", '"jackknife"', '"jack"')),
}


@pytest.mark.parametrize("what", sorted(BREAKS))
def test_a_broken_copy_is_noticed(what: str, tmp_path: Path) -> None:
    folder, change = BREAKS[what]
    case = Path(folder).parts[0]
    shutil.copytree(make.RESULTS / case, tmp_path / case)
    assert make.differences(case, make.RESULTS, tmp_path).problems == []
    change(tmp_path / folder)
    assert make.differences(case, make.RESULTS, tmp_path).problems


@pytest.mark.parametrize("allowed", [1e-6, 1e-12])
def test_numbers_may_differ_by_what_is_allowed_and_no_more(allowed: float) -> None:
    for number in (0.0, 0.3, -2e4):
        for times, problems in ((0.4, 0), (3, 1)):
            all_of = Differences(allowed=allowed)
            all_of.numbers("here", number, number + times * allowed * max(1, abs(number)))
            assert len(all_of.problems) == problems
    all_of = Differences(allowed=allowed)
    all_of.numbers("here", [np.nan, np.inf], [np.nan, np.inf])
    assert all_of.problems == []
    all_of.numbers("here", [np.nan, 1.0], [1.0, 1.0])
    assert len(all_of.problems) == 1


def _interface(name: str) -> dict:
    return json.loads((make.RESULTS / make.INTERFACE / f"{name}.json").read_text(encoding="utf-8"))
