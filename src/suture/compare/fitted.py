"""Fitted maps of one method, and their stitching layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from suture.compare.setup import Setup
from suture.representations import Cell
from suture.stitching import StitchingLayer


class FittedMap(NamedTuple):
    """Affine map of one cell, weight (q, p) and bias (q,), in the precision it was solved in."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Fitted:
    """Maps of one method by cell, and the reason for each cell without one."""

    maps: Mapping[Cell, FittedMap]
    failed: Mapping[Cell, str]

    def make_layers(self, setup: Setup) -> dict[Cell, StitchingLayer]:
        """Return the stitching layers with these maps, on the device."""
        return {c: setup.make_layer(c).set(*m).to(setup.settings.torch_device) for c, m in self.maps.items()}
