"""The border to the disk: names of a result's arrays, and the records behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from suture.compare.records import Fitted, FittedMap
from suture.indices import SiteStatistics
from suture.representations import Cell

Arrays = dict[str, NDArray[Any]]
_PARTS = FittedMap._fields


def pack_maps(method: str, fitted: Fitted) -> Arrays:
    """Return the arrays of fitted maps: ``METHOD.weight/I/J``, ``METHOD.bias/I/J``."""
    return {f"{method}.{part}/{i}/{j}": t.detach().cpu().numpy() for (i, j), m in fitted.maps.items()
            for part, t in zip(_PARTS, m, strict=True)}


def unpack_maps(method: str, arrays: Mapping[str, NDArray[Any]], failed: Mapping[Cell, str]) -> Fitted:
    """Return the fitted maps from the arrays of `pack_maps`."""
    start = f"{method}.weight/"
    cells = [tuple(map(int, k.removeprefix(start).split("/"))) for k in arrays if k.startswith(start)]
    maps = {(i, j): FittedMap(*(torch.as_tensor(arrays[f"{method}.{part}/{i}/{j}"]) for part in _PARTS))
            for i, j in cells}
    return Fitted(maps, failed)


def pack_cells(name: str, of: Mapping[Cell, float], shape: tuple[int, int]) -> Arrays:
    """Return one number per cell as an array (sources, targets), NaN where there is none."""
    full = np.full(shape, np.nan)
    for cell, value in of.items():
        full[cell] = value
    return {name: full}


def pack_statistics(side: str, k: int, found: SiteStatistics) -> Arrays:
    """Return the spectrum of a site, and its numbers of rows, channels and constant channels."""
    return {f"{side}.spectrum/{k}": found.spectrum.cpu().numpy(),
            f"{side}.rows/{k}": np.array([found.n, found.width, found.dead], dtype=np.int64)}
