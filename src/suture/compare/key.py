"""The key of a comparison: all that decides its numbers, part by part, so that a difference can be named."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suture._base import fingerprint_network, get_python_version, hash_network, hash_object, hash_parts
from suture.data import Prepared
from suture.networks import SitedNetwork, disable_gradients, extract_tensors, take_first

Key = dict[str, Any]
ROUNDING, OTHER_ROUNDING = 1e-5, 1e-2
"""Changes of outputs, relative to an example's norm, by rounding: on one processor, and with other kernels or
types of number."""
_SHOWN = 2
"""Number of differences that a message names."""
_EXAMPLES = 8
"""Number of examples whose outputs are kept."""


def describe_network(network: nn.Module, sited: SitedNetwork) -> Key:
    """Return hashes of weights, structure and code of a network, and its sites as text."""
    own = hash_network(network)
    sites = f"{', '.join(str(i.site) for i in sited.infos)} #{hash_object(repr(sited.infos)).short}"
    return {"weights": fingerprint_network(network), "structure": own.state, "code": own.code,
            "sites": sites, "versions": own.versions}


def describe_preparation(data: Any) -> Key:
    """Return hashes of the preprocessing of both networks; {} for data without one.

    The digests of `Prepared` data are of raw examples, which do not show it.
    """
    if not isinstance(data, Prepared):
        return {}
    return {side: _describe_function(getattr(data, side)) for side in ("source", "target")}


def _describe_function(how: Any) -> str:
    # suture's own preprocessing says all that decides it; a tokenizer also holds what its calls leave.
    return repr(how) if type(how).__module__.startswith("suture.") else hash_object(how).short


@cache
def _find_own_version() -> str:
    return version("suture")  # which reads files


def collect_versions() -> dict[str, str]:
    """Return the versions of the software that computes."""
    return {"suture": _find_own_version(), "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__, "machine": platform.machine()}


def flatten_settings(given: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested records and mappings as pairs of a name with dots and a value that JSON holds."""
    if is_dataclass(given) and not isinstance(given, type):
        given = {f.name: getattr(given, f.name) for f in fields(given)}
    if isinstance(given, Mapping):
        for key, value in given.items():
            yield from flatten_settings(value, f"{name}.{key}" if name else str(key))
    elif isinstance(given, list | tuple):
        yield name, ", ".join(map(str, given))
    else:
        plain = given is None or isinstance(given, bool | int | float | str)
        yield name, given if plain else f"#{hash_object(given).short}"


def make_key(settings: Key, networks: Mapping[str, Key], preparation: Mapping[str, Key],
             outputs: Key) -> Key:
    """Return the key of a comparison, as JSON; what passes see of the data is added as they end."""
    found = {name: v for of in networks.values() for name, v in of["versions"].items()}
    found |= {name: v for name, v in collect_versions().items() if name in ("suture", "torch", "numpy")}
    return {"settings": settings, "versions": found | {"python": get_python_version()},
            "networks": {side: {k: v for k, v in of.items() if k != "versions"}
                         for side, of in networks.items()},
            "preparation": dict(preparation), "outputs": outputs}


Sketch = Callable[[SitedNetwork, Any], list[Any]]


def sketch_outputs(source: SitedNetwork, target: SitedNetwork, inputs: tuple[Any, Any],
                   sketch: Sketch | None = None) -> Key:
    """Return what `sketch_network` makes of the first examples by both networks.

    It shows changes that no hash of code sees, such as in a compiled library. A network that fails is left
    out: the stage that needs its output says so.
    """
    firsts = [take_first(x, _EXAMPLES) for x in inputs]
    made: Key = {"inputs": hash_object(firsts).short}
    for side, network, x in (("source", source, firsts[0]), ("target", target, firsts[1])):
        if side == "source" or target is not source:
            with suppress(Exception):
                made[side] = (sketch or sketch_network)(network, x)
    return made


@disable_gradients()
def sketch_network(network: SitedNetwork, inputs: Any) -> list[list[list[float]]]:
    """Return two numbers for each example, output and site: its norm, and a projection."""
    return list(_sketch(network, inputs))


def _sketch(network: SitedNetwork, inputs: Any) -> Iterator[list[list[float]]]:
    done = network.run_full(inputs)
    for x in (*network.pick_representations(done), *extract_tensors(done.output)):
        if x.is_floating_point() and x.ndim and x.numel():
            rows = x.detach().cpu().double().flatten(1) if x.ndim > 1 else x.detach().cpu().double()[:, None]
            rows = rows.nan_to_num()  # so that JSON can hold them
            signs = torch.cos(torch.arange(rows.shape[1], dtype=torch.float64))
            yield torch.stack([torch.linalg.vector_norm(rows, dim=1), rows @ signs], 1).tolist()


def explain_outputs(old: Key, new: Key, allowed: float) -> str:
    """Say which network's outputs on the same examples are others than they were, or return ""."""
    if old["inputs"] != new["inputs"]:
        return ""
    for side in (s for s in ("source", "target") if s in old and s in new):
        pairs = list(zip(map(_as_rows, old[side]), map(_as_rows, new[side]), strict=False))
        if any(a.shape != b.shape or not _is_close(a, b, allowed) for a, b in pairs):
            return f"outputs of the {side} network"
    return ""


def _as_rows(sketch: list[list[float]]) -> Tensor:
    return torch.tensor(sketch, dtype=torch.float64)


def _is_close(a: Tensor, b: Tensor, allowed: float) -> bool:
    return bool(((a - b).abs() <= allowed * a[:, :1].abs().clamp(min=1e-30)).all())


def shorten_key(key: Key) -> str:
    """Return 16 hex digits of a key, without the outputs, which are rounded otherwise on other processors."""
    text = json.dumps({name: part for name, part in key.items() if name != "outputs"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_trained_network(key: Key, forward: str) -> str:
    """Return 16 hex digits of all of the target that decides its representations, for trained detectors."""
    target = {k: v for k, v in key["networks"]["target"].items() if k != "sites"}
    return hash_parts({"network": target, "versions": key["versions"], "forward": forward})


def explain_difference(old: Any, new: Key) -> str:
    """Say in which parts two keys differ, without outputs and data, or return ""."""
    if not isinstance(old, Mapping) or not {"settings", "networks", "versions"} <= set(old):
        return "made by an older version of suture"
    found = [*_list_changes("version of ", old["versions"], new["versions"]),
             *_list_changes("", old["settings"], new["settings"])]
    same_python = old["versions"].get("python") == new["versions"]["python"]
    for side, now in new["networks"].items():
        if side == "target" and now == new["networks"]["source"]:
            continue
        found += _list_network_changes(side, old["networks"].get(side, {}), now, same_python)
    found += [f"preprocessing of the {name}" for name, now in new["preparation"].items()
              if old["preparation"].get(name) != now]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _list_network_changes(side: str, old: Key, new: Key, same_python: bool) -> Iterator[str]:
    names = [k for k in ("weights", "code", "structure", "sites") if old.get(k) != new[k]]
    if "code" in names and "structure" in names:  # which names the functions of the code
        names.remove("structure")
    if not same_python:  # byte code is of a version
        names = [n for n in names if n not in ("code", "structure")]
    yield from (f"{'structure or values' if n == 'structure' else n} of the {side}" for n in names)


def _list_changes(start: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterable[str]:
    for name in dict.fromkeys([*new, *old]):
        was, now = (_shorten(of[name]) if name in of else "none" for of in (old, new))
        if (name in old) != (name in new) or old[name] != new[name]:
            yield f"{start}{name}: {was}, now {now}"


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
