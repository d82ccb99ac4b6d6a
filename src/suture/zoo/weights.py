"""Weights on disk."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from suture._base import (
    FilePath,
    SutureError,
    SutureWarning,
    checked,
    expect,
    is_own_file,
    load_tensors,
    save_tensors,
    summarise_error,
)
from suture.networks import Network, abbreviate, load_state

_KIND = "suture.weights/2"
_INSIDE = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params",
           "ema_state_dict", "state_dict_ema", "model_ema", "params_ema", "ema")
"""Keys of a checkpoint under which training scripts store a state dict; averages are used if alone."""
_PICKLED = (".pt", ".pth", ".bin", ".th", ".ckpt", ".tar")
_ENDINGS = f".safetensors, {', '.join(_PICKLED[:-1])} or {_PICKLED[-1]}"
_CONVERT = "write torch.save(model.state_dict(), path) where the model was made"


@dataclass(frozen=True)
class WeightsFile:
    """Contents of a weights file.

    Attributes:
        tensors: by the names in the file.
        metadata: strings that were saved with them.
        notes: what the user should know, such as a prefix that was removed from all names.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    notes: tuple[str, ...] = ()


@checked
def save_weights(network: Network, path: FilePath, metadata: Mapping[str, str] | None = None) -> None:
    """Write weights and buffers as safetensors, as a whole or not at all.

    Args:
        network: any network. Tensors are copied to the CPU; shared tensors are written once per name.
        path: a file that ends in `.safetensors`; folders are created, an older file is replaced.
        metadata: strings that `load_weights` returns.

    Raises:
        SutureError: another ending, a state that is no tensor, or the file cannot be written.
    """
    path = Path(path)
    expect(path.suffix == ".safetensors", "a .safetensors file for weights", repr(path.name),
           f"write {path.stem}.safetensors")
    state = network.state_dict()
    odd = next((name for name, value in state.items() if not isinstance(value, Tensor)), None)
    expect(odd is None, "a network whose state dict holds tensors alone", f"{odd!r}",
           "save it with your own code")
    save_tensors(path, _KIND, state, dict(metadata or {}))


@checked
def load_weights(network: Network, path: FilePath) -> dict[str, str]:
    """Load weights into `network`, all of them or none, and return the metadata stored with them.

    Args:
        network: gets the weights in place, cast to its own types and device.
        path: `.safetensors`, or a state dict that torch saved as `.pt`, `.pth`, `.bin`, `.th`, `.ckpt` or
            `.tar`, bare or in a checkpoint under a key such as "state_dict" or "model". A prefix of all
            names that the network does not have, such as `module.`, is removed. If several names share one
            tensor in the network, one is enough. No code from the file is run. Only `.safetensors` has
            metadata; for the others they are empty.

    Warns:
        SutureWarning: a prefix was removed, a checkpoint holds several state dicts, or a file of an early
            version cannot be checked.

    Raises:
        SutureError: the file is missing, damaged or holds a pickled model, or a weight does not fit: its
            name, shape or kind of number, or NaN. The network is then unchanged.
    """
    file = fit_weights(network, path)
    for note in file.notes:
        warnings.warn(note, SutureWarning, stacklevel=3)
    return file.metadata


@checked
def fit_weights(network: Network, path: FilePath) -> WeightsFile:
    """Do the same as `load_weights`, but return the notes with the contents of the file."""
    path = Path(path)
    file = read_weights(path)
    tensors, prefix = _strip_prefix(file.tensors, network.state_dict())
    load_state(network, tensors, str(path))
    note = f"{prefix!r} was removed from all names of weights in {path.name}"
    return replace(file, tensors=tensors, notes=(*file.notes, *([note] if prefix else [])))


