"""One process writes to a place at a time; a lock of a process that has ended is in nobody's way."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from suture._base import SutureError, check_file, check_folder, hold_lock, is_held, refuse_held, still_holds
from suture._base.keeping import locks, places
from suture._base.keeping.locks import LOCK, find_start

pytestmark = pytest.mark.fast
GONE = 2**22 + 1
"""No process has this number: it is above the largest of Linux."""


def lock(folder: Path, **held: Any) -> Path:
    folder.mkdir(exist_ok=True)
    known = {"process": os.getppid(), "host": socket.gethostname(), "started": find_start(os.getppid()),
             "since": "2026-11-28T17:00:00+00:00"}
    (folder / LOCK).write_text(json.dumps(known | held))
    return folder / LOCK


def test_a_lock_is_held_in_the_block_and_leaves_no_trace(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with hold_lock(folder), hold_lock(folder):
        assert json.loads((folder / LOCK).read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("held", "words"), [
    ({}, f"in use by process {os.getppid()} of this host"),
    ({"host": "elsewhere"}, "on host elsewhere.*remove .*suture.lock"),
    ({"host": "elsewhere", "process": GONE}, "on host elsewhere"),
    ({"host": "elsewhere", "process": os.getpid()}, "on host elsewhere"),
])
def test_a_second_process_is_refused_at_once(tmp_path: Path, held: dict[str, Any], words: str) -> None:
    path = lock(tmp_path, **held)
    before = path.read_bytes()
    with pytest.raises(SutureError, match=words), hold_lock(tmp_path):
        pytest.fail("held twice")
    with pytest.raises(SutureError, match=words):
        refuse_held(tmp_path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [LOCK]


@pytest.mark.parametrize("held", [{"process": GONE}, {"started": "1 of another boot"}])
def test_a_lock_of_a_process_that_has_ended_is_taken_over(tmp_path: Path, held: dict[str, Any]) -> None:
    lock(tmp_path, **held)
    with hold_lock(tmp_path) as note:
        assert "was taken over" in note
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"process": "many"}'])
def test_a_damaged_lock_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(SutureError, match=r"remove .*suture\.lock"), hold_lock(tmp_path):
        pytest.fail("held")


@pytest.mark.parametrize("text", ["", json.dumps({"process": 1, "host": "elsewhere"})])
def test_a_lock_that_beats_is_taken_over_after_a_long_silence(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(SutureError), hold_lock(tmp_path, beats=True):
        pytest.fail("held twice")
    assert is_held(tmp_path)
    now = (tmp_path / LOCK).stat().st_mtime
    os.utime(tmp_path / LOCK, (now, now - locks.SILENT - 1))
    with pytest.raises(SutureError), hold_lock(tmp_path):
        pytest.fail("a lock that does not promise to beat was taken over")
    assert is_held(tmp_path)
    assert not is_held(tmp_path, beats=True)
    with hold_lock(tmp_path, beats=True) as note:
        assert "was taken over" in note
        assert still_holds(tmp_path)
        (tmp_path / LOCK).write_text(text)
        assert not still_holds(tmp_path)
    assert (tmp_path / LOCK).read_text() == text  # of the new holder


def test_a_lock_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.01)
    with hold_lock(tmp_path, beats=True):
        os.utime(tmp_path / LOCK, (1, 1))
        end = time.monotonic() + 20
        while (tmp_path / LOCK).stat().st_mtime == 1:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert os.listdir(tmp_path) == []


def test_a_lock_works_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(locks.os, "link", refuse)
    with hold_lock(tmp_path / "a.safetensors", "training"):
        assert os.listdir(tmp_path) == [".a.safetensors.training.lock"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("place", "words"), [
    ("file", "'.*file' is a file"), ("file/below", "'.*file' is a file"), ("dangling", "link to 'nowhere'"),
    ("dangling/below", "link to 'nowhere'"), ("x" * 300, "cannot write"),
    ("new/" + "x" * 300, "cannot write"),
])
@pytest.mark.parametrize("check", [check_folder, check_file])
def test_a_bad_place_is_refused_and_nothing_remains(tmp_path: Path, place: str, words: str,
                                                    check: Any) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    if check is check_file and place == "file":
        return  # is replaced
    with pytest.raises(SutureError, match=words) as caught:
        check(tmp_path / place)
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file"]


def test_a_good_place_remains_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "a" / "b", tmp_path / "link" / "c"):
        assert check_folder(folder) == folder
        check_file(folder / "w.safetensors", ".safetensors")
    assert os.listdir(tmp_path) == ["link"]
    with pytest.raises(SutureError, match=r"write w\.safetensors"):
        check_file(tmp_path / "w.pt", ".safetensors")
    with pytest.raises(SutureError, match="got the folder"):
        check_file(tmp_path)


def test_a_full_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fill)
    for check in (check_folder, check_file):
        with pytest.raises(SutureError, match="No space left"):
            check(tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_another_process_removes_meanwhile_is_tried_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two studies that begin at once make the folder for a trial, and the first removes it from the other."""
    write, folder = places.write_new_file, tmp_path / "study"

    def remove_once(path: Path, data: bytes) -> None:
        monkeypatch.setattr(places, "write_new_file", write)
        folder.rmdir()
        write(path, data)

    monkeypatch.setattr(places, "write_new_file", remove_once)
    assert check_folder(folder) == folder
    assert not folder.exists()
