"""Splits: the files of each split in a folder, and the choice of a split."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suture._base import SutureError

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "validation", "valid", "val", "dev", "eval")
"""Names of a test split, the preferred first."""
SPLIT_NAMES = (*TRAIN_NAMES, *TEST_NAMES)
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")
_PREFIX = re.compile(rf"({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?=[-_.]|$)", re.IGNORECASE)


def find_files(path: Path, ending: str) -> dict[str, list[Path]]:
    """Find files of one ending by split: in the folder, ``data/``, folders of splits or the only folder."""
    for folder in (path, path / "data"):
        if files := _list_files(folder, ending):
            return _group_by_split(files)
    below = {d: files for d in sorted(path.iterdir()) if (files := _list_files(d, ending))}
    if below and all(d.name.lower() in SPLIT_NAMES for d in below):
        return {d.name.lower(): files for d, files in below.items()}
    if len(below) > 1:
        raise SutureError(f"several data sets in {str(path)!r}; choose one folder: "
                          f"{', '.join(str(d) for d in list(below)[:3])}")
    return _group_by_split(next(iter(below.values()))) if below else {}


def _list_files(folder: Path, ending: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir()
                  if f.suffix.lower() == ending and not f.name.startswith(".") and f.is_file())


def _group_by_split(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Group sorted files by the split at the start of their names; return {"": all} without such names."""
    found: dict[str, list[Path]] = {}
    for file in files:
        shard, prefix = _SHARD.fullmatch(file.stem), _PREFIX.match(file.stem)
        found.setdefault(shard[1] if shard else prefix[1].lower() if prefix else "", []).append(file)
    if "" in found and len(found) > 1:
        for file in found.pop(""):
            found.setdefault(file.stem, []).append(file)
    for split, ones in found.items():
        _refuse_gaps(split, ones)
    return found


def _refuse_gaps(split: str, files: Sequence[Path]) -> None:
    there = {f.name for f in files}
    for of in {m[3] for f in files if (m := _SHARD.fullmatch(f.stem))}:
        for k in range(int(of)):
            wanted = f"{split}-{k:05d}-of-{of}{files[0].suffix}"
            if wanted not in there:
                raise SutureError(f"{wanted} is missing in {str(files[0].parent)!r}; download it, or rename "
                                  "the others")


def choose_split(splits: Mapping[str, Any], split: str, given: str, name: str) -> tuple[str, bool]:
    """Return the name of the requested split, and True where a test part must first be cut from it.

    Args:
        split: "train", "test", or the name of a split.
        given: splits for training and testing: "A/B", "A" to cut one split in two, or "" for the usual names.
    """
    named = split not in ("train", "test")
    train, _, test = given.partition("/")
    for one in (split,) if named else filter(None, (train, test)):
        if one not in splits:
            there = ", ".join(s for s in splits if s) or "none; write 'train' or 'test', cut from the whole"
            raise SutureError(f"{name} has no split {one!r}; splits: {there}")
    if named:
        return split, False
    if given:
        if train == test:
            raise SutureError(f"expected two splits of {name}, got {given!r}; write #{train} to cut it")
        return (test, False) if test and split == "test" else (train, not test)
    usual = next((t for t in TEST_NAMES if t in splits), None)
    if split == "test" and usual is not None:
        return usual, False
    first = next(iter(splits))
    own = next((t for t in TRAIN_NAMES if t in splits), first if len(splits) == 1 else usual)
    if own is None or own == usual:
        raise SutureError(f"{name} has no split 'train', only {', '.join(splits)}; write #A/B after the "
                          f"path, or #{first} to cut that one in two")
    return own, usual is None
