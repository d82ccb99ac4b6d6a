"""Paths of the data that spec files name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from suture._base import SutureError, describe_value, expect, make_unknown_error
from suture.studies.spec.toml_file import TomlFile


def read_paths(given: Any, files: Iterable[Path], scale: str) -> dict[str, str]:
    """Return the paths of the data by name.

    Args:
        given: paths by name, or None.
        files: all spec files of the scale.

    Raises:
        SutureError: no mapping, a name that the scale does not know, or nothing at a path.
    """
    expect(given is None or isinstance(given, Mapping),
           "paths of data by name, such as {'cifar10': 'data/cifar10'}", describe_value(given))
    known, found = sorted({name for path in files for name in list_names(path)}), dict[str, str]()
    for name, path in (given or {}).items():
        if name not in known:
            raise make_unknown_error("data", name, known, "" if known else f"scale {scale} needs none")
        expect(isinstance(path, str | PathLike), f"a path of {name}", describe_value(path))
        place = Path(path).expanduser()
        if not place.exists():
            raise SutureError(f"there is nothing at the path of {name}, {str(path)!r}; check it")
        found[name] = str(place)
    return found


def list_names(path: Path) -> list[str]:
    """Return the names of the data that a spec file needs."""
    return TomlFile.read(path).list_places()


def make_missing_error(names: Iterable[str], what: str) -> SutureError:
    """Make the error for data without a path; it names all of them."""
    wanted = list(names)
    return SutureError(f"{what} needs {', '.join(wanted)}, whose paths are missing; write "
                       f"{' '.join(f'--data {name}=PATH' for name in wanted)}")
