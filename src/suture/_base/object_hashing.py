"""Hashes of objects: what they hold and the code that they run, the same in every process."""

from __future__ import annotations

import builtins
import hashlib
import io
import logging
import platform
import random
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from enum import Enum
from functools import cached_property, lru_cache, partial
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from suture._base.hashing import hash_tensors

_LIBRARIES = (*sorted({sysconfig.get_paths()[k] for k in ("stdlib", "platstdlib", "purelib", "platlib")}),
              str(PurePath(torch.__file__).parent), str(PurePath(__file__).parents[1]), "<frozen")
_INSTALLED = "/site-packages/", "/dist-packages/"
_PASSING = frozenset({"training", "_is_full_backward_hook", "_name_or_path", "name_or_path", "_commit_hash",
                      "transformers_version", "warnings_issued", "_is_hf_initialized", "generation_config",
                      "_original_object_hash", "__weakref__"})
"""Attributes that say where an object comes from, or that its use changes, and decide no number."""
_OPAQUE = (logging.Logger, threading.Thread, io.IOBase, weakref.ref, torch.Generator, np.random.Generator,
           np.random.RandomState, random.Random, type(threading.Lock()), type(threading.RLock()))
"""Types without a state that lasts."""
_GENERATED = frozenset({"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__slots__",
                        "__parameters__", "__orig_bases__", "__abstractmethods__", "_abc_impl",
                        "__firstlineno__", "__static_attributes__", "__dataclass_params__", "__match_args__"})
"""Entries of a class that are no code of the user, or that follow from others."""


_DEPTH = 5000
"""Depth of nested calls, of which each level of an object needs about eight."""


class ObjectHash(NamedTuple):
    """Hashes of an object.

    Attributes:
        state: 16 hex digits of what it holds: numbers, texts, tensors, names of classes and functions.
        code: 16 hex digits of the user's code that it runs, with the functions and values which that code
            refers to. Code of libraries is known by `versions`.
        versions: versions of the libraries whose classes and functions are among the parts.
    """

    state: str
    code: str
    versions: dict[str, str]

    @property
    def short(self) -> str:
        """12 hex digits of state and code."""
        return _digest(self.state, self.code).hex()[:12]


def hash_object(given: Any, known: Collection[int] = ()) -> ObjectHash:
    """Hash what an object holds and the code that it runs.

    Functions count by their byte code, defaults, closures, and by the functions and values that they look up
    by name. Caches, random generators, locks and open files do not count.

    Args:
        given: any object, such as a network, a function, or a mapping of both.
        known: ids of tensors of which only the type and shape count, because they are hashed elsewhere.
    """
    walk, usual = _Walk(frozenset(known)), sys.getrecursionlimit()
    sys.setrecursionlimit(max(usual, _DEPTH))
    try:
        state = walk.hash(given)
    finally:
        sys.setrecursionlimit(usual)
    code = _digest("code", *sorted(walk.code))
    return ObjectHash(state.hex()[:16], code.hex()[:16], dict(sorted(walk.versions.items())))


def hash_network(network: nn.Module) -> ObjectHash:
    """Hash the structure, plain values and code of a network; `fingerprint_network` covers its weights."""
    saved = network.state_dict(keep_vars=True)
    return hash_object(network, {id(t) for t in saved.values() if isinstance(t, Tensor)})


def get_python_version() -> str:
    """Return the version of Python as far as it decides byte code."""
    return ".".join(platform.python_version_tuple()[:2])


