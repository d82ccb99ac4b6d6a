"""Names of splits: finding the split of a file, and choosing the split that is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from suture._base import SutureError

P = TypeVar("P")
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "validation", "valid", "val", "dev", "eval")
"""Names of a test split, the best first."""
SPLIT_NAMES = (*TRAIN_NAMES, *TEST_NAMES)
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")
_PREFIX = re.compile(rf"({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?=[-_.]|$)", re.IGNORECASE)


def group_by_split(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Group sorted files by the split that their names begin with; return {"": all} where no name does.

    Raises:
        SutureError: a shard is missing (``train-00003-of-00005``).
    """
    found: dict[str, list[Path]] = {}
    for file in sorted(files):
        found.setdefault(_find_split(file), []).append(file)
    if "" in found and len(found) > 1:
        for file in found.pop(""):
            found.setdefault(file.stem, []).append(file)
    for split, ones in found.items():
        _refuse_gaps(split, ones)
    return found


def _find_split(file: Path) -> str:
    shard, prefix = _SHARD.fullmatch(file.stem), _PREFIX.match(file.stem)
    if shard:
        return shard[1]
    return prefix[1].lower() if prefix else ""


def _refuse_gaps(split: str, files: Sequence[Path]) -> None:
    for of in {m[3] for f in files if (m := _SHARD.fullmatch(f.stem))}:
        there = {f.name for f in files}
        wanted = [f"{split}-{k:05d}-of-{of}{files[0].suffix}" for k in range(int(of))]
        gone = [w for w in wanted if w not in there]
        if gone:
            raise SutureError(f"expected {int(of)} files of {split!r} in {str(files[0].parent)!r}, got "
                              f"{int(of) - len(gone)}, {gone[0]} is missing; fetch it, or take the number of "
                              "files out of their names")


def choose_split(splits: Mapping[str, P], split: str, given: str, name: str) -> tuple[str, bool]:
    """Choose the split that is meant, and say if a test part must first be cut from it.

    Args:
        splits: splits by name.
        split: "train", "test", or the name of a split.
        given: the splits for training and testing: "A/B", "A" for one split that is cut in two, or "" for the
            usual names.
        name: name of the data in messages.

    Returns:
        Name of the split, and True where it must be cut in two.

    Raises:
        SutureError: a split that is not there, or one split for both.
    """
    if split not in ("train", "test"):
        _refuse_unknown(splits, split, name)
        return split, False
    if given:
        train, _, test = given.partition("/")
        for one in (train, test) if test else (train,):
            _refuse_unknown(splits, one, name)
        if train == test:
            raise SutureError(f"expected two splits of {name}, got {given!r}; write #{train} alone "
                              "to cut it in two")
        return (test, False) if test and split == "test" else (train, not test)
    usual = next((t for t in TEST_NAMES if t in splits), None)
    if split == "test" and usual is not None:
        return usual, False
    first = next(iter(splits))
    own = next((t for t in TRAIN_NAMES if t in splits), first if len(splits) == 1 else usual)
    if own == usual:
        raise SutureError(f"expected a split 'train' of {name}, got {', '.join(splits)}; write which are "
                          f"meant after the path: #A/B, or #{first} to cut that one in two")
    return str(own), usual is None


def _refuse_unknown(splits: Mapping[str, P], split: str, name: str) -> None:
    """Refuse a split that is not there.

    Raises:
        SutureError: it is not among `splits`.
    """
    if split not in splits:
        there = ", ".join(s for s in splits if s)
        which = (f"there are {there}" if there
                 else "it has none; write only 'train' or 'test', which are cut from it")
        raise SutureError(f"expected a split of {name}, got {split!r}; {which}")
