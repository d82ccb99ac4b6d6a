"""Networks prepared for comparisons, once for many pairs: copied, cut at their sites, folded, described."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from suture._base import fingerprint_network, hash_network
from suture.compare.key import Key, describe_network, sketch_network
from suture.networks import Readout, SitedNetwork, fold_batch_norms, prepare, take_first

T = TypeVar("T")


class OtherPreparationError(Exception):
    """A pair needs a network that is prepared otherwise than for the pairs before it."""


class PreparedNetworks:
    """What comparisons need of their networks; with `shared`, a network is prepared once for all its pairs.

    All comparisons that share one have the same data and settings. Networks are known by their content, so
    that one which changes between two comparisons is prepared anew.
    """

    def __init__(self, *, shared: bool = False) -> None:
        self._shared = shared
        self._made: dict[Hashable, Any] = {}
        self._folded: dict[int, frozenset[str]] = {}
        self._held: list[nn.Module] = []
        self._prints: dict[int, tuple[str, str]] | None = None

    @contextmanager
    def hold_still(self) -> Iterator[None]:
        """Read each network once only while nothing changes one, or until `read_again`."""
        self._prints = {}
        try:
            yield
        finally:
            self._prints = None

    def read_again(self) -> None:
        """Read networks anew, because one that was built may share modules with others."""
        if self._prints is not None:
            self._prints = {}

    def _read(self, network: nn.Module) -> tuple[str, str]:
        """Return what tells a network from others, and from itself at another time."""
        prints = {} if self._prints is None else self._prints
        if id(network) not in prints:
            self._held.append(network)  # so that no other gets its id
            prints[id(network)] = hash_network(network).state, fingerprint_network(network)
        return prints[id(network)]

    def _find(self, make: Callable[[], T], *key: Hashable) -> T:
        if not self._shared:
            return make()
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found

    def copy(self, network: nn.Module, inputs: Any, device: torch.device, name: str) -> nn.Module:
        """Return a private copy of a network, as `prepare`."""
        if not self._shared:
            return prepare(network, inputs, device, name)
        return self._find(lambda: prepare(network, inputs, device, name), "copy", id(network),
                          *self._read(network))

    def cut(self, network: nn.Module, inputs: Any, sites: Any, *, name: str, readout: Readout | None,
            **how: Any) -> SitedNetwork:
        """Return a copy at its sites."""
        def make() -> SitedNetwork:
            if id(network) in self._folded:  # its calls are others by now
                raise OtherPreparationError
            return SitedNetwork(network, inputs, sites, name=name, readout=readout, **how)

        if not self._shared:
            return make()
        made = self._find(make, "cut", id(network), repr(sites), readout)
        return made if made.name == name else self._find(lambda: made.with_name(name), "cut", id(made), name)

    def fold(self, inputs: Mapping[nn.Module, Any], kept: set[str]) -> None:
        """Fold the batch norms of copies, as `fold_batch_norms`; inputs are by copy.

        Raises:
            OtherPreparationError: they were folded for a pair that keeps other outputs as they are.
        """
        for network, given in inputs.items():
            own = frozenset(name for name, _ in network.named_modules() if name in kept)
            before = self._folded.get(id(network))
            if before is None:
                fold_batch_norms(network, take_first(given), kept)
                self._folded[id(network)] = own
            elif before != own:
                raise OtherPreparationError

    def describe(self, network: nn.Module, sited: SitedNetwork) -> Key:
        """Return the part of a comparison's key that is of one network, as `describe_network`."""
        return self._find(lambda: describe_network(network, sited), "description", id(sited.network),
                          sited.sites)

    def sketch(self, sited: SitedNetwork, inputs: Any) -> list[Any]:
        """Return numbers of the outputs, as `sketch_network`."""
        return self._find(lambda: sketch_network(sited, inputs), "sketch", id(sited.network), sited.sites,
                          sited.readout)