class _Walk:
    """One walk through an object, which collects its code and the versions of its libraries."""

    def __init__(self, known: frozenset[int]) -> None:
        self.known = known
        self.code: set[bytes] = set()
        self.versions: dict[str, str] = {}
        self._done: dict[int, bytes] = {}
        self._held: list[Any] = []  # keeps temporary objects alive, so that no id is given twice

    def hash(self, x: Any) -> bytes:
        """Return the digest of one object."""
        if x is None or isinstance(x, bool | int | float | complex | str | bytes | range | slice):
            return _digest(type(x).__name__, repr(x))
        if id(x) not in self._done:
            self._held.append(x)
            self._done[id(x)] = _digest("again")  # what an object in a circle finds of itself
            self._done[id(x)] = self._hash_new(x)
        return self._done[id(x)]

    def _hash_new(self, x: Any) -> bytes:
        kind: Any = type(x)
        try:
            return _choose_rule(kind)(self, x)
        except Exception:  # objects of any library refuse to be read in any way they like
            return _digest("unreadable", f"{kind.__module__}.{kind.__qualname__}")

    def _hash_all(self, name: str, parts: Any) -> bytes:
        return _digest(name, *(self.hash(p) for p in parts))

    def _hash_container(self, x: Any) -> bytes:
        """Hash a list, tuple, dictionary or set, also of the user's own kind with attributes."""
        about: tuple[bytes, ...] = (_digest(type(x).__name__),)
        if type(x).__module__ != "builtins":
            about = self.hash(type(x)), *self._hash_attributes(getattr(x, "__dict__", {}))
        if isinstance(x, Mapping):
            return _digest(*about, *(self.hash(part) for pair in x.items() for part in pair))
        parts = map(self.hash, x)
        # The order of a set differs between processes.
        return _digest(*about, *(sorted(parts) if isinstance(x, Set) else parts))

    def _hash_tensor(self, x: Tensor) -> bytes:
        about = f"{x.dtype} {tuple(x.shape)}"
        if id(x) in self.known or x.is_meta:
            return _digest("tensor", about)
        try:
            return _digest("tensor", hash_tensors([("", x)]))
        except (RuntimeError, NotImplementedError):  # a sparse or quantised tensor has no plain bytes
            return _digest("tensor", about, repr(x))

    def _hash_array(self, x: Any) -> bytes:
        content = self.hash(x.tolist()) if x.dtype.hasobject else np.ascontiguousarray(x).tobytes()
        return _digest("array", f"{x.dtype} {x.shape}", content)

    def _hash_class(self, x: type) -> bytes:
        if is_library(x):
            self._note_version(x.__module__)
            self.code |= {self._hash_function(f) for f in vars(x).values()
                          if isinstance(f, FunctionType) and not is_library(f)}
            return _digest("class", f"{x.__module__}.{x.__qualname__}")
        kept = {k: v for k, v in vars(x).items() if k not in _GENERATED and not k.startswith("__pydantic")}
        content = [_digest(k, self.hash(kept[k])) for k in sorted(kept)]
        self.code.add(_digest("class", x.__qualname__, *content, *map(self.hash, x.__bases__)))
        return _digest("class", x.__qualname__)

    def _hash_function(self, x: Any) -> bytes:
        if is_library(x):
            self._note_version(x.__module__ or "")
            return _digest("function", f"{x.__module__}.{x.__qualname__}")
        cells = [c.cell_contents for c in x.__closure__ or () if _is_full(c)]
        parts = [x.__defaults__, x.__kwdefaults__, cells, vars(x), *_list_globals(x)]
        content = _digest("function", _hash_code(x.__code__), *map(self.hash, parts))
        self.code.add(content)
        return content

    def _hash_instance(self, x: Any) -> bytes:
        about = self.hash(type(x))
        if isinstance(x, _OPAQUE):
            return _digest("opaque", about)
        if isinstance(x, nn.Module):
            return _digest("object", about, *self._hash_attributes(vars(x)))
        try:
            made = x.__reduce_ex__(2)
        except Exception:  # classes refuse in any way they like
            return _digest("object", about, *self._hash_attributes(getattr(x, "__dict__", {})))
        if isinstance(made, str):
            return _digest("object", about, made)
        _, args, state, items, pairs = (*made, None, None, None)[:5]
        content = [self._hash_all("args", (a for a in args if not isinstance(a, type)))]
        for part in state if isinstance(state, tuple) else (state,):
            content += (self._hash_attributes(part, type(x)) if isinstance(part, dict)
                        else [self.hash(part)])
        return _digest("object", about, *content, self._hash_all("items", items or ()),
                       self._hash_all("pairs", (p for pair in pairs or () for p in pair)))

    def _hash_attributes(self, values: Mapping[Any, Any], of: type = object) -> Iterator[bytes]:
        for name in sorted(map(str, values)):
            value = values.get(name)
            if name in _PASSING or isinstance(getattr(of, name, None), cached_property):
                continue
            if "_hooks" in name and isinstance(value, Mapping):
                if not value:
                    continue
                value = list(value.values())  # the keys are numbers that count up in a process
            yield _digest(name, self.hash(value))

    def _note_version(self, module: str) -> None:
        top = module.partition(".")[0]
        version = getattr(sys.modules.get(top), "__version__", None)
        if isinstance(version, str):
            self.versions[top] = version


