"""Private copies of networks, with the functions and modules that their hooks refer to."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Iterator
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from suture._base import find_eager
from suture.networks.wrappers.offloading import get_hooks, remove_hooks

_WRAPPERS = nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel
"""Modules that only pass their inputs on."""
_REGISTERED = "_parameters", "_buffers", "_modules"


def strip(network: Any) -> Any:
    """Return the module in wrappers that only pass their inputs on."""
    while isinstance(network, nn.Module):
        inner = find_eager(network)
        if inner is network and isinstance(network, _WRAPPERS):
            inner = network.module
        # A hook of the wrapper itself would be lost.
        if inner is network or network._forward_hooks or network._forward_pre_hooks:
            break
        network = inner
    return network


def copy_network(network: nn.Module, device: torch.device | None = None, *,
                 shared: bool = False) -> nn.Module:
    """Copy a network together with what its hooks and functions refer to.

    `deepcopy` leaves functions as they are, so the closure of a hook, or a `forward` set on an instance,
    would still call modules of the original. Here they are bound to the copy. Parts come without wrappers,
    and on a given device without the hooks that move weights between devices.

    Args:
        device: device of the copy. Default: that of the original.
        shared: the copy has the tensors of the original.
    """
    with torch.no_grad():  # else the weights of a TorchScript part become results with a history
        memo = _start_memo(network, shared)
        mine: nn.Module = copy.deepcopy(network, memo)
    _Binder(memo, device).bind_module(mine)
    for module in mine.modules():
        if isinstance(module, nn.DataParallel):
            module.device_ids = []  # its replicas would be out of sight
    if device is None:
        return mine
    remove_hooks(mine)
    return mine.to(device)


def _start_memo(network: nn.Module, shared: bool) -> dict[int, Any]:
    """Return the parts of a copy that `deepcopy` is not to make, by the id of the original's."""
    modules = list(network.modules())
    # The weight that `weight_norm` computes has a history, which `deepcopy` refuses.
    memo: dict[int, Any] = {id(t): t if shared else t.detach().clone() for m in modules
                            for t in vars(m).values() if isinstance(t, Tensor) and t.grad_fn is not None}
    memo |= {id(hook): hook for m in modules for hook in get_hooks(m)}  # they may hold all weights
    if shared:
        memo |= {id(t): t for t in (*network.parameters(), *network.buffers())}
    for module in reversed(modules):  # inner wrappers first
        if (inner := strip(module)) is not module:
            memo[id(module)] = copy.deepcopy(inner, memo)
    return memo


class _Binder:
    """Replacement of what refers to a module by what refers to its private copy."""

    def __init__(self, memo: dict[int, Any], device: torch.device | None) -> None:
        self._memo, self._device = memo, device
        self._private = {id(v) for v in memo.values()}
        self._bound: dict[int, tuple[Any, Any]] = {}

    def bind_module(self, module: nn.Module) -> None:
        """Bind everything that is set on a private copy and on the modules in it."""
        for part in module.modules():
            own = vars(part)
            own.update({k: self.bind(v) for k, v in own.items() if k not in _REGISTERED})

    def bind(self, value: Any) -> Any:
        """Return `value`, or a copy of it that refers to private modules."""
        if isinstance(value, nn.Module):
            return self._copy_module(value)
        value = find_eager(value)
        if isinstance(value, Tensor):
            return value if self._device is None else value.to(self._device)
        if type(value) not in _BINDINGS:
            return value
        if id(value) not in self._bound:
            self._bound[id(value)] = value, value  # for what refers to itself
            self._bound[id(value)] = value, _BINDINGS[type(value)](self, value)
        return self._bound[id(value)][1]

    def _copy_module(self, module: nn.Module) -> nn.Module:
        if id(module) in self._private:
            return module
        made = self._memo.get(id(module))
        if made is None:  # a module outside the network, such as a hook's own encoder
            with torch.no_grad():
                made = copy.deepcopy(module, self._memo).eval().requires_grad_(False)
            made = made if self._device is None else made.to(self._device)
            self._private |= {id(v) for v in self._memo.values()}
            self.bind_module(made)
        return made

    def bind_mapping(self, value: Any) -> Any:
        """Bind the values of a mapping, and keep it where none changes: a hook may collect in it."""
        bound = {k: self.bind(v) for k, v in value.items()}
        return type(value)(bound) if any(bound[k] is not v for k, v in value.items()) else value

    def bind_sequence(self, value: Any) -> Any:
        """Bind the items of a list or tuple, and keep it where none changes."""
        bound = type(value)(map(self.bind, value))
        return bound if any(a is not b for a, b in zip(value, bound, strict=True)) else value

    def bind_method(self, value: Any) -> Any:
        """Bind a method to the copy of its module."""
        owner = self.bind(value.__self__)
        return value if owner is value.__self__ else MethodType(value.__func__, owner)

    def bind_partial(self, value: Any) -> Any:
        """Bind the function of a partial and what it is given."""
        func, args, named = (self.bind(v) for v in (value.func, value.args, value.keywords))
        if func is value.func and args is value.args and named is value.keywords:
            return value
        return functools.partial(func, *args, **named)

    def bind_function(self, value: Any) -> Any:
        """Bind what a function refers to: its closure, its defaults and the global names that it uses."""
        cells = tuple(map(self._bind_cell, value.__closure__ or ()))
        defaults, named = self.bind(value.__defaults__), self.bind(value.__kwdefaults__)
        known = value.__globals__
        names = {n: known[n] for n in _list_names(value.__code__) if n in known}
        bound = {n: self.bind(v) for n, v in names.items() if _is_own(v, known)}
        used = {n: v for n, v in bound.items() if v is not names[n]}
        before = *(value.__closure__ or ()), value.__defaults__, value.__kwdefaults__
        if not used and all(a is b for a, b in zip((*cells, defaults, named), before, strict=True)):
            return value
        made = FunctionType(value.__code__, {**known, **used} if used else known, value.__name__, defaults,
                            cells)
        made.__kwdefaults__, made.__dict__ = named, value.__dict__
        return made

    def _bind_cell(self, cell: CellType) -> CellType:
        try:
            content = cell.cell_contents
        except ValueError:  # a name that is not bound yet
            return cell
        bound = self.bind(content)
        return cell if bound is content else CellType(bound)


_BINDINGS: dict[type, Any] = {
    FunctionType: _Binder.bind_function, MethodType: _Binder.bind_method,
    functools.partial: _Binder.bind_partial, dict: _Binder.bind_mapping, OrderedDict: _Binder.bind_mapping,
    list: _Binder.bind_sequence, tuple: _Binder.bind_sequence}


def _is_own(value: Any, known: dict[str, Any]) -> bool:
    """Return True for a global value to bind: a module, its method, or a function of the same file."""
    if isinstance(value, FunctionType):
        return value.__globals__ is known
    return isinstance(value, nn.Module) or (isinstance(value, MethodType)
                                            and isinstance(value.__self__, nn.Module))


def _list_names(code: CodeType) -> Iterator[str]:
    """Yield the global names that code and the functions in it use."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _list_names(inner)
