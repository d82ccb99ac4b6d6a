"""Forms of data, recognised where something else was expected, and what is no data where data were."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from suture._base import SutureError, describe_value
from suture.data.batch import Batch, Prepared
from suture.data.sources.examples import Examples
from suture.data.sources.specs import is_spec

_ARRAYS = (Tensor, np.ndarray)
_LIBRARY = "datasets"
_MOST_NAME = 255
"""Longest name of a file, in bytes, on most systems."""


def describe_form(given: Any) -> str:
    """Describe data by their form, such as "data (DataLoader)"; return "" for what is no data."""
    if isinstance(given, _ARRAYS):
        return f"data ({describe_value(given)})"
    if isinstance(given, DataLoader | Dataset | Examples | Prepared | Batch):
        return f"data ({type(given).__name__})"
    name = type(given).__name__
    if type(given).__module__.partition(".")[0] == _LIBRARY or name in ("Batches", "Paired", "ImageSet"):
        return f"data ({name})"
    if isinstance(given, str | Path):
        text = str(given)
        is_short = 0 < len(text) <= _MOST_NAME and "\0" not in text
        return f"data ({text!r})" if is_short and _is_data_path(text) else ""
    if isinstance(given, tuple | list) and given:
        return f"data (a {name} of batches or arrays)" if all(map(_is_batch, given)) else ""
    return ""


def _is_data_path(text: str) -> bool:
    weights = (".pt", ".pth", ".bin", ".safetensors", ".ckpt", ".th", ".tar", ".json", ".onnx")
    return text == "digits" or (is_spec(text) and not text.endswith(weights) and not (
        Path(text) / "config.json").exists() and not text.startswith("hf:")
        and not (text.startswith("torchvision:") and "@" not in text))


def _is_batch(part: Any) -> bool:
    """Return True for an array, or a pair or mapping of some."""
    if isinstance(part, Mapping):
        return bool(part) and all(isinstance(p, _ARRAYS) for p in part.values())
    return isinstance(part, _ARRAYS) or (isinstance(part, tuple | list) and bool(part)
                                         and any(isinstance(p, _ARRAYS) for p in part))


def refuse_no_data(given: Any, name: str) -> None:
    """Raise a `SutureError` for what looks like something to read again and again, but holds no batches."""
    instead = ""
    if isinstance(given, nn.Module):
        instead = "write the networks first, then data=..."
    elif isinstance(given, str | Path):
        instead = f"write data=suture.sources.open_source({str(given)[:60]!r})"
    elif type(given).__name__.endswith("DatasetDict"):
        instead = f"write data[{next(iter(given), 'train')!r}], or another of its splits"
    elif type(given).__module__.partition(".")[0] in ("pandas", "polars"):
        instead = "pass arrays, (frame[columns].to_numpy(), frame[label].to_numpy())"
    elif isinstance(given, Mapping):
        instead = "give a list of batches, or a Dataset"
    elif isinstance(given, type):
        instead = f"make one: {given.__name__}(...)"
    elif isinstance(given, bytes | bytearray | memoryview) or given is None:
        instead = "pass a DataLoader, a Dataset or (inputs, labels)"
    if instead:
        raise SutureError(f"expected batches (inputs, labels) as {name}, got {describe_value(given)}; "
                          f"{instead}")
