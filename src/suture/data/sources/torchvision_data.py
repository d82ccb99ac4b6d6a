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
from suture.data.sources.stores import DataSource, StoredSplit


@dataclass(frozen=True, eq=False)
class TorchvisionImages:
    """Store of the images of a map-style data set of (image, label)."""

    data: Any
    name: str

    def __len__(self) -> int:
        return len(self.data)

    def fetch(self, rows: Sequence[int]) -> list[Any]:
        """Return the images at `rows`; see `Store`."""
        return [self.data[r][0] for r in rows]

    def describe_row(self, row: int) -> str:
        """Return name and row of an example; see `Store`."""
        return f"{self.name}, row {row}"


def open_torchvision(spec: str) -> DataSource:
    """Open ``CIFAR10@ROOT``: a class of `torchvision.datasets` and its root folder.

    torchvision unpickles the files of CIFAR after it has compared their checksums with its own.

    Raises:
        SutureError: torchvision is missing or has no such class, no root, or nothing at the root.
    """
    name, _, root = spec.partition("@")
    module = import_optional("torchvision.datasets", "vision", f"torchvision:{spec}")
    made = getattr(module, name, None)
    if not inspect.isclass(made) or "root" not in inspect.signature(made).parameters:
        raise make_unknown_error("data set of torchvision", name, module.__all__)
    if not root:
        raise SutureError(f"expected where {name} lies, got {spec!r}; write torchvision:{name}@FOLDER, the "
                          "root that torchvision was given when it downloaded the data")
    if not Path(root).expanduser().is_dir():
        raise SutureError(f"expected {name} in {root!r}, got nothing there; write torchvision:{name}@FOLDER "
                          f"with the root that torchvision.datasets.{name}(root, download=True) was given")
    open_ = partial(_read_split, made, name, str(Path(root).expanduser()))
    splits: dict[str, Callable[[], StoredSplit]] = {s: cache(partial(open_, given))
                                                    for s, given in _list_split_arguments(made, root)}
    return DataSource(name.lower(), splits)


def _list_split_arguments(made: Any, root: str) -> list[tuple[str, dict[str, Any]]]:
    """List the splits, each with the argument that chooses it."""
    known = inspect.signature(made).parameters
    if "train" in known:
        return [("train", {"train": True}), ("test", {"train": False})]
    if "split" not in known:
        return [("", {})]
    try:
        made(root, split="?")
    except Exception as e:
        # torchvision lists the valid splits in its message: "... Valid values are {'train', 'val'}."
        found = re.findall(r"'([\w-]+)'", str(e).partition("Valid values are")[2])
    else:
        found = []
    return [(s, {"split": s}) for s in found or ("train", "test")]


def _read_split(made: Any, name: str, root: str, given: dict[str, Any]) -> StoredSplit:
    try:
        data = made(root, **given)
    except Exception as e:
        raise SutureError(f"expected {name} in {root!r}, got {type(e).__name__}: {summarise_error(e)}; put "
                          f"it there as torchvision.datasets.{name} says, where it can with "
                          "download=True") from e
    held = next((v for a in ("targets", "labels", "_labels") if (v := getattr(data, a, None)) is not None),
                None)
    labels = [data[r][1] for r in range(len(data))] if held is None else list(held)
    plain = [v.item() if hasattr(v, "item") and getattr(v, "ndim", 0) == 0 else v for v in labels]
    if not all(isinstance(v, int) for v in plain):
        return StoredSplit(TorchvisionImages(data, name), "images",
                           note=f"{name} has no class number for each image")
    classes = getattr(data, "classes", None)
    names = tuple(str(c) for c in classes) if isinstance(classes, list | tuple) else None
    return StoredSplit(TorchvisionImages(data, name), "images", plain, names,
                       1 + max(plain, default=0), column="")
