"""The folder of a comparison: one file to load, its table for people, and folders of the old format."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors

from suture._base import (
    CHECKPOINT_NAME,
    LOCK,
    RESTART,
    SutureError,
    expect,
    is_checkpoint,
    load_tensors,
    make_unwritable_error,
    refuse_held,
    replace_file,
    save_tensors,
)
from suture.results.measured import NAMES, Measured, describe_fields, format_people_csv, parse_table
from suture.results.report import is_report

KIND = "suture.comparison/2"
FILE, TABLE = "comparison.safetensors", "table.csv"
_STUDY = "study.json"
"""What a folder of `suture.study` has in place of a comparison."""
# Format version 1 kept a document and arrays in files of their own, and loaded the table.
_OLD_DOCUMENT, _OLD_ARRAYS = "comparison.json", "arrays.safetensors"
UNCHECKED = (f"loaded from {_OLD_DOCUMENT} of an early version, which has no digest, so damage to names, "
             "settings and notes cannot be noticed")
_OURS = (FILE, TABLE, _OLD_DOCUMENT, _OLD_ARRAYS)
# Another process may be writing a report into the folder. Early versions drew into "figures".
_REPORT = ("report.html", "report_figures", "figures")
GIVEN_UP = ".suture.restarted"
"""Name of a file that says: a run began anew, and will replace the result in this folder."""
_NAMES = "|".join([*map(re.escape, (*_OURS, *_REPORT, GIVEN_UP)), CHECKPOINT_NAME.pattern])
_STAGED = re.compile(rf"\.({_NAMES})\.[0-9a-f]{{16}}")
_TEMPORARY = re.compile(rf"\.trial\.[0-9a-f]{{16}}|{re.escape(LOCK)}(\.[0-9a-f]{{16}})?")
_REPORT_SECONDS = 3600.0
"""Age from which a temporary file of a report is of a process that was killed."""


def save_measured(measured: Measured, folder: Path) -> Path:
    """Write a comparison into a folder; see `Comparison.save`."""
    about = describe_fields(measured)
    try:
        refuse_foreign(folder)
        refuse_held(folder)
        save_tensors(folder / FILE, KIND, measured.arrays, about)
        replace_file(folder / TABLE, format_people_csv(measured.table))
        for path in list(folder.iterdir()):
            staged = _STAGED.fullmatch(path.name)
            if path.name in (_OLD_DOCUMENT, _OLD_ARRAYS, GIVEN_UP) or (staged and staged[1] in _OURS):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise make_unwritable_error(folder, error) from error
    return folder


def has_comparison(folder: Path) -> bool:
    """Return True if a folder holds a saved comparison, in this format or the old one."""
    return (folder / FILE).exists() or (folder / _OLD_DOCUMENT).exists()


def _make_missing_error(folder: Path) -> SutureError:
    """Make the error for a place that holds no comparison; a file in a folder that does is a common slip."""
    missing = "which does not exist" if not folder.exists() else f"without {FILE}"
    instead = "write the folder that result.save was given"
    if (folder / _STUDY).exists():
        missing, instead = "a study", f"write suture.Study.load({str(folder)!r})"
    elif folder.is_file() and has_comparison(folder.parent):
        missing, instead = "a file in it", f"write suture.load({str(folder.parent)!r})"
    return SutureError(f"expected a folder with a saved comparison, got {str(folder)!r}, {missing}; "
                       f"{instead}")


def read_fields(folder: Path) -> dict[str, Any]:
    """Read the fields of the `Measured` that was saved in a folder."""
    if not has_comparison(folder):
        raise _make_missing_error(folder)
    try:
        if not (folder / FILE).exists():
            return read_old_fields(folder)
    except SutureError:
        if not (folder / FILE).exists():  # else another process has replaced the old files
            raise
    file = load_tensors(folder / FILE, KIND)
    return {name: file.about[name] for name in NAMES} | {
        "table": parse_table(file.about["table"]), "meta": json.loads(file.about["meta"]),
        "arrays": {name: file.tensors[name].numpy() for name in file.about["arrays"]}}


def refuse_foreign(folder: Path, damaged: bool = False) -> None:
    """Refuse a folder with other files than an earlier comparison, its report and its checkpoints.

    With `damaged`, the earlier comparison may be a damaged one.
    """
    if not folder.exists():
        return
    ours = _is_ours(folder) or (damaged and _holds_damaged(folder))
    own = {*_REPORT, GIVEN_UP, *(_OURS if ours else ())}
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in own and not is_report(path)
                     and not any(k.fullmatch(path.name) for k in (_STAGED, _TEMPORARY))
                     and not _is_kept(path))
    if foreign and foreign[0] == FILE and _is_damaged(folder / FILE):
        raise SutureError(f"{str(folder / FILE)!r} is damaged; remove it, or {RESTART}")
    if foreign:
        raise SutureError("expected a new folder, an empty one or an earlier comparison, got "
                          f"{str(folder)!r} that holds {foreign[0]!r}; choose another folder")


def give_up_result(folder: Path) -> None:
    """Note that a run begins anew; the earlier comparison stays until it is replaced, but for a damaged one.
    """
    if not _is_ours(folder) and _holds_damaged(folder):
        for name in _OURS:
            (folder / name).unlink(missing_ok=True)
    if has_comparison(folder):
        replace_file(folder / GIVEN_UP, b"")


def is_given_up(folder: Path) -> bool:
    """Return True if a run that began anew has checkpoints, but has not replaced the result in a folder."""
    return (folder / GIVEN_UP).exists() and any(map(_is_kept, folder.iterdir()))


def _is_kept(path: Path) -> bool:
    return CHECKPOINT_NAME.fullmatch(path.name) is not None and is_checkpoint(path)


def remove_temporary(folder: Path) -> None:
    """Remove what killed runs left in a folder; only its holder may do so."""
    if not is_given_up(folder):
        (folder / GIVEN_UP).unlink(missing_ok=True)
    for path in list(folder.iterdir()):
        staged = _STAGED.fullmatch(path.name)
        old = staged and staged[1] in _REPORT and time.time() - path.stat().st_mtime > _REPORT_SECONDS
        if old or (staged and staged[1] not in _REPORT) or (
                _TEMPORARY.fullmatch(path.name) and path.name != LOCK):
            path.unlink(missing_ok=True)


def _is_ours(folder: Path) -> bool:
    try:
        with safe_open(folder / FILE, "np") as file:
            return str((file.metadata() or {}).get("format")).startswith("suture.comparison/")
    except (OSError, SafetensorError):
        return bool(_read_document(folder))


def _holds_damaged(folder: Path) -> bool:
    return _is_damaged(folder / FILE) or _is_damaged_document(folder / _OLD_DOCUMENT)


def _is_damaged(path: Path) -> bool:
    """Return True for a file with the name of a result that is empty or a safetensors file cut off."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, "np"):
            return False
    except (OSError, SafetensorError):
        with path.open("rb") as file:
            head = file.read(64)
        return not head or b'"__metadata__"' in head