def _describe(walk: _Walk, x: Any) -> bytes:
    return _digest(type(x).__name__, str(x))


_RULES: tuple[tuple[Any, Callable[[_Walk, Any], bytes]], ...] = (
    (Enum, _describe),
    (Tensor, _Walk._hash_tensor),
    (np.ndarray, _Walk._hash_array),
    ((np.generic, np.dtype, torch.dtype, torch.device, torch.Size, torch.layout, PurePath), _describe),
    (type, _Walk._hash_class),
    (FunctionType, _Walk._hash_function),
    (MethodType, lambda walk, x: walk._hash_all("method", (x.__func__, x.__self__))),
    (BuiltinFunctionType, lambda walk, x: _digest("builtin", x.__qualname__)),
    (partial, lambda walk, x: walk._hash_all("partial", (x.func, x.args, x.keywords))),
    (CodeType, lambda walk, x: _hash_code(x)),
    (ModuleType, lambda walk, x: _digest("module", x.__name__)),
    ((staticmethod, classmethod), lambda walk, x: walk.hash(x.__func__)),
    (cached_property, lambda walk, x: walk.hash(x.func)),
    (property, lambda walk, x: walk._hash_all("property", (x.fget, x.fset))),
    (type(lru_cache(str)), lambda walk, x: walk.hash(x.__wrapped__)),
    ((tuple, list, dict, set, frozenset), _Walk._hash_container),
)
"""How each kind of object is hashed; all others by their class and attributes."""


@lru_cache(maxsize=4096)
def _choose_rule(kind: type) -> Callable[[_Walk, Any], bytes]:
    return next((how for kinds, how in _RULES if issubclass(kind, kinds)), _Walk._hash_instance)


def _digest(*parts: str | bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(b"%d " % len(data) + data)
    return digest.digest()


def _hash_code(code: CodeType) -> bytes:
    """Hash byte code, with names and constants; without lines and file."""
    names = code.co_names, code.co_varnames[:code.co_argcount + code.co_kwonlyargcount]
    return _digest(code.co_code, repr(names), *map(_hash_constant, code.co_consts), code.co_exceptiontable)


def _hash_constant(x: Any) -> bytes:
    if isinstance(x, CodeType):
        return _hash_code(x)
    if isinstance(x, tuple):
        return _digest("tuple", *map(_hash_constant, x))
    if isinstance(x, frozenset):
        return _digest("set", *sorted(map(_hash_constant, x)))
    return _digest(type(x).__name__, repr(x))


def is_library(x: Any) -> bool:
    """Return True for a function or class of Python, suture or an installed package."""
    if isinstance(x, FunctionType):
        return _is_library_file(x.__code__.co_filename)
    module = sys.modules.get(x.__module__)
    if module is None or module is builtins:
        # A class of a text that was executed without a module also claims to be of builtins.
        return not x.__flags__ & _MADE_AT_RUN_TIME
    return _is_library_module(module)


_MADE_AT_RUN_TIME = 1 << 9
"""Flag of types that Python code makes (Py_TPFLAGS_HEAPTYPE)."""


def _is_library_module(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return module.__name__ in sys.builtin_module_names if file is None else _is_library_file(file)


def _is_library_file(file: str) -> bool:
    return file.startswith(_LIBRARIES) or any(part in file for part in _INSTALLED)


def _list_globals(fn: Any) -> list[Any]:
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


def _is_full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
