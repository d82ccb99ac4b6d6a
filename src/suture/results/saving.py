"""Saving a comparison in a folder, and loading it exactly."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import secrets
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from suture._base import SutureError, make_unwritable_error
from suture.results.comparison import Comparison
from suture.results.storage import (
    ARRAYS,
    COMPARISON_FORMAT,
    TABLE,
    VERSION,
    commit_files,
    make_damaged_error,
    read_content,
    read_document,
    refuse_foreign,
)
from suture.results.table import format_csv, parse_table, register_own


def save_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write a comparison into a folder; see `Comparison.save`."""
    token = secrets.token_hex(8)
    contents = {
        TABLE: format_csv(comparison.table).encode(),
        ARRAYS: safetensors.save({k: np.asarray(v, order="C") for k, v in comparison.arrays.items()}),
    }
    document = {
        "format": COMPARISON_FORMAT, "version": VERSION, "save": token,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
        "source": comparison.source, "target": comparison.target,
        "sources": list(comparison.sources), "targets": list(comparison.targets),
        "same_network": comparison.same_network, "same_architecture": comparison.same_architecture,
        "arrays": list(comparison.arrays), "meta": comparison.meta,
    }
    try:
        refuse_foreign(folder)
        commit_files(folder, token, contents, json.dumps(document, indent=1).encode())
    except OSError as error:
        raise make_unwritable_error(folder, error) from error
    return folder


def load(dir: str | os.PathLike[str]) -> Comparison:
    """Load the comparison that `Comparison.save` wrote into a folder, exactly.

    Raises:
        SutureError: the folder is missing, or holds no comparison, one of another format version, or a
            damaged one.
    """
    folder = Path(dir)
    while True:
        document = read_document(folder)
        table, arrays = read_content(folder, TABLE, document), read_content(folder, ARRAYS, document)
        if table is not None and arrays is not None:
            break
        # A changed document means that a writer replaced the files between two reads; they are read again.
        if read_document(folder)["save"] == document["save"]:
            name = TABLE if table is None else ARRAYS
            raise make_damaged_error(folder, f"{name} is missing or not the one that was saved")
    try:
        register_own(document["meta"])
        loaded = safetensors.load(arrays)
        return Comparison(
            source=document["source"], target=document["target"], sources=tuple(document["sources"]),
            targets=tuple(document["targets"]), same_network=document["same_network"],
            same_architecture=document["same_architecture"], table=parse_table(table.decode()),
            arrays={name: loaded[name] for name in document["arrays"]}, meta=document["meta"])
    except (SutureError, SafetensorError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise make_damaged_error(folder, str(error)) from error
