"""Specs: data opened by text (as on a command line) or by object, with their splits and labels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import PlainValidator

from suture._base import Count, Seed, SutureError, checked, expect, make_unknown_error, read_path
from suture.data.sources import libraries
from suture.data.sources.cifar import open_cifar, refuse_pickled_cifar
from suture.data.sources.columns import NO_LABEL_COLUMN, ColumnNames, number_labels
from suture.data.sources.examples import Examples
from suture.data.sources.folders import IMAGE_ENDINGS, find_files, open_image_folder
from suture.data.sources.matlab_files import open_svhn
from suture.data.sources.numpy_files import open_numpy
from suture.data.sources.splits import choose_split, draw_order, has_class_runs, split_off_fifth
from suture.data.sources.stores import (
    BadExample,
    DataSource,
    StoredSplit,
    decode_rows,
    find_decodable,
    summarise_bad,
)
from suture.data.sources.tables import TEXT_ENDINGS, read_parquet, read_texts

FILE_ENDINGS = (".parquet", ".npz", ".npy", ".mat", ".bin", *TEXT_ENDINGS)
PICKLED_ENDINGS = (".pkl", ".pickle", ".pt", ".pth")
WHOLE = "whole"
"""Name for the training split without the test part that is otherwise cut from data without one."""


@checked
def is_spec(text: str) -> bool:
    """Return True where `text` names data: ``hf:``, ``torchvision:``, or what is or looks like a path."""
    path = text.partition("#")[0]
    return (text.startswith(("hf:", "torchvision:")) or "/" in path or path.startswith((".", "~"))
            or Path(path).suffix.lower() in (*FILE_ENDINGS, *PICKLED_ENDINGS) or os.path.exists(path))


def _read_spec(given: Any) -> Any:
    return read_path(given) if isinstance(given, str | os.PathLike) else given


DataSpec = Annotated[Any, PlainValidator(_read_spec)]
"""Text that names data, a path, or an object of `datasets`."""


@checked
def open_source(spec: DataSpec, *, split: str = "train", n: Count | None = None, seed: Seed = 0,
                image_column: str | None = None, label_column: str | None = None,
                text_column: str | None = None, skip_bad: bool = False) -> Examples:
    """Open the examples that `spec` names, in the order in which they are stored.

    =============================  =====================================================================
    a folder of images             ``root/train/cat/1.png``, or ``root/cat/1.png`` without splits
    Parquet                        a file, or a folder with ``train-*.parquet``, also under ``data/``
    ``.npz``                       arrays x and y, also ``x_train`` or ``test_images``; never unpickled;
                                   ``part0.npz``, ``part1.npz``, ... are one split, as those of CIFAR-5M
    ``.npy``                       one array, without labels, such as ``300K_random_images.npy``
    ``.mat``                       SVHN's ``train_32x32.mat``, ``test_32x32.mat``, ``extra_32x32.mat``
    ``.bin``                       the binary version of CIFAR-10 and CIFAR-100
    a folder of ImageNet           ``train/n01440764/*.JPEG``, and ``val/`` in class folders, or flat beside
                                   ``ILSVRC2012_devkit_t12/``; read as images of a folder
    ``.txt .jsonl .csv .tsv``      a file, or a folder with ``train.csv`` and ``test.csv``
    ``hf:NAME``, ``hf:NAME@CONFIG``  by name on the hub, or in the cache of `datasets`
    a folder of ``save_to_disk``   as `datasets` writes it
    ``torchvision:CIFAR10@ROOT``   nothing is downloaded
    an object of `datasets`        Dataset, DatasetDict, or a stream of either (its first `n` examples)
    =============================  =====================================================================

    After any of the strings, ``#A/B`` names the splits for training and testing, and ``#A`` one split that is
    cut in two. Otherwise they are train and test (also validation, val, dev). Without a test split, a fifth
    of the examples (at least one of each class, at most half) is the test part. It is drawn by `seed`, evenly
    over the classes, and noted. A single Dataset is one split and is never cut.

    Args:
        spec: as above; a `pathlib.Path` too.
        split: "train" (default), "test", or the name of a split; "whole" for the training split from which
            no test part is cut, as for auxiliary data.
        n: number of examples, drawn as by `Examples.subset`. Default: all.
        seed: seed of the test part and of the draw. Default 0.
        image_column, label_column, text_column: names of columns, or of arrays. Default: found by name and
            type. ``label_column="none"`` leaves labels out.
        skip_bad: decode every example once, leave out those that fail, are blank or have no label, and note
            how many. Default: the first one is an error.

    Raises:
        SutureError: no data of a known kind, a split or column that is not there, labels that are missing or
            no classes, `n` larger than the number of examples, an extra that is not installed, or no network.
    """
    reader = _open(spec, ColumnNames(image_column, label_column, text_column), n, seed, skip_bad)
    return reader.read_examples(split, n, whole=libraries.is_hub_dataset(spec))


@checked
def open_pair(spec: DataSpec, *, train_size: Count | None = None, test_size: Count | None = None,
              seed: Seed = 0,
              image_column: str | None = None, label_column: str | None = None,
              text_column: str | None = None, skip_bad: bool = False) -> tuple[Examples, Examples]:
    """Open the (training, test) examples of `open_source`, ready to compare networks on.

    Examples stored class by class (as in folders) are mixed as by `Examples.subset`, and a note says so.

    Args:
        spec, seed, image_column, label_column, text_column, skip_bad: as for `open_source`.
        train_size, test_size: numbers of examples. Default: all.

    Raises:
        SutureError: as `open_source`.
    """
    if libraries.is_stream(spec) and not isinstance(spec, Mapping):
        raise SutureError("expected a stream with two splits, got one; give "
                          "datasets.IterableDatasetDict({'train': stream.skip(k), 'test': stream.take(k)})")
    columns = ColumnNames(image_column, label_column, text_column)
    reader = _open(spec, columns, train_size, seed, skip_bad)
    train = _mix_classes(reader.read_examples("train", train_size), train_size, seed)
    if libraries.is_stream(spec):
        reader = _open(spec, columns, test_size, seed, skip_bad)
    return train, _mix_classes(reader.read_examples("test", test_size), test_size, seed)


@checked
def open_auxiliary(spec: DataSpec, seed: Seed = 0) -> Examples:
    """Open examples for `OOD.auxiliary`: the split "whole" of `open_source` without labels, mixed by `seed`.

    Mixed, because a comparison uses only the first of them (`OOD.most`), which may be those of one class.

    Raises:
        SutureError: as `open_source`.
    """
    found = open_source(spec, split=WHOLE, label_column=NO_LABEL_COLUMN)
    return found.part(draw_order(len(found), None, seed), found.name, f"mixed by seed {seed}")


def _mix_classes(examples: Examples, n: int | None, seed: int) -> Examples:
    if n is not None or examples.labels is None or not has_class_runs(examples.labels):
        return examples
    order = draw_order(len(examples), examples.labels, seed)
    return examples.part(order, examples.name, f"stored class by class, mixed by seed {seed}")


@dataclass(frozen=True)
class _SplitReader:
    """Reader of one data source: `given` names its splits for training and testing."""

    source: DataSource
    given: str
    seed: int
    skip_bad: bool
    labelled: bool

    def read_examples(self, split: str, n: int | None, whole: bool = False) -> Examples:
        """Read the examples of one split; with `whole`, data without splits are one split."""
        source = self.source
        uncut = split == WHOLE and WHOLE not in source.splits
        split = "train" if uncut else split
        own, cut = (("", False) if whole and "" in source.splits
                    else choose_split(source.splits, split, self.given, source.name))
        cut = cut and not uncut
        stored = source.splits[own]()
        where = f"{source.name} ({own})" if own else source.name
        expect(len(stored.store) > 0, f"examples in {where}", "none", "check the path")
        name = source.name if (whole or uncut) and not own else f"{source.name}-{split}"
        found = self._find_labelled(stored, name)
        if cut:
            train, test = split_off_fifth(len(found), found.labels, self.seed, where)
            found = found.part(test if split == "test" else train, name,
                               f"{where} has no test split: {len(test)} of its {len(found)} examples, drawn "
                               f"by seed {self.seed}, are one")
        elif own not in (split, ""):
            found = found.part(torch.arange(len(found)), name, f"the {split} part is the split {own!r}")
        return self._draw(found, n)

    def _find_labelled(self, stored: StoredSplit, name: str) -> Examples:
        """Find the examples that have a label, or all of them if none has one."""
        labels = (number_labels(stored, lambda: [read() for read in self.source.splits.values()], name)
                  if self.labelled else None)
        rows = torch.arange(len(stored.store))
        if labels is None:
            lost = f"all labels of {name} are missing or -1" if self.labelled and stored.labels else ""
            return Examples(stored.store, stored.kind, name, note=stored.note).part(rows, name, lost)
        found = Examples(stored.store, stored.kind, name, *labels, stored.note, rows)
        has = labels.numbers >= 0
        if has.all():
            return found
        first = int(has.int().argmin())
        loaded = decode_rows(stored.store, stored.kind, [first])[0]
        why = loaded.reason if isinstance(loaded, BadExample) else "has no label"
        bad = summarise_bad(int((~has).sum()), len(rows), f"{stored.store.describe_row(first)} {why}")
        if not self.skip_bad:
            raise SutureError(f"expected a label for every example of {name}: {bad}; leave them out with "
                              "skip_bad=True, or use no labels with label_column='none'")
        return found.part(rows[has], name, f"left out of {name}: {bad}")

    def _draw(self, found: Examples, n: int | None) -> Examples:
        """Draw `n` of the examples (None: all, in order), without bad ones if they are skipped."""
        drawn = found if n is None else found.subset(n, self.seed)
        if not self.skip_bad:
            return drawn
        mixed = found if n is None else found.subset(len(found), self.seed)
        assert mixed.rows is not None
        good, bad = find_decodable(found.store, found.kind, mixed.rows, n)
        expect(len(good) >= (n or 1), f"{n or 1} usable examples in {found.name}", f"{len(good)}: {bad}",
               "ask for less")
        return mixed.part(good, drawn.name, f"left out of {found.name}: {bad}" if bad else "")


def _open(spec: Any, columns: ColumnNames, n: int | None, seed: int, skip_bad: bool) -> _SplitReader:
    given = ""
    if isinstance(spec, str) and not Path(spec).exists():
        spec, _, given = spec.partition("#")
    return _SplitReader(_open_spec(spec, columns, n), given, seed, skip_bad, columns.label != NO_LABEL_COLUMN)


def _open_spec(spec: Any, columns: ColumnNames, n: int | None) -> DataSource:
    if libraries.is_hub_dataset(spec):
        return libraries.open_object(spec, columns, n=n)
    if not isinstance(spec, str | Path):
        raise SutureError("expected a path, hf:NAME, torchvision:NAME@ROOT or an object of datasets, got "
                          f"{type(spec).__name__}; give tensors and Datasets as they are")
    text = str(spec)
    if not text.removeprefix("hf:").strip():
        raise SutureError(f"expected the name or path of data, got {text!r}; write a path, hf:NAME or "
                          "torchvision:NAME@ROOT")
    if text.startswith("torchvision:"):
        _refuse_columns(columns, text)
        return libraries.open_torchvision(text.removeprefix("torchvision:"))
    path = Path(text.removeprefix("hf:")).expanduser()
    if text.startswith("hf:") and not path.exists():
        return libraries.open_by_name(text.removeprefix("hf:"), columns)
    if path.is_dir():
        return _open_folder(path, columns)
    if not path.is_file():
        near = [str(path.parent / p.name) for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise make_unknown_error("path of data", str(path), near,
                                 "check it, or write hf:NAME or torchvision:NAME@ROOT")
    ending = path.suffix.lower()
    if ending not in FILE_ENDINGS:
        refuse_pickled_cifar(path)
        instead = ("pickled files are not read, because loading one runs code; write "
                   "numpy.savez(file, x=..., y=...)"
                   if ending in PICKLED_ENDINGS else "give a folder of images, or convert it")
        raise SutureError(f"expected a file that ends in {' '.join(FILE_ENDINGS)}, got {str(path)!r}; "
                          f"{instead}")
    return _open_files({"": [path]}, path.stem, columns)


def _refuse_columns(columns: ColumnNames, name: str) -> None:
    if columns.given:
        raise SutureError(f"{name} has no columns, got {columns.given[0]!r}; leave it out")


def _open_folder(path: Path, columns: ColumnNames) -> DataSource:
    name = path.resolve().name
    if any((path / one).is_file() for one in libraries.SAVED_FILES):
        return libraries.open_saved(path, columns)
    if found := find_files(path, ".parquet"):
        return _open_files(found, name, columns)
    images = open_image_folder(path, columns.label != NO_LABEL_COLUMN)
    if images is not None:
        _refuse_columns(columns, f"the image folder {str(path)!r}")
        return images
    for ending in FILE_ENDINGS:
        if found := find_files(path, ending):
            return _open_files(found, name, columns)
    refuse_pickled_cifar(path)
    raise SutureError(f"expected images in class folders ({' '.join(IMAGE_ENDINGS)}), or files that end in "
                      f"{' '.join(FILE_ENDINGS)}, got none in {str(path)!r}; check the path")


def _open_files(files: Mapping[str, list[Path]], name: str, columns: ColumnNames) -> DataSource:
    ending = next(iter(files.values()))[0].suffix.lower()
    if ending == ".npz":
        return open_numpy(files, name, columns)
    if ending in (".npy", ".mat", ".bin"):
        _refuse_columns(columns, f"{name} ({ending})")
    if ending == ".npy":
        return open_numpy(files, name, columns)
    if ending == ".mat":
        return open_svhn(files, name)
    if ending == ".bin":
        return open_cifar([file for ones in files.values() for file in ones], name)
    read = read_parquet if ending == ".parquet" else read_texts
    return DataSource(name, {split: partial(read, ones, name, columns) for split, ones in files.items()})
