"""Folders of image files, with a folder for each class.

suture reads them itself, because the library `datasets` needs 1 to 3 ms per file to open a folder (this
module 0.01 ms) and takes the class from the innermost folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from suture.data.sources.splits import SPLIT_NAMES
from suture.data.sources.stores import DataSource, MemoryStore, StoredSplit

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")


def open_image_folder(root: Path) -> DataSource | None:
    """Open the images below `root`, sorted by class, then by path; return None if there are none.

    The layout is ``root/train/cat/1.png`` with ``root/test/cat/9.png``, or ``root/cat/1.png`` without splits.
    Images outside class folders have no label; they are left out if there are class folders.
    """
    if not _has_images(root):
        return None
    folders = _list_folders(root)
    inner = [d for d in folders if d.name.lower() in SPLIT_NAMES and _has_images(d)]
    if not any(d.name.lower().startswith("train") for d in inner) and len(inner) < len(folders):
        inner = []
    splits: dict[str, Callable[[], StoredSplit]] = {
        d.name.lower() if inner else "": cache(partial(_read_split, d)) for d in inner or [root]}
    return DataSource(root.resolve().name, splits)


def _has_images(folder: Path) -> bool:
    return any(_is_image(f) for _, _, files in os.walk(folder, followlinks=True) for f in files)


def _read_split(root: Path) -> StoredSplit:
    paths: list[str] = []
    labels: list[str] = []
    for folder in _list_folders(root):
        mine = sorted(os.path.join(at, f) for at, _, files in os.walk(folder, followlinks=True)
                      for f in files if _is_image(f))
        paths += mine
        labels += [folder.name] * len(mine)
    loose = sorted(str(f) for f in root.iterdir() if f.is_file() and _is_image(f.name))
    if not paths:
        return StoredSplit(MemoryStore(loose, root.name, loose), "images")
    note = f"{len(loose)} images of {root.name} lie in no class folder and are left out" if loose else ""
    return StoredSplit(MemoryStore(paths, root.name, paths), "images", labels, column="", note=note)


def _list_folders(root: Path) -> list[Path]:
    return sorted(d for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_ENDINGS) and not name.startswith(".")
