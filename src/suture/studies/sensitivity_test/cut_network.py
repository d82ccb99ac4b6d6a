"""A network whose front gives the representation of one site cut to several ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from suture.networks import SitedNetwork
from suture.studies.probes.principal_components import Basis, cut_representation, find_batch_basis


class CutNetwork(SitedNetwork):
    """A network with one site, once for each rank.

    Args:
        network: the network.
        site: number of its site.
        ranks: that its representation is cut to.
        basis: the components; None for those of each batch.
    """

    def __init__(self, network: SitedNetwork, site: int, ranks: Sequence[int], basis: Basis | None) -> None:
        # Not the own constructor: the dry run of the network holds here too.
        self.__dict__.update(vars(network))
        self._whole, self._site, self._ranks, self._basis = network, site, ranks, basis
        self.sites = (network.sites[site],) * len(ranks)
        self.shapes = (network.shapes[site],) * len(ranks)

    def front(self, inputs: Any) -> list[Tensor]:
        """Return the representation at every rank."""
        x, masks = self._whole.front(inputs)[self._site], self.find_masks(inputs)
        basis = find_batch_basis(x, self.shapes[0], masks) if self._basis is None else self._basis
        return [cut_representation(x, self.shapes[0], basis, r) for r in self._ranks]
