"""Data sets of the libraries `datasets` (by name, saved in a folder, or as objects) and torchvision."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from suture._base import SutureError, import_optional, make_unknown_error, summarise_error
from suture.data.sources.columns import ColumnNames, ColumnType, choose_columns
from suture.data.sources.stores import DataSource, ExampleKind, MemoryStore, StoredSplit

SAVED_FILES = ("dataset_dict.json", "state.json")
"""Files by which a folder of `save_to_disk` is recognised."""
_STORED_TYPES: dict[str, ColumnType] = {
    "string": "string", "large_string": "string", "string_view": "string",
    "binary": "bytes", "large_binary": "bytes", "bool": "int"}


@dataclass(frozen=True, eq=False)
class DatasetColumn(MemoryStore):
    """Store of one encoded column of a `datasets.Dataset`."""

    def fetch(self, rows: Sequence[int]) -> list[Any]:
        """Return the encoded examples at `rows` in one call, which is faster than one by one."""
        column: Any = self.values
        return list(column[list(rows)])


def open_by_name(spec: str, columns: ColumnNames) -> DataSource:
    """Open ``NAME`` or ``NAME@CONFIG`` of a hub or its cache. No code of the data set is run."""
    name, _, config = spec.partition("@")
    library = import_optional("datasets", "data", f"hf:{spec}")
    # Before version 4 the library could run a data set's own script, so this must be forbidden.
    asks = "trust_remote_code" in inspect.signature(library.load_dataset).parameters
    with _silence_progress(library):
        try:
            found = library.load_dataset(name, config or None,
                                         **({"trust_remote_code": False} if asks else {}))
        except Exception as e:
            reached = isinstance(e, OSError) and "reach" in str(e)
            instead = (f"write FOLDER after hf download --repo-type dataset {name} --local-dir FOLDER"
                       if reached else f"check the name, or write hf:{name}@CONFIG for one of several")
            raise SutureError(f"no data set {name!r} on the hub: {summarise_error(e)}; {instead}") from e
    return open_object(found, columns, name=name.rpartition("/")[2])


def open_saved(folder: Path, columns: ColumnNames) -> DataSource:
    library = import_optional("datasets", "data", str(folder))
    with _silence_progress(library):
        try:
            found = library.load_from_disk(str(folder))
        except Exception as e:
            raise SutureError(f"datasets cannot read {str(folder)!r} ({summarise_error(e)}); write it again "
                              "with save_to_disk") from e
    return open_object(found, columns, name=folder.resolve().name)


def is_hub_dataset(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] == "datasets"


def is_stream(data: Any) -> bool:
    return is_hub_dataset(data) and type(data).__name__.startswith("Iterable")


def open_object(data: Any, columns: ColumnNames, *, name: str = "", n: int | None = None) -> DataSource:
    """Open the splits of a `datasets.Dataset` or stream, or of a dictionary of either.

    A stream has no index, so its first `n` examples are read into memory, still encoded.
    """
    parts = data if isinstance(data, Mapping) else {"": data}
    name = name or next((str(d.info.dataset_name) for d in parts.values() if d.info.dataset_name), "dataset")
    return DataSource(name, {str(s): partial(_read_dataset, d, f"{name}-{s}" if s else name, columns, n)
                             for s, d in parts.items()})


def _read_dataset(data: Any, name: str, columns: ColumnNames, n: int | None) -> StoredSplit:
    library = import_optional("datasets", "data", name)
    stream = isinstance(data, library.IterableDataset)
    if stream and n is None:
        raise SutureError(f"the streamed data set {name} has no length; give n to use its first n examples")
    if stream and data.features is None:
        # A stream knows its columns only after its first examples are read. `datasets` has no public
        # function for this.
        data = data._resolve_features()
    kind, column, label, names = choose_features(data.features or {}, columns, name)
    data = data.select_columns([column] if label is None else [column, label])
    if isinstance(data.features[column], library.Image):
        data = data.cast_column(column, library.Image(decode=False))
    if stream:
        rows, held = list(islice(data, n)), data.features
        data = library.Dataset.from_dict({c: [row[c] for row in rows] for c in held}, features=held)
    data = data.with_format(None)
    return StoredSplit(DatasetColumn(data[column], name), kind,
                       None if label is None else list(data[label]), names, column=label or "",
                       note=f"the first {len(data)} examples of a stream" if stream else "")


def choose_features(features: Mapping[str, Any], columns: ColumnNames,
                    name: str) -> tuple[ExampleKind, str, str | None, tuple[str, ...] | None]:
    """Return (kind, column of the examples, column of the labels, names of the classes) among features."""
    kind, column, label = choose_columns({c: _find_type(f) for c, f in features.items()}, columns, name)
    names = getattr(features[label], "names", None) if label is not None else None
    return kind, column, label, None if names is None else tuple(names)


def _find_type(feature: Any) -> ColumnType:
    kind, held = type(feature).__name__, str(getattr(feature, "dtype", ""))
    if kind == "Image" or (isinstance(feature, dict) and "bytes" in feature):
        return "image"
    if kind == "ClassLabel":
        return "classes"
    if kind != "Value":
        return "other"
    return _STORED_TYPES.get(held, "int" if held.startswith(("int", "uint")) else "other")


@contextmanager
def _silence_progress(library: Any) -> Iterator[None]:
    off = library.utils.are_progress_bars_disabled()
    library.disable_progress_bars()
    try:
        yield
    finally:
        if not off:
            library.enable_progress_bars()


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
    return DataSource(name.lower(), {s: partial(_read_torchvision, made, str(root), argument)
                                     for s, argument in _list_split_arguments(made, str(root)).items()})


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


def _read_torchvision(made: Any, root: str, given: dict[str, Any]) -> StoredSplit:
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
    return StoredSplit(store, "images", plain, names, 1 + max(plain, default=0))
