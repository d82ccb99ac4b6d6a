"""Data sets of torchvision that lie in a folder; nothing is downloaded."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from suture._base import SutureError, import_optional, make_unknown_error, summarise_error
from suture.data.sources.stores import DataSource, MemoryStore, StoredSplit


@dataclass(frozen=True, eq=False)
class TorchvisionImages(MemoryStore):
    """Store of the images of a map-style data set of (image, label)."""

    def fetch(self, rows: Sequence[int]) -> list[Any]:
        return [self.values[r][0] for r in rows]


def open_torchvision(spec: str) -> DataSource:
    """Open ``CIFAR10@ROOT``: a class of `torchvision.datasets` and its root folder.

    torchvision compares checksums before it unpickles the files of CIFAR.
    """
    name, _, given = spec.partition("@")
    module = import_optional("torchvision.datasets", "vision", f"torchvision:{spec}")
    made = getattr(module, name, None)
    if not inspect.isclass(made) or "root" not in inspect.signature(made).parameters:
        raise make_unknown_error("data set of torchvision", name, module.__all__)
    root = Path(given).expanduser()
    if not given or not root.is_dir():
        raise SutureError(f"expected the folder of {name}, got {given!r}; write torchvision:{name}@FOLDER "
                          f"with the root of torchvision.datasets.{name}(root, download=True)")
    splits: dict[str, Callable[[], StoredSplit]] = {
        s: cache(partial(_read_split, made, str(root), argument))
        for s, argument in _list_split_arguments(made, str(root)).items()}
    return DataSource(name.lower(), splits)


def _list_split_arguments(made: Any, root: str) -> dict[str, dict[str, Any]]:
    known = inspect.signature(made).parameters
    if "train" in known:
        return {"train": {"train": True}, "test": {"train": False}}
    if "split" not in known:
        return {"": {}}
    found: list[str] = []
    try:
        made(root, split="?")
    except Exception as e:
        # torchvision lists the valid splits in its message: "... Valid values are {'train', 'val'}."
        found = re.findall(r"'([\w-]+)'", str(e).partition("Valid values are")[2])
    return {s: {"split": s} for s in found or ("train", "test")}


def _read_split(made: Any, root: str, given: dict[str, Any]) -> StoredSplit:
    name = made.__name__
    try:
        data = made(root, **given)
    except Exception as e:
        raise SutureError(f"torchvision cannot read {name} in {root!r}: {summarise_error(e)}; see "
                          f"torchvision.datasets.{name}") from e
    held = next((v for a in ("targets", "labels", "_labels") if (v := getattr(data, a, None)) is not None),
                None)
    labels = [data[r][1] for r in range(len(data))] if held is None else list(held)
    plain = [v.item() if hasattr(v, "item") and getattr(v, "ndim", 0) == 0 else v for v in labels]
    store = TorchvisionImages(data, name)
    if not all(isinstance(v, int) for v in plain):
        return StoredSplit(store, "images", note=f"{name} has no class number for each image")
    classes = getattr(data, "classes", None)
    names = tuple(str(c) for c in classes) if isinstance(classes, list | tuple) else None
    return StoredSplit(store, "images", plain, names, 1 + max(plain, default=0), column="")