def _is_damaged_document(path: Path) -> bool:
    try:
        return b'"suture.comparison"' in path.read_bytes()
    except OSError:
        return False


def _read_document(folder: Path) -> dict[str, Any]:
    """Read the document of format version 1; return {} if it is missing, damaged, or not of suture."""
    try:
        document = json.loads((folder / _OLD_DOCUMENT).read_bytes())
    except (OSError, ValueError, RecursionError):  # the last one for lists within lists
        return {}
    return document if isinstance(document, dict) and document.get("format") == "suture.comparison" else {}


def read_old_fields(folder: Path) -> dict[str, Any]:
    """Read the fields of the `Measured` that was saved in a folder in format version 1."""
    document = _read_document(folder)
    expect(bool(document), f"a saved comparison in {str(folder)!r}",
           f"a {_OLD_DOCUMENT} that is damaged or not of suture", "compute it again")
    expect(document.get("version") == 1, f"format version 1 in {str(folder / _OLD_DOCUMENT)!r}",
           repr(document.get("version")), "load it with the suture that wrote it")
    with report_damage(folder):
        text, arrays = (_find_content(folder, name, document["files"][name]) for name in (TABLE, _OLD_ARRAYS))
        tensors, table = safetensors.load(arrays), parse_table(text.decode())
        if "mark" not in table:  # written before there were marks
            table = table.assign(mark="")
        meta = document["meta"] | {"notes": [*document["meta"].get("notes", ()), UNCHECKED]}
        return {name: document[name] for name in NAMES} | {
            "meta": meta, "table": table, "arrays": {k: tensors[k] for k in document["arrays"]}}


def _find_content(folder: Path, name: str, digest: str) -> bytes:
    """Find the content of a file by its digest; a killed writer may have left it under a temporary name."""
    for path in (folder / name, *folder.glob(f".{name}.*")):
        data = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(data).hexdigest() == digest:
            return data
    raise ValueError(f"{name} is missing or not the one that was saved")


@contextmanager
def report_damage(folder: Path) -> Iterator[None]:
    """Turn the errors of damaged contents of a folder into a `SutureError`."""
    try:
        yield
    except (OSError, AttributeError, IndexError, KeyError, OverflowError, RecursionError, SafetensorError,
            TypeError, ValueError) as error:
        raise SutureError(f"the comparison in {str(folder)!r} is damaged: {error}; compute it again"
                          ) from error
