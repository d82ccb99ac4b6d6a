"""Hashes of objects: what they hold and the code that they run, the same in every process."""

from __future__ import annotations

import io
import logging
import platform
import random
import re
import sys
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

from suture._base.code_hashing import (
    compute_digest,
    find_eager,
    hash_code,
    is_full,
    is_library,
    list_globals,
)
from suture._base.hashing import hash_tensors

_PASSING = frozenset({"training", "_is_full_backward_hook", "_name_or_path", "name_or_path", "_commit_hash",
                      "transformers_version", "warnings_issued", "_is_hf_initialized", "generation_config",
                      "_original_object_hash", "__weakref__", "_compiled_call_impl",
                      "_is_torch_compile"})
"""Attributes that say where an object comes from, or that its use changes, and decide no number."""
_OPAQUE = (logging.Logger, threading.Thread, io.IOBase, weakref.ref, torch.Generator, np.random.Generator,
           np.random.RandomState, random.Random, type(threading.Lock()), type(threading.RLock()))
"""Types without a state that lasts."""
_GENERATED = frozenset({"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__slots__",
                        "__parameters__", "__orig_bases__", "__abstractmethods__", "_abc_impl",
                        "__firstlineno__", "__static_attributes__", "__dataclass_params__", "__match_args__",
                        "__slotnames__"})
"""Entries of a class that are no code of the user, or that follow from others."""


