"""Folders of image files, with a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from suture.data.sources.splits import SPLIT_NAMES
from suture.data.sources.stores import DataSource, StoredSplit

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Store with one image per file."""

    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(self, rows: Sequence[int]) -> list[Any]:
        """Return the paths at `rows`; see `Store`."""
        return [self.paths[r] for r in rows]

    def describe_row(self, row: int) -> str:
        """Return the path of an example; see `Store`."""
        return repr(self.paths[row])


def open_image_folder(root: Path) -> DataSource | None:
    """Open the images below `root`; return None if there are none.

    The layout is ``root/train/cat/1.png`` with ``root/test/cat/9.png``, or ``root/cat/1.png`` without splits.
    Files are sorted by class, then by path. Images outside class folders have no label; they are left out
    where there are class folders.
    """
    if not has_images(root):
        return None
    inner = [d for d in _list_folders(root) if d.name.lower() in SPLIT_NAMES and has_images(d)]
    if inner and (any(d.name.lower().startswith("train") for d in inner)
                  or len(inner) == len(_list_folders(root))):
        splits: dict[str, Callable[[], StoredSplit]] = {d.name.lower(): cache(partial(_read_split, d))
                                                        for d in inner}
    else:
        splits = {"": cache(partial(_read_split, root))}
    return DataSource(root.resolve().name, splits)


def has_images(folder: Path) -> bool:
    """Return True where an image file lies anywhere below; stop at the first."""
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
        return StoredSplit(ImageFiles(tuple(loose)), "images")
    note = f"{len(loose)} images of {root.name} lie in no class folder and are left out" if loose else ""
    return StoredSplit(ImageFiles(tuple(paths)), "images", labels, column="", note=note)


def _list_folders(root: Path) -> list[Path]:
    return sorted(d for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_ENDINGS) and not name.startswith(".")
