"""Byte code: its hash, what it looks up by name, and whether it is of a library."""

from __future__ import annotations

import builtins
import hashlib
import sys
import sysconfig
from pathlib import PurePath
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

_LIBRARIES = (*sorted({sysconfig.get_paths()[k] for k in ("stdlib", "platstdlib", "purelib", "platlib")}),
              str(PurePath(torch.__file__).parent), str(PurePath(__file__).parents[1]), "<frozen")
_INSTALLED = "/site-packages/", "/dist-packages/"
_MADE_AT_RUN_TIME = 1 << 9
"""Flag of types that Python code makes (Py_TPFLAGS_HEAPTYPE)."""


def compute_digest(*parts: str | bytes) -> bytes:
    """Return the SHA-256 of several parts, each with its length, so that none runs into the next."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(b"%d " % len(data) + data)
    return digest.digest()


def find_eager(x: Any) -> Any:
    """Return the function or module that `torch.compile` was given, if `x` is what it returned, else `x`."""
    while isinstance(x, FunctionType) and hasattr(x, "_torchdynamo_orig_callable"):
        x = x._torchdynamo_orig_callable
    while isinstance(x, nn.Module) and "_orig_mod" in x._modules:
        x = x._modules["_orig_mod"]
    return x


def hash_code(code: CodeType) -> bytes:
    """Hash byte code, with names and constants; without lines and file."""
    names = code.co_names, code.co_varnames[:code.co_argcount + code.co_kwonlyargcount]
    constants = map(_hash_constant, code.co_consts)
    return compute_digest(code.co_code, repr(names), *constants, code.co_exceptiontable)


def _hash_constant(x: Any) -> bytes:
    if isinstance(x, CodeType):
        return hash_code(x)
    if isinstance(x, tuple):
        return compute_digest("tuple", *map(_hash_constant, x))
    if isinstance(x, frozenset):
        return compute_digest("set", *sorted(map(_hash_constant, x)))
    return compute_digest(type(x).__name__, repr(x))


def is_library(x: Any) -> bool:
    """Return True for a function or class of Python, suture or an installed package."""
    if isinstance(x, FunctionType):
        return is_library_file(x.__code__.co_filename)
    module = sys.modules.get(x.__module__)
    if module is None or module is builtins:
        # A class of a text that was executed without a module also claims to be of builtins.
        return not x.__flags__ & _MADE_AT_RUN_TIME
    return _is_library_module(module)


def _is_library_module(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return module.__name__ in sys.builtin_module_names if file is None else is_library_file(file)


def is_library_file(file: str) -> bool:
    """Return True for a file of Python, suture or an installed package."""
    return file.startswith(_LIBRARIES) or any(part in file for part in _INSTALLED)


def list_globals(fn: Any) -> list[Any]:
    """Return what a function looks up by name: functions, classes and values of its module and the user's."""
    names = sorted(_list_names(fn.__code__))
    found: list[Any] = []
    modules = [sys.modules[n] for n in names if n in sys.modules and n not in fn.__globals__]
    for name in names:
        if name in fn.__globals__:
            value = fn.__globals__[name]
            if isinstance(value, ModuleType):
                modules.append(value)
            else:
                found += [name, value]
    seen: set[int] = set()
    while modules:
        module = modules.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        for name in names:
            value = vars(module).get(name)
            if isinstance(value, ModuleType):
                modules.append(value)
            elif value is not None and (not _is_library_module(module) or _is_users_function(value)):
                found += [name, value]
    return found


def _is_users_function(x: Any) -> bool:
    return isinstance(x, FunctionType) and not is_library(x)


def _list_names(code: CodeType) -> set[str]:
    return set(code.co_names).union(*(_list_names(c) for c in code.co_consts if isinstance(c, CodeType)))


def is_full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
