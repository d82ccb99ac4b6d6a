"""State dicts: loaded into a module as a whole, and refused where a cast would change what they say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from suture._base import SutureError


def load_state(module: nn.Module, stored: Mapping[str, Tensor], where: str) -> None:
    """Load all of a state dict into a module, cast to the module's own types and device.

    Batch norm's counter may be missing, because it has no effect in eval mode. If several names share one
    tensor in the module, one of them is enough.

    Args:
        where: name of the file in errors.

    Raises:
        SutureError: names or shapes do not match, or a tensor does not survive the cast: another kind of
            number, NaN or infinity where the module has finite values, no plain dense tensor. The module is
            then unchanged.
    """
    wanted = module.state_dict()
    faults = {"missing": _find_missing(stored, wanted), "unexpected": [n for n in stored if n not in wanted]}
    for name, own in wanted.items():
        if name in stored and (fault := _find_fault(stored[name], own)):
            faults.setdefault(fault[0], []).append(f"{name}{fault[1]}")
    if not any(faults.values()):
        faults["unequal, but one tensor in the network"] = _find_unequal(stored, wanted)
    if listed := [f"{what}: {abbreviate(names)}" for what, names in faults.items() if names]:
        raise SutureError(f"{where} does not fit the network; {'; '.join(listed)}")
    module.load_state_dict(dict(stored), strict=False)


def abbreviate(names: Iterable[str]) -> str:
    """Return the first three names, and how many more there are."""
    listed = list(names)
    rest = len(listed) - 3
    return ", ".join(listed[:3]) + (f" and {rest} more" if rest > 0 else "")


def name_kind(dtype: torch.dtype) -> str:
    """Return the kind of number that a cast must keep."""
    if dtype.is_complex:
        return "complex"
    if dtype.is_floating_point:
        # Eight bits are weights without the scale that belongs to them.
        return "float" if dtype.itemsize > 1 else "8-bit float"
    return "integer"


def _find_missing(stored: Mapping[str, Tensor], wanted: Mapping[str, object]) -> list[str]:
    given = {place for name in stored for place in _find_place(wanted.get(name))}
    return [name for name, own in wanted.items()
            if name not in stored and not given.intersection(_find_place(own))
            and not name.endswith("num_batches_tracked")]


def _find_place(own: object) -> Iterator[int]:
    """Yield the address of a tensor in memory, if it is one with values."""
    if isinstance(own, Tensor) and not nn.parameter.is_lazy(own) and own.data_ptr():
        yield own.data_ptr()


def _find_fault(value: Tensor, own: object) -> tuple[str, str] | None:
    """Return what is wrong with a stored tensor for the place of `own`, and details; None if it fits."""
    if not isinstance(own, Tensor) or nn.parameter.is_lazy(own) or own.is_meta:
        return "no values in the network", ""
    if value.is_quantized or value.layout is not torch.strided or value.is_meta:
        return "no plain tensor", f" ({'meta' if value.is_meta else value.dtype})"
    if value.shape != own.shape:
        return "wrong shape", f" (file {tuple(value.shape)}, network {tuple(own.shape)})"
    if name_kind(value.dtype) != name_kind(own.dtype):
        return "wrong type", f" (file {_name(value.dtype)}, network {_name(own.dtype)})"
    if name_kind(own.dtype) == "integer":
        kept = torch.equal(value.to(own.dtype).to(value.dtype), value)
        return None if kept else ("out of range", f" for {_name(own.dtype)}")
    fits = own.dtype.itemsize == 1 or _is_finite_like(value.to(own.dtype), own)
    return None if fits else ("NaN or inf", "")


def _is_finite_like(value: Tensor, own: Tensor) -> bool:
    """Return False if `value` is NaN or infinite where the module's own tensor is finite (a mask is not)."""
    bad = ~torch.isfinite(value)
    return not (bool(bad.any()) and bool(torch.isfinite(own.detach().to(value.device))[bad].any()))


def _find_unequal(stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Return names of stored tensors that differ although the module has one tensor under both names."""
    first: dict[tuple[object, ...], str] = {}
    found = []
    for name in stored:
        own = wanted[name]
        places = [(p, own.shape, own.stride()) for p in _find_place(own)]
        for place in places:
            other = first.setdefault(place, name)
            if not torch.equal(stored[other].to(own.dtype), stored[name].to(own.dtype)):
                found.append(f"{other} and {name}")
    return found


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
