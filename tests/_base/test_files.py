"""Files: names, replacing in one step, and the one format, in which any change of a byte is noticed."""

from __future__ import annotations

import multiprocessing
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from suture._base import SutureError, load_tensors, save_tensors
from suture._base.files import clean_file_name, replace_file
from tests.support.synthetic import HOSTILE

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([True, False]), "none": torch.zeros(0, 3),
           "half": torch.ones(3, dtype=torch.bfloat16), "scalar": torch.tensor(7)}
ABOUT = {"words": "ä \n ö", "numbers": [1, 2.5, None], "nested": {"yes": True}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "new" / "x.safetensors"
    save_tensors(place, "suture.test/2", TENSORS, ABOUT)
    return place


def test_what_is_written_is_read_back(path: Path) -> None:
    file = load_tensors(path, "suture.other/1", "suture.test/2")
    tensors = file.tensors
    assert (file.about, file.note) == (ABOUT, "")
    assert tensors.keys() == TENSORS.keys()
    for name, t in TENSORS.items():
        assert tensors[name].dtype == t.dtype
        assert torch.equal(tensors[name], t)
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


def test_the_same_content_is_the_same_bytes(path: Path) -> None:
    """Safetensors has a random order of its strings: ten files are then equal once in 10,000,000."""
    found = set()
    for _ in range(10):
        save_tensors(path, "suture.test/1", {"b": torch.ones(3), "ä": torch.zeros(2)}, {"é\x07\n": "\u2028"})
        found.add(path.read_bytes())
    assert len(found) == 1
    assert load_tensors(path, "suture.test/1").about == {"é\x07\n": "\u2028"}


def test_arrays_and_views_are_written_like_tensors(path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    save_tensors(path, "suture.test/2", {"view": whole.T, "same": whole, "array": np.eye(3)[::-1]}, {})
    tensors = load_tensors(path, "suture.test/2").tensors
    assert torch.equal(tensors["view"], whole.T)
    assert np.array_equal(tensors["array"].numpy(), np.eye(3)[::-1])


def test_a_flipped_bit_anywhere_is_refused(path: Path) -> None:
    data = path.read_bytes()
    flips = random.Random(0)
    places = {*range(8), *(flips.randrange(len(data)) for _ in range(300))}
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << flips.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(SutureError) as error:
            load_tensors(path, "suture.test/2")
        assert "\n" not in str(error.value)


def test_a_file_that_is_cut_off_is_refused(path: Path) -> None:
    data = path.read_bytes()
    for length in (0, 7, 20, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(SutureError, match="damaged"):
            load_tensors(path, "suture.test/2")


def test_other_kinds_missing_files_and_bad_descriptions_are_refused(path: Path) -> None:
    with pytest.raises(SutureError, match=r"suture.other/1.*suture.test/2"):
        load_tensors(path, "suture.other/1")
    with pytest.raises(SutureError, match="missing"):
        load_tensors(path.with_name("missing"), "suture.test/2")
    with pytest.raises(SutureError, match="JSON"):
        save_tensors(path, "suture.test/2", {}, {"set": {1}})
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(SutureError, match=r"suture.test/2.*None"):
        load_tensors(path, "suture.test/2")


def test_files_of_a_first_version_have_no_digest_which_a_note_says(path: Path) -> None:
    save_file({"a": torch.ones(1)}, path, {"format": "suture.test/1", "about": '{"n": 3}'})
    file = load_tensors(path, "suture.test/2", "suture.test/1")
    assert file.about == {"n": 3}
    assert "x.safetensors was written by an early version" in file.note


def _save_often(path: Path, fill: float, start: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    for _ in range(20):
        save_tensors(path, "suture.test/2", {"a": torch.full((50, 7), fill)}, {"fill": fill})


def test_two_processes_write_the_same_file_at_once(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    writers = [context.Process(target=_save_often, args=(path, fill, start)) for fill in (1.0, 2.0)]
    for w in writers:
        w.start()
    start.wait()
    writing = True
    while writing:
        writing = any(w.is_alive() for w in writers)
        file = load_tensors(path, "suture.test/2")
        assert file.about == ABOUT or bool((file.tensors["a"] == file.about["fill"]).all())
    for w in writers:
        w.join()
        assert w.exitcode == 0
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_file_cannot_pose_as_one_of_a_first_version(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"suture.test/2", b"suture.test/1"))
    with pytest.raises(SutureError, match="damaged"):
        load_tensors(path, "suture.test/2", "suture.test/1")


@pytest.mark.parametrize("blank", [b"\n", b"\t", b"\r"])
def test_other_blanks_after_the_header_are_refused(path: Path, blank: bytes) -> None:
    padded = 0
    for length in range(8):
        save_tensors(path, "suture.test/2", TENSORS, {"words": "x" * length})
        data = path.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        if data[end - 1:end] == b" ":
            padded += 1
            path.write_bytes(data[:end - 1] + blank + data[end:])
            with pytest.raises(SutureError, match="damaged"):
                load_tensors(path, "suture.test/2")
    assert padded


def test_bytes_after_the_end_are_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(SutureError, match="damaged"):
        load_tensors(path, "suture.test/2")


@pytest.mark.parametrize(("name", "expected"), [("a/../b", "a-..-b"), ("..", "unnamed"), ("", "unnamed"),
                                                (HOSTILE[0], "script-alert-1-script"),
                                                ("resnet18", "resnet18")])
def test_names_in_file_names(name, expected):
    assert clean_file_name(name) == expected


def test_replace_leaves_no_traces(tmp_path):
    replace_file(tmp_path / "a" / "x.bin", b"1")
    replace_file(tmp_path / "a" / "x.bin", b"2")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "a").iterdir()] == [("x.bin", b"2")]
