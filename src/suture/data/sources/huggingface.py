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
from suture.data.sources.stores import DataSource, MemoryStore, StoredSplit

SAVED_FILES = ("dataset_dict.json", "state.json")
"""Files by which a folder of `save_to_disk` is recognised."""


@dataclass(frozen=True, eq=False)
class DatasetColumn:
    """Store of one encoded column of a `datasets.Dataset`."""

    data: Any
    column: str
    name: str

    def __len__(self) -> int:
        return len(self.data)

    def fetch(self, rows: Sequence[int]) -> list[Any]:
        """Return the encoded examples at `rows`; see `Store`."""
        found: list[Any] = self.data[list(rows)][self.column]
        return found

    def describe_row(self, row: int) -> str:
        """Return name and row of an example; see `Store`."""
        return f"{self.name}, row {row}"


def open_by_name(spec: str, columns: ColumnNames) -> DataSource:
    """Open ``NAME`` or ``NAME@CONFIG`` of a hub or its cache. No code of the data set is run.

    Raises:
        SutureError: the library is missing, there is no such data set, or there is no network.
    """
    name, _, config = spec.partition("@")
    library = import_optional("datasets", "hf", f"hf:{spec}")
    # Before version 4 the library could run a data set's own script, so this must be forbidden.
    asks = "trust_remote_code" in inspect.signature(library.load_dataset).parameters
    with _silence_progress(library):
        try:
            found = library.load_dataset(name, config or None,
                                         **({"trust_remote_code": False} if asks else {}))
        except Exception as e:
            reached = isinstance(e, OSError) and "reach" in str(e)
            instead = ("without a network give a folder: fetch it where there is one (hf download "
                       f"--repo-type dataset {name} --local-dir FOLDER) and write FOLDER" if reached
                       else f"check the name, write hf:{name}@CONFIG for one of several, or give a folder")
            raise SutureError(f"expected a data set {name!r} on the hub, got "
                              f"{summarise_error(e)}; {instead}") from e
    return open_object(found, columns, name=name.rpartition("/")[2])


def open_saved(folder: Path, columns: ColumnNames) -> DataSource:
    """Open a folder that `save_to_disk` has written.

    Raises:
        SutureError: the library is missing, or it cannot read the folder.
    """
    library = import_optional("datasets", "hf", str(folder))
    with _silence_progress(library):
        try:
            found = library.load_from_disk(str(folder))
        except Exception as e:
            raise SutureError(f"expected a folder of datasets' save_to_disk, got {str(folder)!r} that cannot "
                              f"be read ({summarise_error(e)}); save it again") from e
    return open_object(found, columns, name=folder.resolve().name)


def is_hub_dataset(data: Any) -> bool:
    """Return True for an object of the library: a Dataset, an IterableDataset, or a dictionary of them."""
    return type(data).__module__.partition(".")[0] == "datasets"


def is_stream(data: Any) -> bool:
    """Return True for an IterableDataset or a dictionary of them."""
    return is_hub_dataset(data) and type(data).__name__.startswith("Iterable")


def open_object(data: Any, columns: ColumnNames, *, name: str = "", n: int | None = None) -> DataSource:
    """Open the splits of a `datasets.Dataset`, `DatasetDict`, `IterableDataset` or `IterableDatasetDict`.

    A stream has no index. Its first `n` examples are read into memory, encoded, when a split is opened.
    Shuffle it yourself where its beginning is not typical.

    Raises:
        SutureError: a stream without `n`.
    """
    parts = data if isinstance(data, Mapping) else {"": data}
    name = name or next((str(d.info.dataset_name) for d in parts.values() if d.info.dataset_name), "dataset")
    splits: dict[str, Callable[[], StoredSplit]] = {
        str(s): cache(partial(_read_split, d, f"{name}-{s}" if s else name, columns, n))
        for s, d in parts.items()}
    return DataSource(name, splits)


def _read_split(data: Any, name: str, columns: ColumnNames, n: int | None) -> StoredSplit:
    library = import_optional("datasets", "hf", name)
    stream = isinstance(data, library.IterableDataset)
    if stream and n is None:
        raise SutureError(f"expected a number of examples for the streamed data set {name}, got none; give n "
                          "(it takes the first so many), or load it without streaming=True")
    if stream and data.features is None:
        # A stream knows its columns only after its first examples are read. `datasets` has no public
        # function for this.
        data = data._resolve_features()
    features = data.features
    if not features:
        raise SutureError(f"expected columns in {name}, got none; check the data set")
    types = {c: _find_type(f, library) for c, f in features.items()}
    kind, column, label = choose_columns(types, columns, name)
    for c in (c for c, t in types.items() if t == "image"):
        data = data.cast_column(c, library.Image(decode=False))
    names = tuple(features[label].names) if label is not None and types[label] == "classes" else None
    if stream:
        rows = list(islice(data.select_columns([c for c in (column, label) if c is not None]), n))
        labels = None if label is None else [r[label] for r in rows]
        note = f"the first {len(rows)} examples of a stream"
        return StoredSplit(MemoryStore([r[column] for r in rows], name), kind, labels, names,
                           column=label or "", note=note)
    data = data.with_format(None)
    labels = None if label is None else list(data.select_columns([label])[:][label])
    return StoredSplit(DatasetColumn(data.select_columns([column]), column, name), kind, labels, names,
                       column=label or "")


def _find_type(feature: Any, library: Any) -> ColumnType:
    if isinstance(feature, library.Image):
        return "image"
    if isinstance(feature, library.ClassLabel):
        return "classes"
    held = str(getattr(feature, "dtype", "")) if isinstance(feature, library.Value) else ""
    if held in ("string", "large_string"):
        return "string"
    if held in ("binary", "large_binary"):
        return "bytes"
    return "int" if held == "bool" or held.startswith(("int", "uint")) else "other"


@contextmanager
def _silence_progress(library: Any) -> Iterator[None]:
    """Hide the progress bars of the library while the context is open, then restore them."""
    off = library.utils.are_progress_bars_disabled()
    library.disable_progress_bars()
    try:
        yield
    finally:
        if not off:
            library.enable_progress_bars()
