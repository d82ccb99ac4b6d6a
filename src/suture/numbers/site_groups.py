"""Groups of sites that share a grid of positions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SiteGroup:
    """Sites with one grid of positions. Their channels are side by side in one buffer."""

    grid: Hashable
    members: tuple[int, ...]
    columns: Mapping[int, slice]
    width: int


def group_sites(grids: Sequence[Hashable], widths: Sequence[int]) -> list[SiteGroup]:
    """Group sites with equal grids, keeping groups and sites in the order given."""
    groups = []
    for grid in dict.fromkeys(grids):
        members = tuple(i for i, g in enumerate(grids) if g == grid)
        edges = [0]
        for i in members:
            edges.append(edges[-1] + widths[i])
        columns = {i: slice(edges[k], edges[k + 1]) for k, i in enumerate(members)}
        groups.append(SiteGroup(grid, members, columns, edges[-1]))
    return groups
