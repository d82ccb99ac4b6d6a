"""Sources of networks beside modules, functions and plain specs: specs with weights, and trained networks."""

from __future__ import annotations

import hashlib
import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from suture import specs, zoo
from suture._base import SutureError, hash_parts
from suture.compare import collect_versions
from suture.data import parse_preprocessing
from suture.networks import Recipe


class NetworkSource(ABC):
    """Builds one network whenever it is asked; it can be sent to other processes."""

    @abstractmethod
    def build(self, like: Any = None) -> specs.LoadedNetwork:
        """Return the network, made for the classes and channels of the data `like`."""

    def find_stamp(self, like: Any = None) -> str | None:
        """Return a hash of all that decides the network, without building it; None if that is unknown."""
        return None


@dataclass(frozen=True)
class SpecNetwork(NetworkSource):
    """A network that a spec names, with weights of a file.

    Attributes:
        spec, weights, seed: as for `specs.build_network`.
        input: preprocessing in place of the network's own, such as "size=64", or "raw" for none.
    """

    spec: str
    weights: Path | None = None
    seed: int = 0
    input: str | None = None

    def build(self, like: Any = None) -> specs.LoadedNetwork:
        made = specs.build_network(self.spec, weights=self.weights, like=like, seed=self.seed)
        return made if self.input is None else replace(made, preprocessing=parse_preprocessing(self.input))

    def find_stamp(self, like: Any = None) -> str | None:
        """Return the hash of a network of the zoo; others hold code that only they themselves show."""
        kind, _, name = self.spec.partition(":")
        if kind != "zoo" or name not in zoo.networks:
            return None
        try:
            code = Path(inspect.getfile(zoo.networks[name].make)).read_bytes()
            weights = b"" if self.weights is None else self.weights.read_bytes()
        except (OSError, TypeError):
            return None
        digests = [hashlib.sha256(content).hexdigest() for content in (code, weights)]
        return hash_parts({"spec": self.spec, "weights": str(self.weights), "seed": self.seed,
                           "input": self.input, "sizes": list(specs.find_sizes(like)), "digests": digests,
                           "versions": collect_versions()})


@dataclass(frozen=True)
class TrainedNetwork(NetworkSource):
    """A network of the zoo that a study trains before its pairs.

    Attributes:
        name: in the zoo.
        recipe: of its training, with its seed.
        training: file of the weights after the last epoch, whose name holds all that decides them.
        epoch: after which it is taken; None for the last.
    """

    name: str
    recipe: Recipe
    training: Path
    epoch: int | None = None

    @property
    def path(self) -> Path:
        """The file of its weights."""
        return self.training if self.epoch is None else zoo.name_epoch(self.training, self.epoch)

    @property
    def untrained(self) -> SpecNetwork:
        """The network with its first, random weights."""
        return SpecNetwork(f"zoo:{self.name}", None, self.recipe.seed)

    def build(self, like: Any = None) -> specs.LoadedNetwork:
        if not self.path.exists():
            raise SutureError(f"zoo:{self.name} with seed {self.recipe.seed} is not trained yet")
        return self._trained.build(like)

    def find_stamp(self, like: Any = None) -> str | None:
        return self._trained.find_stamp(like)

    @property
    def _trained(self) -> SpecNetwork:
        return replace(self.untrained, weights=self.path)


@dataclass(frozen=True)
class FailedNetwork(NetworkSource):
    """A network whose training failed for a reason."""

    reason: str

    def build(self, like: Any = None) -> specs.LoadedNetwork:
        raise SutureError(self.reason)
