"""Weights on disk."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from suture._base import SutureError, expect, load_tensors, save_tensors, summarise_error

_KIND = "suture.weights/2"
_PREFIXES = ("module.", "model.", "_orig_mod.")
"""Added to names by DataParallel, by training frameworks and by torch.compile."""
_INSIDE = ("state_dict", "model_state_dict", "model")
"""Keys of a checkpoint under which training scripts store the state dict."""
_PICKLED = (".pt", ".pth", ".bin")
_CONVERT = "write torch.save(model.state_dict(), path) where the model was made"


def save_weights(network: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write weights and buffers as safetensors, as a whole or not at all.

    Args:
        network: any network. Tensors are copied to the CPU; shared tensors are written once per name.
        path: a file that ends in `.safetensors`; folders are created, an older file is replaced.
        metadata: strings that `load_weights` returns.

    Raises:
        SutureError: another ending, or the file cannot be written.
    """
    path = Path(path)
    expect(path.suffix == ".safetensors", "a .safetensors file for weights", repr(path.name),
           f"write {path.stem}.safetensors")
    save_tensors(path, _KIND, network.state_dict(), dict(metadata or {}))


def load_weights(network: nn.Module, path: str | Path) -> dict[str, str]:
    """Load weights into `network`, all of them or none, and return the metadata stored with them.

    Args:
        network: gets the weights in place, cast to its own types and device.
        path: `.safetensors`, or `.pt`, `.pth` or `.bin` with a state dict, bare or in a checkpoint under
            "state_dict", "model_state_dict" or "model". Names may begin with `module.`, `model.` or
            `_orig_mod.`. If several names share one tensor in the network, one is enough. No code from the
            file is run. Only `.safetensors` has metadata; for the others they are empty.

    Raises:
        SutureError: the file is missing, corrupt or holds a pickled model, or names or shapes do not match.
            The network is then unchanged.
    """
    path = Path(path)
    stored, metadata = read_weights(path)
    wanted: dict[str, Tensor] = network.state_dict()
    stored = _strip_prefixes(stored, wanted)
    _check_fit(stored, wanted, path)
    network.load_state_dict(stored, strict=False)
    return metadata


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return (tensors by the names in the file, metadata) of a file for `load_weights`.

    Raises:
        SutureError: the file is missing, corrupt or holds a pickled model.
    """
    path = Path(path)
    if not path.is_file():
        raise SutureError(f"no weights at {path}{_explain_folder(path)}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    expect(path.suffix in _PICKLED, ".safetensors, .pt, .pth or .bin", path.name)
    return _read_torch(path), {}


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the strings that `save_weights` stored with the weights; errors as for `read_weights`."""
    return read_weights(path)[1]


def _explain_folder(path: Path) -> str:
    if (path / "model.safetensors.index.json").is_file():
        return f", a folder with weights in several files; give it as the network: hf:{path}"
    found = sorted(p for p in path.glob("*") if p.suffix in (".safetensors", *_PICKLED))
    wanted = f"write {found[0]}" if found else "expected a .safetensors, .pt or .pth file"
    return (", which is a folder; " if path.is_dir() else "; ") + wanted


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file of suture, whose digest is checked, or of other tools."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            kind = metadata.get("format", "")
            if not (kind.startswith("suture.") and "digest" in metadata):
                return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise _make_unreadable_error(path, error) from error
    tensors, about = load_tensors(path, kind)
    return tensors, about if kind == _KIND else metadata


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Broken bytes may raise any error: KeyError, EOFError, RuntimeError ... But an UnpicklingError for a
        # file that starts as an archive or a pickle means that it holds more than tensors.
        with path.open("rb") as file:
            begins = file.read(1) in (b"P", b"\x80")
        if (begins and isinstance(error, pickle.UnpicklingError)) or "TorchScript" in str(error):
            raise SutureError(f"{path} holds a pickled model, which would run code to load; {_CONVERT}"
                              ) from error
        raise _make_unreadable_error(path, error) from error
    inside = [content[key] for key in _INSIDE if key in content] if isinstance(content, Mapping) else []
    for candidate in (content, *inside):
        if isinstance(candidate, Mapping) and candidate and all(
                isinstance(value, Tensor) for value in candidate.values()):
            return {str(name): value for name, value in candidate.items()}
    got = f"keys {_abbreviate(map(str, content))}" if isinstance(content, Mapping) else type(content).__name__
    raise SutureError(f"{path} holds no state dict of tensors, got {got}; {_CONVERT}")


def _make_unreadable_error(path: Path, error: Exception) -> SutureError:
    first = summarise_error(error).split(". ")[0]
    return SutureError(f"cannot read {path}: not a whole {path.suffix} file ({type(error).__name__}: "
                       f"{first[:120]})")


def _strip_prefixes(stored: dict[str, Tensor], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    """Remove a prefix that all stored names have, unless the network's own names have it too."""
    for prefix in _PREFIXES:
        ours = bool(wanted) and all(name.startswith(prefix) for name in wanted)
        if stored and not ours and all(name.startswith(prefix) for name in stored):
            bare = {name.removeprefix(prefix): value for name, value in stored.items()}
            return _strip_prefixes(bare, wanted)
    return stored


def _check_fit(stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    # Old and converted files lack batch norm's counter, which has no effect in eval mode. Weights with two
    # names in a network (tied embeddings) are often stored under one.
    given = {wanted[name].data_ptr() for name in stored if name in wanted} - {0}
    missing = [name for name, value in wanted.items()
               if name not in stored and value.data_ptr() not in given
               and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in stored if name not in wanted]
    shapes = [f"{name} (file {tuple(stored[name].shape)}, network {tuple(wanted[name].shape)})"
              for name in wanted if name in stored and stored[name].shape != wanted[name].shape]
    faults = (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
    if listed := [f"{what}: {_abbreviate(names)}" for what, names in faults if names]:
        raise SutureError(f"{path} does not fit the network; {'; '.join(listed)}")


def _abbreviate(names: Iterable[str]) -> str:
    listed = list(names)
    rest = len(listed) - 3
    return ", ".join(listed[:3]) + (f" and {rest} more" if rest > 0 else "")