_VARYING = re.compile(r"#.*|\.?___torch_mangle_\d+| object at \w+|training = \w+")
"""What differs between two texts of the same TorchScript module."""
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
        return compute_digest(self.state, self.code).hex()[:12]


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
    code = compute_digest("code", *sorted(walk.code))
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
            return compute_digest(type(x).__name__, repr(x))
        if id(x) not in self._done:
            self._held.append(x)
            self._done[id(x)] = compute_digest("again")  # what an object in a circle finds of itself
            self._done[id(x)] = self._hash_new(x)
        return self._done[id(x)]

    def _hash_new(self, x: Any) -> bytes:
        kind: Any = type(x)
        try:
            # Compilation decides no number beyond rounding, and leaves a state that changes with its use.
            eager = find_eager(x)
            if eager is not x:
                return self.hash(eager)
            return _choose_rule(kind)(self, x)
        except Exception:  # objects of any library refuse to be read in any way they like
            return compute_digest("unreadable", f"{kind.__module__}.{kind.__qualname__}")

    def _hash_all(self, name: str, parts: Any) -> bytes:
        return compute_digest(name, *(self.hash(p) for p in parts))

    def _hash_container(self, x: Any) -> bytes:
        """Hash a list, tuple, dictionary or set, also of the user's own kind with attributes."""
        about: tuple[bytes, ...] = (compute_digest(type(x).__name__),)
        if type(x).__module__ != "builtins":
            about = self.hash(type(x)), *self._hash_attributes(getattr(x, "__dict__", {}))
        if isinstance(x, Mapping):
            return compute_digest(*about, *(self.hash(part) for pair in x.items() for part in pair))
        parts = map(self.hash, x)
        # The order of a set differs between processes.
        return compute_digest(*about, *(sorted(parts) if isinstance(x, Set) else parts))

    def _hash_tensor(self, x: Tensor) -> bytes:
        about = f"{x.dtype} {tuple(x.shape)}"
        if id(x) in self.known or x.is_meta:
            return compute_digest("tensor", about)
        try:
            return compute_digest("tensor", hash_tensors([("", x)]))
        except (RuntimeError, NotImplementedError):  # a sparse or quantised tensor has no plain bytes
            return compute_digest("tensor", about, repr(x))

    def _hash_array(self, x: Any) -> bytes:
        content = self.hash(x.tolist()) if x.dtype.hasobject else np.ascontiguousarray(x).tobytes()
        return compute_digest("array", f"{x.dtype} {x.shape}", content)

    def _hash_class(self, x: type) -> bytes:
        if is_library(x):
            self._note_version(x.__module__)
            self.code |= {self._hash_function(f) for f in vars(x).values()
                          if isinstance(f, FunctionType) and not is_library(f)}
            return compute_digest("class", f"{x.__module__}.{x.__qualname__}")
        kept = {k: v for k, v in vars(x).items() if k not in _GENERATED and not k.startswith("__pydantic")}
        content = [compute_digest(k, self.hash(kept[k])) for k in sorted(kept)]
        self.code.add(compute_digest("class", x.__qualname__, *content, *map(self.hash, x.__bases__)))
        return compute_digest("class", x.__qualname__)

    def _hash_function(self, x: Any) -> bytes:
        if is_library(x):
            self._note_version(x.__module__ or "")
            return compute_digest("function", f"{x.__module__}.{x.__qualname__}")
        cells = [c.cell_contents for c in x.__closure__ or () if is_full(c)]
        parts = [x.__defaults__, x.__kwdefaults__, cells, vars(x), *list_globals(x)]
        content = compute_digest("function", hash_code(x.__code__), *map(self.hash, parts))
        self.code.add(content)
        return content

    def _hash_instance(self, x: Any) -> bytes:
        about = self.hash(type(x))
        if isinstance(x, _OPAQUE):
            return compute_digest("opaque", about)
        if isinstance(x, nn.Module):
            return compute_digest("object", about, *self._hash_attributes(vars(x)))
        try:
            made = x.__reduce_ex__(2)
        except Exception:  # classes refuse in any way they like
            return compute_digest("object", about, *self._hash_attributes(getattr(x, "__dict__", {})))
        if isinstance(made, str):
            return compute_digest("object", about, made)
        _, args, state, items, pairs = (*made, None, None, None)[:5]
        content = [self._hash_all("args", (a for a in args if not isinstance(a, type)))]
        for part in state if isinstance(state, tuple) else (state,):
            content += (self._hash_attributes(part, type(x)) if isinstance(part, dict)
                        else [self.hash(part)])
        return compute_digest("object", about, *content, self._hash_all("items", items or ()),
                       self._hash_all("pairs", (p for pair in pairs or () for p in pair)))

    def _hash_script(self, x: torch.jit.ScriptModule) -> bytes:
        """Hash TorchScript by its code, without lines of files and names that count up in a process."""
        code = _VARYING.sub("", x._c.dump_to_str(True, False, False))
        return compute_digest("script", x.original_name, code, *map(self.hash, x.state_dict().values()))

    def _hash_attributes(self, values: Mapping[Any, Any], of: type = object) -> Iterator[bytes]:
        for name in sorted(map(str, values)):
            value = values.get(name)
            if name in _PASSING or isinstance(getattr(of, name, None), cached_property):
                continue
            if "_hooks" in name and isinstance(value, Mapping):
                if not value:
                    continue
                value = list(value.values())  # the keys are numbers that count up in a process
            yield compute_digest(name, self.hash(value))

    def _note_version(self, module: str) -> None:
        top = module.partition(".")[0]
        version = getattr(sys.modules.get(top), "__version__", None)
        if isinstance(version, str):
            self.versions[top] = version


def _describe(walk: _Walk, x: Any) -> bytes:
    return compute_digest(type(x).__name__, str(x))


_RULES: tuple[tuple[Any, Callable[[_Walk, Any], bytes]], ...] = (
    (Enum, _describe),
    (Tensor, _Walk._hash_tensor),
    (torch.jit.ScriptModule, _Walk._hash_script),
    (np.ndarray, _Walk._hash_array),
    ((np.generic, np.dtype, torch.dtype, torch.device, torch.Size, torch.layout, PurePath), _describe),
    (type, _Walk._hash_class),
    (FunctionType, _Walk._hash_function),
    (MethodType, lambda walk, x: walk._hash_all("method", (x.__func__, x.__self__))),
    (BuiltinFunctionType, lambda walk, x: compute_digest("builtin", x.__qualname__)),
    (partial, lambda walk, x: walk._hash_all("partial", (x.func, x.args, x.keywords))),
    (CodeType, lambda walk, x: hash_code(x)),
    (ModuleType, lambda walk, x: compute_digest("module", x.__name__)),
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
