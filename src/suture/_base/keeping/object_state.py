"""The state of objects as tensors and JSON, for checkpoints. Nothing is pickled, and reading runs no code.

Plain values, containers, tensors, arrays, generators, optimisers, the states of modules, and the attributes
of suture's own objects are written. Functions and types are those of the object that is filled.
"""

from __future__ import annotations

import functools
import math
import sys
import types
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Tree = Any
"""Description of an object as JSON."""
_FROZEN = "frozen"
_UNCHANGED = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial,
              torch.dtype, torch.device, Enum)


class UnknownStateError(Exception):
    """An object whose state is not known, or a description that does not fit the object."""


def write_state(given: object) -> tuple[Tree, dict[str, Tensor | NDArray[Any]]]:
    """Return the description of an object and its tensors by name.

    Attributes that a class lists in `scratch` are left out.

    Raises:
        UnknownStateError: the object holds one of foreign code.
    """
    writer = _Writer()
    return writer.write(given), writer.tensors


def fill_state(given: Any, tree: Tree, tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    """Give an object the state that was written of another one of its kind, and return it.

    Containers, modules, optimisers, generators and objects that can change are filled in place; all else is
    made anew. Tensors that were not on the CPU come to `device`.

    Raises:
        UnknownStateError: the description does not fit the object.
    """
    try:
        return _Reader(tensors, device).read(tree, given)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as e:
        raise UnknownStateError(f"{type(e).__name__}: {e}") from e


class _Writer:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor | NDArray[Any]] = {}
        self._numbers: dict[int, int] = {}
        self._held: list[object] = []  # so that no number of an object is given twice

    def write(self, x: Any) -> Tree:
        if x is None or type(x) in (bool, int, str):
            return x
        if type(x) is float:
            return x if math.isfinite(x) else {"float": str(x)}
        if isinstance(x, Enum) and type(x).__module__.startswith("suture."):
            return {"enum": _name_class(x), "name": x.name}
        if isinstance(x, _UNCHANGED):
            return {"same": 0}
        if id(x) in self._numbers:
            return {"of": self._numbers[id(x)]}
        self._numbers[id(x)] = number = len(self._held)
        self._held.append(x)
        return {"number": number, **self._write_new(x)}

    def _write_new(self, x: Any) -> dict[str, Tree]:
        if isinstance(x, Tensor):
            return {"tensor": self._keep(x), "device": x.device.type}
        if isinstance(x, np.ndarray | np.generic):
            return {"array": self._keep(np.asarray(x)), "scalar": isinstance(x, np.generic)}
        if isinstance(x, torch.Generator):
            return {"generator": self._keep(x.get_state())}
        if isinstance(x, nn.Module):
            return {"module": {name: self._keep(t) for name, t in x.state_dict().items()}}
        if isinstance(x, torch.optim.Optimizer):
            return {"optimizer": self.write(x.state_dict())}
        if isinstance(x, Mapping):
            return {"map": [[self.write(k), self.write(v)] for k, v in x.items()]}
        if isinstance(x, torch.Size):
            return {"size": list(x)}
        if isinstance(x, list | tuple | set | frozenset):
            return {"kind": next(k.__name__ for k in (list, tuple, set, frozenset) if isinstance(x, k)),
                    "class": _name_class(x) if hasattr(x, "_fields") else "", "items": [*map(self.write, x)]}
        left_out = getattr(type(x), "scratch", ())
        # Pairs, because JSON is written with sorted keys, and a reference must come after what it refers to.
        return {"class": _name_class(x), "attributes": [
            [name, self.write(value)] for name, value in _list_attributes(x).items() if name not in left_out]}

    def _keep(self, t: Tensor | NDArray[Any]) -> str:
        name = str(len(self.tensors))
        self.tensors[name] = t
        return name


