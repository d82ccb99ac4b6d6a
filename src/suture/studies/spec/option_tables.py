"""Tables of a TOML file as the option records of suture, which say what may stand in them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, TypeVar, get_args

import numpy as np

from suture import specs
from suture._base import Option, SutureError, list_options, make_unknown_error, show_value
from suture.indices import open_array_file
from suture.studies.spec.toml_file import Keys, TomlFile

R = TypeVar("R")
_NOT_TEXT = ("names", "progress", "own", "shifts")
"""Options that a file cannot give, because they are functions or belong to the file's networks."""
_NONE = "none"


def _read_labels(given: Any) -> Any:
    return np.asarray(open_array_file(Path(given))) if isinstance(given, str) else given


_READERS: Mapping[str, Callable[[Any], Any]] = MappingProxyType({
    "groups": _read_labels, "within": _read_labels,
    "auxiliary": specs.load_inputs, "unseen": specs.load_inputs})
"""How options are read whose value lies elsewhere: files of labels, and functions that return data."""


def read_options(file: TomlFile, keys: Keys, record: type[Any], make: Callable[..., R], *,
                 only: Collection[str] = (), inherited: Mapping[str, Any] | None = None) -> R:
    """Read a table whose keys are the options of a record, and tables in it for options that are records.

    Args:
        make: the record, or another function of its options.
        only: options that may be given. Default: all that a text can give.
        inherited: values of options of this name in inner tables, where these do not give them.

    Raises:
        SutureError: an unknown key or a bad value; the message names the file, the key and its line.
    """
    table, options = file.get_table(keys), {o.name: o for o in list_options(record)}
    for name in table:
        if name in _NOT_TEXT and name in options:
            raise file.refuse((*keys, name), "a file cannot give this option; call suture.study in Python")
        allowed = [o for o in only or options if o not in _NOT_TEXT]
        if name not in allowed:
            raise file.refuse((*keys, name), str(make_unknown_error("key", name, allowed)))
    passed = dict(inherited or {})
    if not passed and isinstance(table.get("seed"), int):
        passed["seed"] = table["seed"]
    given = {name: _read_value(file, (*keys, name), options[name], value, passed)
             for name, value in table.items()}
    given = {name: value for name, value in passed.items() if inherited and name in options} | given
    try:
        return make(**given)
    except SutureError as error:
        culprit = _find_culprit(make, given, str(error))
        raise file.refuse((*keys, culprit) if culprit else keys, str(error)) from error


def _read_value(file: TomlFile, keys: Keys, option: Option, value: Any, inherited: Mapping[str, Any]) -> Any:
    kinds = get_args(option.type) or (option.type,)
    inner = next((kind for kind in kinds if is_dataclass(kind)), None)
    if isinstance(inner, type) and isinstance(value, Mapping):
        return read_options(file, keys, inner, inner, inherited=inherited)
    if isinstance(inner, type) and not set(kinds) - {inner, NoneType}:
        raise file.refuse(keys, f"expected a table [{'.'.join(keys)}], got {show_value(value)}")
    if value == _NONE and NoneType in kinds and option.default is not None:
        return None
    with file.locate(keys):
        return _READERS[option.name](value) if option.name in _READERS else value


def _find_culprit(make: Callable[..., Any], given: Mapping[str, Any], problem: str) -> str | None:
    """Return the key without which there is no error, else the first without which it is another."""
    without = {name: _find_problem(make, {n: v for n, v in given.items() if n != name}) for name in given}
    right = (name for name, left in without.items() if left is None)
    return next(right, next((name for name, left in without.items() if left != problem), None))


def _find_problem(make: Callable[..., Any], given: Mapping[str, Any]) -> str | None:
    try:
        make(**given)
    except SutureError as error:
        return str(error)
    return None
