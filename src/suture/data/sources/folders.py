"""Folders: the files of each split, and images in a folder for each class.

suture reads image folders itself, because the library `datasets` needs 1 to 3 ms per file to open one (this
module 0.01 ms) and takes the class from the innermost folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from suture._base import SutureError, summarise_error
from suture.data.sources.imagenet import is_flat_validation, read_validation_labels, refuse_missing_classes
from suture.data.sources.splits import SPLIT_NAMES
from suture.data.sources.stores import DataSource, MemoryStore, StoredSplit

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
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


def open_image_folder(root: Path, labelled: bool = True) -> DataSource | None:
    """Open the images below `root`, sorted by class, then by path; return None if there are none.

    The layout is ``root/train/cat/1.png`` with ``root/test/cat/9.png``, or ``root/cat/1.png`` without splits.
    Images outside class folders have no label; they are left out if there are class folders. Those of
    ImageNet's validation set have that of its development kit, unless no labels are wanted (`labelled`).
    """
    if not any(_find_images(root)):
        return None
    folders = _list_folders(root)
    inner = [d for d in folders if _name_split(d) in SPLIT_NAMES and any(_find_images(d))]
    if not any(_name_split(d).startswith("train") for d in inner) and len(inner) < len(folders):
        inner = []
    return DataSource(root.resolve().name, {_name_split(d) if inner else "": partial(_read_split, d, labelled)
                                            for d in inner or [root]})


def _name_split(folder: Path) -> str:
    """Return the split that a folder is named for, such as ``train`` or ``validation_data``."""
    return folder.name.lower().removesuffix("_data")


def _find_images(folder: Path) -> Iterator[str]:
    for at, inner, files in os.walk(folder, onerror=_refuse_folder, followlinks=True):
        inner[:] = [d for d in inner if not _leads_back(Path(at, d))]
        yield from (os.path.join(at, f) for f in files if _is_image(f))


def _leads_back(folder: Path) -> bool:
    """Return True for a link to a folder that it lies in, below which every image would come again."""
    # Through another link a folder lies in others than those of its own path.
    return folder.is_symlink() and any(p.resolve().is_relative_to(folder.resolve()) for p in folder.parents)


def _refuse_folder(error: OSError) -> None:
    raise SutureError(f"a folder of images cannot be read: {summarise_error(error)}") from error


def _read_split(root: Path, labelled: bool) -> StoredSplit:
    paths: list[str] = []
    labels: list[str] = []
    for folder in _list_folders(root):
        mine = sorted(_find_images(folder))
        paths += mine
        labels += [folder.name] * len(mine)
    refuse_missing_classes(root, set(labels))
    loose = sorted(str(f) for f in root.iterdir() if f.is_file() and _is_image(f.name))
    if not paths:
        known = read_validation_labels(root, loose) if labelled and is_flat_validation(loose) else None
        return StoredSplit(MemoryStore(loose, root.name, loose), "images", known)
    note = f"{len(loose)} images of {root.name} lie in no class folder and are left out" if loose else ""
    return StoredSplit(MemoryStore(paths, root.name, paths), "images", labels, note=note)


def _list_folders(root: Path) -> list[Path]:
    return sorted(d for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_ENDINGS) and not name.startswith(".")