@checked
def read_weights(path: FilePath) -> WeightsFile:
    """Read a file for `load_weights`.

    Raises:
        SutureError: the file is missing, damaged or holds a pickled model.
    """
    path = Path(path)
    if not path.is_file():
        raise SutureError(f"no weights at {path}{_explain_folder(path)}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    expect(path.suffix in _PICKLED, _ENDINGS, path.name)
    return _find_state(_read_torch(path), path)


@checked
def read_metadata(path: FilePath) -> dict[str, str]:
    """Return the strings that `save_weights` stored with the weights; errors as for `read_weights`."""
    return read_weights(path).metadata


def _explain_folder(path: Path) -> str:
    if (path / "model.safetensors.index.json").is_file():
        return f", a folder with weights in several files; give it as the network: hf:{path}"
    found = sorted(p for p in path.glob("*") if p.suffix in (".safetensors", *_PICKLED))
    wanted = f"write {found[0]}" if found else "expected a .safetensors, .pt or .pth file"
    return (", which is a folder; " if path.is_dir() else "; ") + wanted


def _read_safetensors(path: Path) -> WeightsFile:
    """Read a file of suture, whose digest is checked, or of other tools."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            if not is_own_file(metadata):
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return WeightsFile(tensors, metadata, _note_early(path, metadata))
    except (safetensors.SafetensorError, OSError) as error:
        raise _make_unreadable_error(path, error) from error
    kind = metadata.get("format", _KIND)
    own = load_tensors(path, kind if kind.startswith("suture.") else _KIND)
    return WeightsFile(own.tensors, own.about if kind.startswith("suture.weights/") else metadata,
                       (own.note,) if own.note else ())


def _note_early(path: Path, metadata: Mapping[str, str]) -> tuple[str, ...]:
    # Early versions wrote the metadata of `suture train` and `suture demo`, but no digest.
    early = {"seed", "accuracy"} <= metadata.keys()
    return (f"{path.name} was written by an early version without a digest, so damage to it cannot be "
            "noticed",) if early else ()


def _read_torch(path: Path) -> Any:
    try:
        _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Broken bytes may raise any error: KeyError, EOFError, RuntimeError ... But an UnpicklingError for a
        # file that starts as an archive or a pickle means that it holds more than tensors.
        with path.open("rb") as file:
            begins = file.read(1) in (b"P", b"\x80")
        if (begins and isinstance(error, pickle.UnpicklingError)) or "TorchScript" in str(error):
            raise SutureError(f"{path} holds a pickled model, which would run code to load; {_CONVERT}"
                              ) from error
        raise _make_unreadable_error(path, error) from error


def _check_archive(path: Path) -> None:
    """Check the sums of a zip archive, which `torch.load` does not; torch may have left them out as 0."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.CRC:
                with archive.open(entry) as content:
                    while content.read(1 << 20):
                        pass


def _find_state(content: Any, path: Path) -> WeightsFile:
    """Return the state dict in a checkpoint; a note says which one if there are several."""
    found = dict(_list_states(content))
    if not found:
        got = (f"keys {abbreviate(map(str, content))}" if isinstance(content, Mapping)
               else type(content).__name__)
        raise SutureError(f"{path} holds no state dict of tensors, got {got}; {_CONVERT}")
    key, *others = found
    note = f"weights of {path.name} are those under {key!r}; it also holds {abbreviate(map(repr, others))}"
    return WeightsFile(found[key], {}, (note,) if others else ())


def _list_states(content: Any, key: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the state dicts in a checkpoint, with their keys, in the order in which they are preferred."""
    if not isinstance(content, Mapping) or not content:
        return
    if all(isinstance(value, Tensor) for value in content.values()):
        yield key, {str(name): value for name, value in content.items()}
        return
    for inner in _INSIDE:
        if inner in content:
            yield from _list_states(content[inner], f"{key}.{inner}".lstrip("."))


def _make_unreadable_error(path: Path, error: Exception) -> SutureError:
    first = summarise_error(error).split(". ")[0]
    return SutureError(f"cannot read {path}: not a whole {path.suffix} file ({type(error).__name__}: "
                       f"{first[:120]})")


def _strip_prefix(stored: dict[str, Tensor], wanted: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """Remove what all stored names begin with, as long as the network has none of these names."""
    prefix = ""
    while stored and not stored.keys() & wanted.keys():
        first = next(iter(stored)).partition(".")[0] + "."
        if not all(name.startswith(first) and name != first for name in stored):
            break
        stored, prefix = {name.removeprefix(first): value for name, value in stored.items()}, prefix + first
    return stored, prefix
