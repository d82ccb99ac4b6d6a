"""The folder of a comparison: one file to load, and its table for people."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from suture._base import SutureError, load_tensors, make_unwritable_error, replace_file, save_tensors
from suture.results import old_format
from suture.results.measured import NAMES, Measured, describe_fields
from suture.results.table import parse_table

KIND = "suture.comparison/2"
FILE, TABLE = "comparison.safetensors", "table.csv"
_OLD = (old_format.DOCUMENT, old_format.ARRAYS)
_OURS = (FILE, TABLE, *_OLD)
# Another process may be writing a report into the folder.
_REPORT = ("report.html", "figures")
_STAGED = re.compile(rf"\.({'|'.join(map(re.escape, (*_OURS, *_REPORT)))})\.[0-9a-f]{{16}}")


def save_measured(measured: Measured, folder: Path) -> Path:
    """Write a comparison into a folder; see `Comparison.save`."""
    about = describe_fields(measured)
    try:
        _refuse_foreign(folder)
        save_tensors(folder / FILE, KIND, measured.arrays, about)
        replace_file(folder / TABLE, about["table"].encode(errors="replace"))
        for path in list(folder.iterdir()):
            staged = _STAGED.fullmatch(path.name)
            if path.name in _OLD or (staged and staged[1] in _OURS):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise make_unwritable_error(folder, error) from error
    return folder


def has_comparison(folder: Path) -> bool:
    """Return True if a folder holds a saved comparison, in this format or the old one."""
    return (folder / FILE).exists() or (folder / old_format.DOCUMENT).exists()


def read_fields(folder: Path) -> dict[str, Any]:
    """Read the fields of the `Measured` that was saved in a folder."""
    if not has_comparison(folder):
        raise SutureError(f"expected a folder with a saved comparison, got {str(folder)!r} without {FILE}")
    try:
        if not (folder / FILE).exists():
            return old_format.read_fields(folder)
    except SutureError:
        if not (folder / FILE).exists():  # else another process has replaced the old files
            raise
    tensors, about = load_tensors(folder / FILE, KIND)
    return {name: about[name] for name in NAMES} | {
        "table": parse_table(about["table"]), "meta": json.loads(about["meta"]),
        "arrays": {name: tensors[name].numpy() for name in about["arrays"]}}


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder with other files than an earlier comparison and its report."""
    if not folder.exists():
        return
    own = {*_REPORT, *(_OURS if _is_ours(folder) else ())}
    foreign = sorted(path.name for path in folder.iterdir()
                     if path.name not in own and not _STAGED.fullmatch(path.name))
    if foreign:
        raise SutureError("expected a new folder, an empty one or an earlier comparison, got "
                          f"{str(folder)!r} that holds {foreign[0]!r}; choose another folder")


def _is_ours(folder: Path) -> bool:
    try:
        with safe_open(folder / FILE, "np") as file:
            return str((file.metadata() or {}).get("format")).startswith("suture.comparison/")
    except (OSError, SafetensorError):
        return bool(old_format.read_document(folder))
