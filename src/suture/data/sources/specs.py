"""Specs: opening data by text (as on a command line) or by object, with their reader, splits and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from suture._base import SutureError, make_unknown_error
from suture.data.sources import huggingface as hub
from suture.data.sources import image_folders as folders
from suture.data.sources import numpy_files as arrays
from suture.data.sources import parquet, splits
from suture.data.sources import text_files as texts
from suture.data.sources import torchvision_data as vision
from suture.data.sources.bad_examples import BadExamples, explain_bad_rows, find_decodable
from suture.data.sources.columns import NO_LABEL_COLUMN, ColumnNames
from suture.data.sources.examples import Examples
from suture.data.sources.labels import Labels, number_labels
from suture.data.sources.sampling import draw_order, has_class_runs, split_off_fifth
from suture.data.sources.stores import DataSource, StoredSplit

READERS: Mapping[str, Callable[[dict[str, list[Path]], str, ColumnNames], DataSource]] = {
    ".parquet": parquet.open_parquet, ".npz": arrays.open_numpy,
    **dict.fromkeys(texts.TEXT_ENDINGS, texts.open_texts)}
PICKLED_ENDINGS = (".pkl", ".pickle", ".pt", ".pth", ".npy", ".bin")


def is_spec(text: str) -> bool:
    """Return True where `text` names data: ``hf:``, ``torchvision:``, or a path.

    Text is a path if it exists, or if it looks like one.
    """
    path = text.partition("#")[0]
    return (text.startswith(("hf:", "torchvision:")) or "/" in path or path.startswith((".", "~"))
            or Path(path).suffix.lower() in (*READERS, *PICKLED_ENDINGS) or Path(path).exists())


def open_source(spec: Any, *, split: str = "train", n: int | None = None, seed: int = 0,
                image_column: str | None = None, label_column: str | None = None,
                text_column: str | None = None, skip_bad: bool = False) -> Examples:
    """Open the examples that `spec` names, in the order in which they are stored.

    =============================  =====================================================================
    a folder of images             ``root/train/cat/1.png``, or ``root/cat/1.png`` without splits
    Parquet                        a file, or a folder with ``train-*.parquet``, also under ``data/``
    ``.npz``                       arrays x and y, also ``x_train`` or ``test_images``; never unpickled
    ``.txt .jsonl .csv .tsv``      a file, or a folder with ``train.csv`` and ``test.csv``
    ``hf:NAME``, ``hf:NAME@CONFIG``  by name on the hub, or in the cache of `datasets`
    a folder of ``save_to_disk``   as `datasets` writes it
    ``torchvision:CIFAR10@ROOT``   nothing is downloaded
    an object of `datasets`        Dataset, DatasetDict, or a stream of either (with `n`)
    =============================  =====================================================================

    After any of the strings, ``#A/B`` names the splits for training and testing, ``#A`` one split that is cut
    in two. Otherwise they are train and test (also validation, val, dev). Without a test split, a fifth of
    the examples (at least one of each class, at most half) is the test part. It is drawn by `seed`, evenly
    over the classes, and a note says so. A single Dataset is never cut: it is one split.

    Args:
        spec: as above; a `pathlib.Path` too.
        split: "train" or "test" in this sense, or the name of a split.
        n: number of examples, drawn as by `Examples.subset`. Default: all.
        seed: seed of the test part and of the draw.
        image_column, label_column, text_column: names of columns, or of arrays. Default: found by name and
            type. ``label_column="none"`` leaves labels out.
        skip_bad: leave out examples that cannot be decoded, are blank or have no label, and note how many.
            This decodes every example once. Default: the first one is refused.

    Raises:
        SutureError: nothing there or of no known kind, a split or column that is not there, labels that are
            no classes or missing, `n` larger than the number of examples, an extra that is not installed, or
            no network.
    """
    wanted = ColumnNames(image_column, label_column, text_column)
    return _SplitReader(spec, wanted, n, seed, skip_bad).read_examples(split, n,
                                                                       whole=hub.is_hub_dataset(spec))


def open_pair(spec: Any, *, train_size: int | None = None, test_size: int | None = None, seed: int = 0,
              image_column: str | None = None, label_column: str | None = None,
              text_column: str | None = None, skip_bad: bool = False) -> tuple[Examples, Examples]:
    """Open the (training, test) examples of `open_source`, ready to compare networks on.

    Examples that come class by class (as from folders) are mixed as by `Examples.subset`. Every beginning
    then holds the classes as evenly as possible, and a note says so.

    Args:
        spec, seed, image_column, label_column, text_column, skip_bad: as for `open_source`.
        train_size, test_size: numbers of examples. Default: all.

    Raises:
        SutureError: as `open_source`.
    """
    wanted = ColumnNames(image_column, label_column, text_column)
    if hub.is_stream(spec) and not isinstance(spec, Mapping):
        raise SutureError("expected a stream with two splits, got one; give "
                          "datasets.IterableDatasetDict({'train': stream.skip(k), 'test': stream.take(k)})")
    opened = _SplitReader(spec, wanted, train_size, seed, skip_bad)
    train = _mix_classes(opened.read_examples("train", train_size), train_size, seed)
    if hub.is_stream(spec):
        opened = _SplitReader(spec, wanted, test_size, seed, skip_bad)
    return train, _mix_classes(opened.read_examples("test", test_size), test_size, seed)


def _mix_classes(examples: Examples, n: int | None, seed: int) -> Examples:
    if n is not None or examples.labels is None or not has_class_runs(examples.labels):
        return examples
    order = draw_order(len(examples), examples.labels, seed)
    return examples.part(order, examples.name, f"stored class by class, mixed by seed {seed}")


class _SplitReader:
    """Reader of the data under one spec, opened once for both splits."""

    def __init__(self, spec: Any, columns: ColumnNames, n: int | None, seed: int, skip_bad: bool) -> None:
        self.columns, self.seed, self.skip_bad = columns, seed, skip_bad
        self.given = ""
        if isinstance(spec, str) and not Path(spec).exists():
            spec, _, self.given = spec.partition("#")
        self.source = _open_spec(spec, columns, n)
        self.name = self.source.name

    def read_examples(self, split: str, n: int | None, whole: bool = False) -> Examples:
        """Read the examples of one split; with `whole`, data without splits are one split."""
        own, cut = (("", False) if whole and "" in self.source.splits
                    else splits.choose_split(self.source.splits, split, self.given, self.name))
        part = self.source.splits[own]()
        if self.columns.label == NO_LABEL_COLUMN:
            part = replace(part, labels=None)
        if len(part.store) == 0:
            raise SutureError(f"expected examples in {self.name}{f' ({own})' if own else ''}, got none; "
                              "check the path")
        label = self.name if whole and not own else f"{self.name}-{split}"
        labels = number_labels(part, lambda: [p() for p in self.source.splits.values()], label)
        rows, notes = self._find_labelled(part, labels, label)
        if cut:
            rows, note = self._cut_split(rows, labels, split, own)
            notes.append(note)
        elif own not in (split, ""):
            notes.append(f"the {split} part is the split {own!r}")
        return self._make_examples(part, labels, rows, n, label, [part.note, *notes])

    def _find_labelled(self, part: StoredSplit, labels: Labels | None, name: str) -> tuple[Tensor, list[str]]:
        """Find the rows that have a label, with notes about the others.

        Return all rows where none has a label.
        """
        rows = torch.arange(len(part.store))
        if labels is None:
            return rows, [f"all labels of {name} are missing or -1"] if part.labels else []
        gone = [r for r, v in enumerate(labels.numbers) if v is None]
        if not gone:
            return rows, []
        first = explain_bad_rows(part.store, part.kind, gone[:1])[0] or "has no label"
        bad = BadExamples(len(gone), len(rows), f"{part.store.describe_row(gone[0])} {first}")
        if not self.skip_bad:
            raise SutureError(f"expected a label for every example of {name}, got some without: {bad}; mend "
                              "them, leave them out with skip_bad=True, or use no labels with "
                              "label_column='none'")
        keep = torch.ones(len(rows), dtype=torch.bool)
        keep[gone] = False
        return rows[keep], [f"left out of {name}: {bad}"]

    def _cut_split(self, rows: Tensor, labels: Labels | None, split: str, own: str) -> tuple[Tensor, str]:
        found = None if labels is None else torch.tensor([labels.numbers[r] for r in rows.tolist()])
        where = f"{self.name} ({own})" if own else self.name
        train, test = split_off_fifth(len(rows), found, self.seed, where)
        note = (f"{where} has no test split: {len(test)} of its {len(rows)} examples, drawn by seed "
                f"{self.seed}, are one")
        return rows[test if split == "test" else train], note

    def _make_examples(self, part: StoredSplit, labels: Labels | None, rows: Tensor, n: int | None, name: str,
                       notes: list[str]) -> Examples:
        numbers = None if labels is None else torch.tensor([labels.numbers[r] for r in rows.tolist()])
        if n is not None and not 1 <= n <= len(rows):
            raise SutureError(f"expected a number of examples from 1 to {len(rows)}, all that "
                              f"{name} has, got {n}")
        order = torch.arange(len(rows)) if n is None else draw_order(len(rows), numbers, self.seed)
        if self.skip_bad:
            found, bad = find_decodable(part.store, part.kind, rows[order], n)
            if bad is not None:
                notes = [*notes, f"left out of {name}: {bad}"]
            position = {r: k for k, r in enumerate(rows.tolist())}
            order = torch.tensor([position[r] for r in found.tolist()], dtype=torch.int64)
            if len(order) < (n or 1):
                raise SutureError(f"expected {n or 1} usable examples in {name}, got {len(order)}: {bad}; "
                                  "ask for less")
        order = order[:n]
        return Examples(part.store, part.kind, name if n is None else f"{name}/{n}@{self.seed}",
                        None if numbers is None else numbers[order],
                        None if labels is None else labels.classes,
                        None if labels is None else labels.names,
                        "; ".join(x for x in notes if x), rows[order])


def _open_spec(spec: Any, columns: ColumnNames, n: int | None) -> DataSource:
    if hub.is_hub_dataset(spec):
        return hub.open_object(spec, columns, n=n)
    if not isinstance(spec, str | Path):
        raise SutureError("expected a path, hf:NAME, torchvision:NAME@ROOT or an object of datasets, got "
                          f"{type(spec).__name__}; tensors and Datasets need no source: give "
                          "them as they are")
    text = str(spec)
    if text.startswith("torchvision:"):
        _refuse_columns(columns, text)
        return vision.open_torchvision(text.removeprefix("torchvision:"))
    path = Path(text.removeprefix("hf:")).expanduser()
    if text.startswith("hf:") and not path.exists():
        return hub.open_by_name(text.removeprefix("hf:"), columns)
    if path.is_dir():
        return _open_folder(path, columns)
    if path.is_file():
        return _open_file(path, columns)
    raise _make_no_path_error(path)


def _refuse_columns(columns: ColumnNames, name: str) -> None:
    given = next((c for c in (columns.image, columns.text, columns.label)
                  if c not in (None, NO_LABEL_COLUMN)), None)
    if given is not None:
        raise SutureError(f"expected no columns for {name}, which has none, got {given!r}; leave it out")


def _make_no_path_error(path: Path) -> SutureError:
    up = path.parent
    near = [str(up / p.name) for p in up.iterdir()] if up.is_dir() else []
    return make_unknown_error("path of data", str(path), near,
                              "check it, or write hf:NAME or torchvision:NAME@ROOT")


def _open_file(path: Path, columns: ColumnNames) -> DataSource:
    ending = path.suffix.lower()
    if ending in READERS:
        return READERS[ending]({"": [path]}, path.stem, columns)
    instead = ("pickled files are not read, because loading one runs code; write "
               "numpy.savez(file, x=..., y=...)"
               if ending in PICKLED_ENDINGS else "give a folder of images, or convert it")
    raise SutureError(f"expected a file that ends in {' '.join(READERS)}, got {str(path)!r}; {instead}")


def _open_folder(path: Path, columns: ColumnNames) -> DataSource:
    if any((path / name).is_file() for name in hub.SAVED_FILES):
        return hub.open_saved(path, columns)
    found = _find_tables(path, ".parquet")
    if found:
        return parquet.open_parquet(found, path.resolve().name, columns)
    images = folders.open_image_folder(path)
    if images is not None:
        _refuse_columns(columns, f"the image folder {str(path)!r}")
        return images
    for ending, reader in READERS.items():
        found = _find_tables(path, ending)
        if found:
            return reader(found, path.resolve().name, columns)
    raise SutureError(f"expected images in class folders ({' '.join(folders.IMAGE_ENDINGS)}), or files that "
                      f"end in {' '.join(READERS)}, got none in {str(path)!r}; check the path")


def _find_tables(path: Path, ending: str) -> dict[str, list[Path]]:
    """Find the files of one ending, by split.

    They lie in the folder, in ``data/``, in folders of splits, or in the only folder.
    """
    for folder in (path, path / "data"):
        files = _list_files(folder, ending)
        if files:
            return splits.group_by_split(files)
    below = [d for d in sorted(path.iterdir()) if d.is_dir() and _list_files(d, ending)]
    if below and all(d.name.lower() in splits.SPLIT_NAMES for d in below):
        return {d.name.lower(): _list_files(d, ending) for d in below}
    if len(below) > 1:
        raise SutureError(f"expected one data set in {str(path)!r}, got {len(below)} folders of {ending} "
                          f"files; give one: {', '.join(str(d) for d in below[:3])}")
    return splits.group_by_split(_list_files(below[0], ending)) if below else {}


def _list_files(folder: Path, ending: str) -> list[Path]:
    if not folder.is_dir():
        return []
    found = (f for f in folder.iterdir() if f.suffix.lower() == ending and not f.name.startswith("."))
    return sorted(f for f in found if f.is_file())
