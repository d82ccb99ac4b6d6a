"""Folders of comparisons in format version 1: a document, a table and arrays in separate files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import numpy as safetensors

from suture._base import SutureError, expect
from suture.results.measured import NAMES
from suture.results.table import parse_table

DOCUMENT, TABLE, ARRAYS = FILES = ("comparison.json", "table.csv", "arrays.safetensors")


def read_document(folder: Path) -> dict[str, Any]:
    """Read the document of a folder; return {} if it is missing, damaged, or not of suture."""
    try:
        document = json.loads((folder / DOCUMENT).read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) and document.get("format") == "suture.comparison" else {}


def read_fields(folder: Path) -> dict[str, Any]:
    """Read the fields of the `Measured` that was saved in a folder."""
    document = read_document(folder)
    expect(bool(document), f"a saved comparison in {str(folder)!r}",
           f"a {DOCUMENT} that is damaged or not of suture", "compute it again")
    expect(document.get("version") == 1, f"format version 1 in {str(folder / DOCUMENT)!r}",
           repr(document.get("version")), "load it with the suture that wrote it")
    try:
        table, arrays = (_find_content(folder, name, document["files"][name]) for name in (TABLE, ARRAYS))
        tensors = safetensors.load(arrays)
        return {name: document[name] for name in (*NAMES, "meta")} | {
            "table": parse_table(table.decode()), "arrays": {k: tensors[k] for k in document["arrays"]}}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise SutureError(f"the comparison in {str(folder)!r} is damaged: {error}; compute it again"
                          ) from error


def _find_content(folder: Path, name: str, digest: str) -> bytes:
    """Find the content of a file by its digest; a killed writer may have left it under a temporary name."""
    for path in (folder / name, *folder.glob(f".{name}.*")):
        data = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(data).hexdigest() == digest:
            return data
    raise ValueError(f"{name} is missing or not the one that was saved")
