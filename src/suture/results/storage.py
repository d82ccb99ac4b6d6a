"""Files of one comparison in a folder: written whole or not at all, and distinguished from other files."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from suture._base import SutureError, write_new_file

COMPARISON_FORMAT = "suture.comparison"
VERSION = 1
DOCUMENT, TABLE, ARRAYS = "comparison.json", "table.csv", "arrays.safetensors"
# `save` accepts these beside its own files, because `report` puts its page and figures there.
_REPORT = ("report.html", "figures")
_STAGED = re.compile(r"\.(comparison\.json|table\.csv|arrays\.safetensors|report\.html)\.[0-9a-f]{16}")
_TOKEN = re.compile(r"[0-9a-f]{16}")


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder that is neither missing, nor empty, nor an earlier comparison with its report.

    Raises:
        SutureError: the folder holds anything else.
    """
    if not folder.exists():
        return
    names = sorted(entry.name for entry in folder.iterdir())
    own = {*_REPORT}
    if DOCUMENT in names and _is_ours(folder):
        own |= {DOCUMENT, TABLE, ARRAYS}
    foreign = [name for name in names if name not in own and not _STAGED.fullmatch(name)]
    if foreign:
        raise SutureError("expected a new folder, an empty one or an earlier comparison, got "
                          f"{str(folder)!r} that holds {foreign[0]!r}; choose another folder")


def _is_ours(folder: Path) -> bool:
    try:
        read_document(folder, any_version=True)
    except SutureError:
        return False
    return True


def commit_files(folder: Path, token: str, contents: dict[str, bytes], document: bytes) -> None:
    """Write the contents under staged names, replace the document, then rename the contents.

    The second step commits. Between the second and the third step the contents have their staged names, where
    `load` looks first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staged = {name: folder / f".{name}.{token}" for name in contents}
    try:
        for name, data in contents.items():
            write_new_file(staged[name], data)
        temporary = folder / f".{DOCUMENT}.{token}"
        write_new_file(temporary, document)
        temporary.replace(folder / DOCUMENT)
    except OSError:
        for path in (*staged.values(), folder / f".{DOCUMENT}.{token}"):
            path.unlink(missing_ok=True)
        raise
    for name, path in staged.items():
        path.replace(folder / name)
    for entry in list(folder.iterdir()):
        # Remove files of killed writers, but not of a report, which another process may be writing.
        match = _STAGED.fullmatch(entry.name)
        if match and match[1] not in _REPORT:
            entry.unlink(missing_ok=True)


def make_damaged_error(folder: Path, why: str) -> SutureError:
    """Make the error for files that are not what was saved."""
    return SutureError(f"the comparison in {str(folder)!r} is damaged: {why}; compute it again")


def read_document(folder: Path, any_version: bool = False) -> dict[str, Any]:
    """Read and check the ``comparison.json`` of a folder.

    Raises:
        SutureError: there is none, it is of another format version (unless `any_version`), or damaged.
    """
    if not folder.is_dir():
        raise SutureError(f"expected the folder of a saved comparison, but {str(folder)!r} is not a folder")
    strange = SutureError(f"expected a saved comparison, but {str(folder)!r} has no {DOCUMENT} that suture "
                          "wrote")
    try:
        text = (folder / DOCUMENT).read_bytes()
    except OSError as error:
        raise strange from error
    try:
        document = json.loads(text)
    except ValueError as error:
        raise make_damaged_error(folder, f"{DOCUMENT} is cut off or not JSON") from error
    if not isinstance(document, dict) or document.get("format") != COMPARISON_FORMAT:
        raise strange
    if any_version:
        return document
    if document.get("version") != VERSION:
        raise SutureError(f"expected format version {VERSION} of a comparison, got "
                          f"{document.get('version')!r} in {str(folder)!r}; load it with the suture that "
                          "wrote it")
    if not (_TOKEN.fullmatch(str(document.get("save"))) and isinstance(document.get("files"), dict)):
        raise make_damaged_error(folder, f"{DOCUMENT} lacks entries")
    return document


def read_content(folder: Path, name: str, document: dict[str, Any]) -> bytes | None:
    """Read the bytes of a file that belong to the document; return None where they are missing."""
    for path in (folder / f".{name}.{document['save']}", folder / name):
        try:
            data = path.read_bytes()
        except OSError:
            continue
        if hashlib.sha256(data).hexdigest() == document["files"].get(name):
            return data
    return None
