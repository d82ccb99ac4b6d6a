"""A comparison on disk: exact, whole, and never at the cost of somebody's files."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import suture
from suture._base import save_tensors
from suture._base.errors import SutureError
from suture.results import has_comparison, load, saving, summarise_findings
from suture.results.measured import COLUMNS
from tests.support.comparisons import one_cell
from tests.support.synthetic import HOSTILE, comparison

OURS = {"comparison.safetensors", "table.csv"}
VERSION_1 = Path(__file__).parent / "version_1"
"""A comparison as the first format kept it: comparison.json, table.csv, arrays.safetensors."""


def content(folder):
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", [{}, {"sources": 7, "targets": 5, "hostile": True, "same_network": False},
                                  {"sources": 1, "targets": 1, "missing": False}])
def test_load_gives_what_was_saved(tmp_path, kind):
    saved = comparison(**kind)
    assert saved.save(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    loaded = load(tmp_path / "a" / "b")
    assert loaded.equals(saved)
    # what `equals` claims, said a second way
    pd.testing.assert_frame_equal(loaded.table, saved.table, check_exact=True)
    assert loaded.meta == saved.meta
    assert loaded.sources == saved.sources
    assert list(loaded.arrays) == list(saved.arrays)
    for name, array in saved.arrays.items():
        assert loaded.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded.arrays[name], array)
    assert {p.name for p in (tmp_path / "a" / "b").iterdir()} == OURS


@pytest.mark.parametrize("value", [0.1 + 0.2, 5e-324, 1e308, -0.0, 1 / 3, float("inf")])
def test_floats_survive_to_the_bit(tmp_path, value):
    one_cell(value).save(tmp_path)
    assert load(tmp_path).table["value"].to_numpy().tobytes() == np.float64(value).tobytes()


@pytest.mark.parametrize("reason", ["nan", "NA", "None", " padded ", 'quo"te, comma', "two\nlines\r\n\r", "ü",
                                    "1.5"])
def test_reasons_survive(tmp_path, reason):
    one_cell(np.nan, reason=reason).save(tmp_path)
    assert load(tmp_path).table["reason"].tolist() == [reason]
    assert load(tmp_path).table["value"].isna().all()


def test_an_empty_reason_stays_a_string(tmp_path):
    one_cell().save(tmp_path)
    assert load(tmp_path).table["reason"].tolist() == [""]


@pytest.mark.parametrize(("n", "dtype"), [(10, "int64"), (10.0, "int64"), (np.nan, "float64")])
def test_n_is_a_whole_number_where_it_can_be(tmp_path, n, dtype):
    one_cell(n=n).save(tmp_path)
    assert load(tmp_path).table["n"].dtype == dtype


@pytest.mark.parametrize("array", [
    np.array([True, False]), np.arange(6.0).reshape(2, 3).T, np.float32(3).reshape(()), np.zeros((0, 3)),
    np.arange(8, dtype=np.int16)[::2], np.broadcast_to(2.0, (1, 1)), np.zeros(3, dtype=np.uint32),
    np.array([np.nan, -0.0, np.inf], dtype=np.float16)])
def test_arrays_survive(tmp_path, array):
    array = np.asarray(array)
    one_cell(arrays={"z": array, "a": array}).save(tmp_path)
    loaded = load(tmp_path)
    assert list(loaded.arrays) == ["z", "a"]
    for got in loaded.arrays.values():
        assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert got.flags.writeable


def test_meta_comes_back_as_it_is_held(tmp_path):
    saved = one_cell(meta={"settings": {"sizes": (1, 2)}, "rate": 0.1, "nothing": None, "name": HOSTILE[0],
                           "gone": np.nan, "far": -np.inf, "a": 5e-324})
    saved.save(tmp_path)
    assert saved.meta["settings"]["sizes"] == [1, 2]
    assert json.dumps(load(tmp_path).meta) == json.dumps(saved.meta)


def test_an_empty_comparison_survives(tmp_path):
    empty = replace(one_cell(), table=pd.DataFrame(columns=COLUMNS), sources=(), targets=())
    empty.save(tmp_path)
    assert load(tmp_path).equals(empty)
    assert load(tmp_path).measures == []


def test_saving_again_replaces(tmp_path):
    comparison().save(tmp_path)
    later = comparison(seed=1, sources=2, targets=3, same_network=False)
    later.save(tmp_path)
    assert load(tmp_path).equals(later)
    assert {p.name for p in tmp_path.iterdir()} == OURS


class Killed(BaseException):
    """What `kill -9` does: no handler of the code under test runs on it."""


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("steps", range(9))
def test_a_killed_writer_leaves_the_old_or_the_new(tmp_path, monkeypatch, steps, fresh):
    old, new = (comparison(2, 2, seed=seed) for seed in (1, 2))
    folder = tmp_path / "c"
    if not fresh:
        old.save(folder)
    left = [steps]

    def step(real):
        def wrapper(*args, **kwargs):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return real(*args, **kwargs)
        return wrapper

    with monkeypatch.context() as patch:
        for name in ("open", "replace", "unlink", "mkdir"):
            patch.setattr(Path, name, step(getattr(Path, name)))
        finished = True
        try:
            new.save(folder)
        except Killed:
            finished = False
    if fresh and not has_comparison(folder):
        with pytest.raises(SutureError):
            load(folder)
    else:
        got = load(folder)
        assert got.equals(new) or (not fresh and not finished and got.equals(old))
    later = comparison(seed=3)
    later.save(folder)
    assert load(folder).equals(later)
    assert {p.name for p in folder.iterdir()} == OURS


def test_the_killed_writers_above_die_before_and_after_the_step_that_counts(tmp_path, monkeypatch):
    """The parametrisation covers the whole of `save`: it makes four steps into an existing folder."""
    calls = []
    comparison().save(tmp_path)
    for name in ("open", "replace", "unlink", "mkdir"):
        real = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda *a, _r=real, _n=name, **k: (calls.append(_n), _r(*a, **k))[1])
    comparison(seed=1).save(tmp_path)
    assert calls.count("replace") == 2
    assert len([c for c in calls if c != "unlink"]) <= 9


def test_a_reader_between_the_two_files_gets_the_new_comparison(tmp_path, monkeypatch):
    old, new = comparison(seed=1), comparison(seed=2)
    old.save(tmp_path)

    def read_then_write(path, data):
        assert load(tmp_path).equals(new)
        path.write_bytes(data)

    monkeypatch.setattr("suture.results.saving.replace_file", read_then_write)
    new.save(tmp_path)
    assert load(tmp_path).equals(new)


def test_the_table_beside_it_is_never_read_back(tmp_path):
    comparison().save(tmp_path)
    table = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    assert list(table["measure"]) == list(comparison().table["measure"])
    (tmp_path / "table.csv").write_text("x")
    assert load(tmp_path).equals(comparison())


def old_folder(place):
    shutil.copytree(VERSION_1, place)
    return place


def test_folders_of_the_old_format_load_and_are_replaced(tmp_path):
    folder = old_folder(tmp_path / "old")
    loaded = load(folder)
    text = (folder / "table.csv").read_text()
    assert (loaded.sources[0], len(loaded.table)) == (text.split("\n")[1].split(",")[0], text.count("\n") - 1)
    meta = json.loads((folder / "comparison.json").read_text())["meta"]
    assert loaded.meta == meta | {"notes": [*meta["notes"], saving.UNCHECKED]}
    loaded.save(folder)
    assert {p.name for p in folder.iterdir()} == OURS
    assert load(folder).equals(loaded)


def test_an_old_folder_whose_writer_was_killed_loads(tmp_path):
    folder = old_folder(tmp_path / "old")
    (folder / "table.csv").rename(folder / ".table.csv.0123456789abcdef")
    (folder / "table.csv").write_text("of an earlier comparison")
    assert load(folder).equals(load(VERSION_1))


def test_a_reader_of_an_old_folder_that_is_being_replaced_gets_a_whole_comparison(tmp_path, monkeypatch):
    folder, real = old_folder(tmp_path / "old"), saving.read_old_fields

    def replace_then_read(place):
        comparison().save(place)
        return real(place)

    monkeypatch.setattr(saving, "read_old_fields", replace_then_read)
    assert load(folder).equals(comparison())


@pytest.mark.parametrize("foreign", ["notes.txt", ".hidden", "sub/deep.txt", "table.csv", "comparison.json",
                                     "comparison.safetensors"])
def test_a_foreign_folder_is_not_touched(tmp_path, foreign):
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("{}")
    before = content(tmp_path)
    with pytest.raises(SutureError, match="choose another folder"):
        comparison().save(tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize("foreign", ["notes.txt", "sub/deep.txt"])
def test_nor_one_that_also_holds_a_comparison(tmp_path, foreign):
    comparison().save(tmp_path)
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("precious")
    before = content(tmp_path)
    with pytest.raises(SutureError, match="choose another folder"):
        comparison(seed=1).save(tmp_path)
    assert content(tmp_path) == before


def test_a_report_beside_it_is_left_alone(tmp_path):
    first = one_cell()
    first.save(tmp_path)
    first.report(tmp_path / "report.html", figures=True)
    first.report(tmp_path / "second.html")
    before = content(tmp_path)
    one_cell(0.7).save(tmp_path)
    after = content(tmp_path)
    assert load(tmp_path).equals(one_cell(0.7))
    assert set(after) == set(before)
    assert all(after[name] == before[name] for name in before if name not in OURS)
    assert {"report.html", "second.html", "report_figures/cka.png"} <= set(after)


def test_unwritable_places(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SutureError, match="cannot write"):
            comparison().save(place)
    with pytest.raises(SutureError, match="cannot write"):
        one_cell().report(tmp_path / "file" / "r.html")
    assert (tmp_path / "file").read_text() == "x"


def test_a_full_disk_leaves_the_old(tmp_path, monkeypatch):
    old = comparison(seed=1)
    old.save(tmp_path)
    before = content(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(SutureError, match="No space left"):
        comparison(seed=2).save(tmp_path)
    assert content(tmp_path) == before


def damage_json(folder, **entries):
    document = json.loads((folder / "comparison.json").read_text())
    document.update(entries)
    (folder / "comparison.json").write_text(json.dumps(document))


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def cut(folder, name, keep):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:int(len(data) * keep)])


def assert_damaged(folder, harm, message):
    harm(folder)
    with pytest.raises(SutureError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("harm", "message"), [
    (lambda f: cut(f, "comparison.json", 0.5), "damaged or not of suture"),
    (lambda f: cut(f, "comparison.json", 0), "damaged or not of suture"),
    (lambda f: cut(f, "table.csv", 0.5), "table.csv is missing or not"),
    (lambda f: cut(f, "arrays.safetensors", 0.9), "arrays.safetensors is missing or not"),
    (lambda f: (f / "table.csv").unlink(), "table.csv is missing or not"),
    (lambda f: (f / "arrays.safetensors").unlink(), "arrays.safetensors is missing or not"),
    (lambda f: (f / "table.csv").write_text("x"), "table.csv is missing or not"),
    (lambda f: (f / "comparison.json").write_bytes(b"\xff\xfe"), "damaged or not of suture"),
    (lambda f: damage_json(f, version=2), "format version 1 .*, got 2"),
    (lambda f: damage_json(f, version=None), "format version 1 .*, got None"),
    (lambda f: damage_json(f, format="other"), "damaged or not of suture"),
    (lambda f: (f / "comparison.json").write_text("[]"), "damaged or not of suture"),
    (lambda f: (f / "comparison.json").unlink(), "folder with a saved comparison"),
    (lambda f: damage_json(f, files=None), "is damaged"),
    (lambda f: damage_json(f, sources=["nowhere"]), "is damaged"),
    (lambda f: damage_json(f, arrays=["nothing"]), "is damaged"),
    (lambda f: damage_json(f, targets=3), "is damaged"),
])
def test_damage_to_an_old_folder_is_named_in_one_line(tmp_path, harm, message):
    assert_damaged(old_folder(tmp_path / "old"), harm, message)


def list_places(node, before=()):
    """Return the path of every entry of a document, three levels deep."""
    entries = node.items() if isinstance(node, dict) and len(before) < 3 else ()
    return [place for k, v in entries for place in ((*before, k), *list_places(v, (*before, k)))]


def test_a_document_edited_by_hand_is_read_or_refused_in_one_line(tmp_path):
    folder = old_folder(tmp_path / "old")
    whole = (folder / "comparison.json").read_text()
    odd, read = [None, -1, "x", [], {}, [None], 1e308, float("nan"), "remove"], 0
    messages = []
    for k, place in enumerate(list_places(json.loads(whole))):
        document = node = json.loads(whole)
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = value = odd[k % len(odd)]
        if value == "remove":
            del node[place[-1]]
        (folder / "comparison.json").write_text(json.dumps(document))
        try:
            made = load(folder)
            repr(made), made.matrix("cka"), made.verdict(), summarise_findings(made)
            read += 1
        except SutureError as error:
            messages.append(str(error))
    assert min(read, len(messages)) > 8
    assert not any("\n" in m for m in messages)


@pytest.mark.parametrize(("harm", "message"), [
    (lambda f: cut(f, "comparison.safetensors", 0.9), "is damaged"),
    (lambda f: cut(f, "comparison.safetensors", 0), "is damaged"),
    (lambda f: flip(f / "comparison.safetensors", -3), "is damaged"),
    (lambda f: flip(f / "comparison.safetensors", 300), "is damaged"),
    (lambda f: save_tensors(f / "comparison.safetensors", "suture.comparison/3", {}, {}),
     "suture.comparison/2, got suture.comparison/3"),
    (lambda f: (f / "comparison.safetensors").unlink(), "folder with a saved comparison"),
])
def test_damage_is_named_in_one_line(tmp_path, harm, message):
    comparison().save(tmp_path)
    assert_damaged(tmp_path, harm, message)


def test_a_missing_folder(tmp_path):
    with pytest.raises(SutureError, match="folder with a saved comparison"):
        load(tmp_path / "nothing")


def test_the_place_that_was_meant(tmp_path):
    comparison().save(tmp_path / "a")
    (tmp_path / "study.json").write_text("{}")
    for given, meant in ((tmp_path / "a" / "table.csv", f"suture.load({str(tmp_path / 'a')!r})"),
                         (tmp_path, f"suture.Study.load({str(tmp_path)!r})")):
        with pytest.raises(SutureError, match=re.escape(f"write {meant}")):
            load(given)


def test_nothing_is_pickled(tmp_path, monkeypatch):
    for verb in ("dump", "dumps", "load", "loads"):
        monkeypatch.setattr(f"pickle.{verb}", lambda *_, **__: pytest.fail("pickled"))
    comparison().save(tmp_path)
    load(tmp_path)


def test_results_of_dropped_detectors_load_and_are_saved_again(tmp_path):
    """They stay readable; only new comparisons refuse the names."""
    old = load(VERSION_1.with_name("version_1_dropped"))
    values = old.matrix("dm.auroc_mahalanobis_position")
    assert values.notna().any(axis=None)
    assert "dm.score_relative_mean" in old.arrays
    old.save(tmp_path)
    assert load(tmp_path).equals(old)
    with pytest.raises(SutureError, match="unknown detector 'mahalanobis_position'; nearest: mahalanobis"):
        suture.OOD("mahalanobis_position")
