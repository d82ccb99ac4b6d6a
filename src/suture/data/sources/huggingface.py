"""Data sets of the library `datasets`: by name on a hub or in its cache, saved in a folder, or as objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from suture._base import SutureError, import_optional, summarise_error
from suture.data.sources.columns import ColumnNames, ColumnType, choose_columns
from suture.data.sources.decoding import ExampleKind
from suture.data.sources.stores import DataSource, MemoryStore, StoredSplit

SAVED_FILES = ("dataset_dict.json", "state.json")
"""Files by which a folder of `save_to_disk` is recognised."""
_STORED_TYPES: dict[str, ColumnType] = {
    "string": "string", "large_string": "string", "binary": "bytes", "large_binary": "bytes", "bool": "int"}


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
    splits: dict[str, Callable[[], StoredSplit]] = {
        str(s): cache(partial(_read_split, d, f"{name}-{s}" if s else name, columns, n))
        for s, d in parts.items()}
    return DataSource(name, splits)


def _read_split(data: Any, name: str, columns: ColumnNames, n: int | None) -> StoredSplit:
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
        rows = list(islice(data, n))
        return StoredSplit(MemoryStore([r[column] for r in rows], name), kind,
                           None if label is None else [r[label] for r in rows], names, column=label or "",
                           note=f"the first {len(rows)} examples of a stream")
    data = data.with_format(None)
    return StoredSplit(DatasetColumn(data[column], name), kind,
                       None if label is None else list(data[label]), names, column=label or "")


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