class _Reader:
    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        self.tensors, self.device = tensors, device
        self._made: dict[int, Any] = {}

    def read(self, tree: Tree, old: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        if "float" in tree:
            return float(tree["float"])
        if "enum" in tree:
            return _find_class(tree["enum"])[tree["name"]]
        if "same" in tree:
            if not isinstance(old, _UNCHANGED):
                raise UnknownStateError(f"nothing stands for a function or type, got {type(old).__name__}")
            return old
        if "of" in tree:
            return self._made[tree["of"]]
        found = self._made[tree["number"]] = self._read_new(tree, old)
        return found

    def _read_new(self, tree: dict[str, Tree], old: Any) -> Any:
        if "tensor" in tree:
            kept = self.tensors[tree["tensor"]]
            return kept.clone() if tree["device"] == "cpu" else kept.to(self.device)
        if "array" in tree:
            array = self.tensors[tree["array"]].numpy().copy()
            return array[()] if tree["scalar"] else array
        if "size" in tree:
            return torch.Size(tree["size"])
        if "generator" in tree:
            old.set_state(self.tensors[tree["generator"]])
        elif "module" in tree:
            old.load_state_dict({name: self.tensors[k] for name, k in tree["module"].items()})
        elif "optimizer" in tree:
            old.load_state_dict(self.read(tree["optimizer"], old.state_dict()))
        elif "map" in tree:
            return self._read_map(tree["map"], old)
        elif "items" in tree:
            return self._read_items(tree, old)
        else:
            return self._read_object(tree, old)
        return old

    def _read_map(self, pairs: list[list[Tree]], old: Any) -> Any:
        there = old if isinstance(old, Mapping) else {}
        new = {}
        for k, v in pairs:
            key = self.read(k, None)
            new[key] = self.read(v, there.get(key))
        if not isinstance(old, dict):
            return new
        old.clear()
        old.update(new)
        return old

    def _read_items(self, tree: dict[str, Tree], old: Any) -> Any:
        there = list(old) if isinstance(old, list | tuple) else []
        items = [self.read(t, there[k] if k < len(there) else None) for k, t in enumerate(tree["items"])]
        if tree["class"]:
            return _find_class(tree["class"])(*items)
        if tree["kind"] == "list" and isinstance(old, list):
            old[:] = items
            return old
        return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[tree["kind"]](items)

    def _read_object(self, tree: dict[str, Tree], old: Any) -> Any:
        kind = _find_class(tree["class"])
        there = _list_attributes(old) if type(old) is kind else {}
        params = getattr(kind, "__dataclass_params__", None)
        # A frozen record may be shared with others, so it is not filled in place.
        is_open = params is None or not getattr(params, _FROZEN)
        made = old if type(old) is kind and is_open else kind.__new__(kind)
        self._made[tree["number"]] = made
        new = {name: self.read(t, there.get(name)) for name, t in tree["attributes"]}
        kept = {*new, *getattr(kind, "scratch", ())}
        for name in [n for n in getattr(made, "__dict__", {}) if n not in kept]:
            del made.__dict__[name]
        for name, value in new.items():
            object.__setattr__(made, name, value)
        return made


def _list_attributes(x: object) -> dict[str, Any]:
    slots = [s for kind in type(x).__mro__ for s in _as_names(vars(kind).get("__slots__", ()))]
    found = {s: getattr(x, s) for s in slots if s != "__weakref__" and hasattr(x, s)}
    return found | getattr(x, "__dict__", {})


def _as_names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _name_class(x: object) -> str:
    kind = type(x)
    if not kind.__module__.startswith("suture.") or "<locals>" in kind.__qualname__:
        raise UnknownStateError(f"{kind.__module__}.{kind.__qualname__}")
    return f"{kind.__module__}:{kind.__qualname__}"


def _find_class(name: str) -> Any:
    """Return a class of suture that is loaded; others are never made from a file."""
    module, _, path = name.partition(":")
    if not module.startswith("suture."):
        raise UnknownStateError(name)
    found: Any = sys.modules[module]
    for part in path.split("."):
        found = getattr(found, part)
    if not isinstance(found, type):
        raise UnknownStateError(name)
    return found
