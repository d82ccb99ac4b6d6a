"""Labels of ImageNet's validation images (ILSVRC2012) that lie in one folder, as they are published."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from suture._base import SutureError, expect
from suture.data.sources.matlab_files import read_variables

_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})")
_CLASS = re.compile(r"n\d{8}(\.tar)?")
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_DEVKIT = "ILSVRC2012_devkit_t12"
_PLACES = (f"{_DEVKIT}/data", "devkit/data", "data", "")


def is_flat_validation(images: Sequence[str]) -> bool:
    """Return True for images named as those of ImageNet's validation set."""
    return bool(images) and all(_IMAGE.fullmatch(Path(image).stem) for image in images)


def refuse_missing_classes(root: Path, found: Collection[str]) -> None:
    """Refuse folders and archives of classes that hold no unpacked image: the others would change numbers.

    Args:
        root: folder of class folders.
        found: names of the class folders that hold images.

    Raises:
        SutureError: a class folder such as n01440764 is empty, or only its archive is there.
    """
    named = (path for path in sorted(root.iterdir()) if _CLASS.fullmatch(path.name))
    gone = next((path for path in named if path.name.removesuffix(".tar") not in found), None)
    if gone is not None and found:
        raise SutureError(f"expected images of the class in {str(gone)!r}, got none; unpack its archive, or "
                          "remove it")


def read_validation_labels(folder: Path, images: Sequence[str]) -> list[str]:
    """Return the WordNet id of each validation image, from the development kit beside their folder.

    Line k of its ground truth holds the ILSVRC id (1 to 1000) of the image with number k, and meta.mat the
    WordNet id of each. Sorted WordNet ids number the classes, as in torchvision and in pretrained networks;
    ILSVRC ids are in another order.

    Raises:
        SutureError: no development kit, or one that does not fit.
    """
    places = [root / place for root in (folder.parent, folder) for place in _PLACES]
    data = next((p for p in places if (p / _TRUTH).is_file() and (p / "meta.mat").is_file()), None)
    if data is None:
        raise SutureError(f"labels of the {len(images)} images in {str(folder)!r} need {_TRUTH} and "
                          f"meta.mat; unpack {_DEVKIT}.tar.gz beside it")
    file = data / _TRUTH
    known, ids = _read_wordnet_ids(data / "meta.mat"), _read_ids(file)
    found = []
    for image in images:
        line = int(Path(image).stem[-8:])
        expect(1 <= line <= len(ids), f"a line for {Path(image).name} in {str(file)!r}", f"{len(ids)} lines")
        wordnet = known.get(ids[line - 1])
        expect(wordnet is not None, f"an ILSVRC id from 1 to {len(known)} in line {line} of {str(file)!r}",
               ids[line - 1])
        found.append(str(wordnet))
    return found


def _read_ids(file: Path) -> list[int]:
    lines = file.read_text(encoding="utf-8", errors="replace").split()
    for number, line in enumerate(lines, 1):
        expect(line.isdecimal(), f"an ILSVRC id in line {number} of {str(file)!r}", repr(line))
    return [int(line) for line in lines]


def _read_wordnet_ids(file: Path) -> dict[int, str]:
    """Return the WordNet ids of the classes by ILSVRC id; synsets above them in WordNet are no classes."""
    synsets: Any = np.atleast_1d(read_variables(file, ["synsets"], squeeze_me=True)["synsets"])
    needed = ("ILSVRC2012_ID", "WNID", "num_children")
    names = synsets.dtype.names or ()
    expect(set(needed) <= set(names), f"{', '.join(needed)} as fields of synsets in {str(file)!r}",
           ", ".join(names) or "none")
    return {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets if int(one["num_children"]) == 0}
