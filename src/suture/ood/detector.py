"""The base class of every detector, and what a detector is fitted to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from suture._base import Progress
from suture.data import Batches, move_batch
from suture.networks import SitedNetwork, disable_gradients, take_first
from suture.ood.energy_recipe import EnergyRecipe
from suture.ood.features import SiteFeatures
from suture.representations import Shape, find_image_size
from suture.stitching import extract_logits


class Statistics(Protocol):
    """Sums or a sample of pooled features, collected batch by batch."""

    def update(self, features: Tensor, labels: Tensor | None, /) -> None:
        """Add the features (N, F) of a batch, and its class numbers (N,) if the data have them."""


@dataclass
class NativeData:
    """The network and the data that trained detectors are fitted to, the same for all sites.

    Attributes:
        target: the network with its sites, on `device`.
        data: as the user gave them; a detector cuts them into batches of its own.
        batches: the same data in suture's batches, in order.
        recipe: of trained detectors.
        device, micro_batch: device, and number of examples per pass of the network.
        fingerprint: of the network's weights.
        auxiliary: inputs for training that are out of distribution; None if no detector needs them.
        progress: called as ``progress(stage, done, total)``, or None.
    """

    target: SitedNetwork
    data: Any
    batches: Batches
    recipe: EnergyRecipe
    device: torch.device
    micro_batch: int
    fingerprint: str = ""
    auxiliary: Any = None
    progress: Progress | None = None

    @cached_property
    def _first(self) -> Any:
        return move_batch(next(iter(self.batches)), self.device).target

    @cached_property
    def classes(self) -> int:
        """Number of logits of the network."""
        with disable_gradients():
            return extract_logits(self.target.run_full(take_first(self._first)).output).shape[1]

    @cached_property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of the inputs, or None if they are no images."""
        return find_image_size(self._first)


@dataclass
class NativeSite:
    """What a detector is fitted to: the native representations of one site.

    Attributes:
        name: of the site.
        shape: of one representation.
        seed: of anything random in a fit.
        statistics: what the detector's `make_statistics` collected in one pass over the data, or None.
        data: the network and its data, for detectors that train on them.
        index: number of the site in ``data.target.sites``.
    """

    name: str
    shape: Shape
    seed: int = 0
    statistics: Any = None
    data: NativeData | None = None
    index: int = 0


class Detector(ABC):
    """A detector of representations that a target network never has at a site.

    A new detector is a subclass in one file and a line in `suture.ood.table`. A user's own one is passed as
    ``OOD(own={"name": MyDetector()})``. Its state are the attributes that are tensors or modules. A detector
    with modules says in `get_state` and `restore` how they are saved.

    Laws, which `suture.testing.detector_laws` checks:

    - Scores are (N,) and finite; larger is more in-distribution. A shifted copy of native representations
      has other scores than these, and lower ones on average unless the detector is `two_sided`.
    - The same data and seed give the same scores.
    - The cut of the data into batches, the device, and saving and restoring change no score.
    - `fit` leaves the detector itself as it was.
    - What a detector says that it needs is true: without labels, auxiliary data or logits it works unless it
      needs them, and else raises a `SutureError`.

    Attributes:
        about: one sentence: definition and source.
        needs_labels: True if a fit needs the classes of the examples.
        needs_logits: True if a fit or a score needs the logits of the target network.
        needs_auxiliary: True if a fit needs auxiliary inputs. Such a detector is trained, and is kept in
            `OOD.store` if `describe_training` says how.
        per_cell: True if each cell has a detector of its own, which `score_pair` fits. Default: one for each
            target site.
        two_sided: True if representations far away may also score higher, as an energy does.
    """

    about: ClassVar[str] = ""
    needs_labels: ClassVar[bool] = False
    needs_logits: ClassVar[bool] = False
    needs_auxiliary: ClassVar[bool] = False
    per_cell: ClassVar[bool] = False
    two_sided: ClassVar[bool] = False

    def make_statistics(self, seed: int) -> Statistics | None:
        """Return empty statistics to be collected for `fit` in one pass; None if it needs none."""
        return None

    def fit(self, native: NativeSite) -> Self:
        """Return a copy that is fitted to one site. Default: the detector needs no fit.

        Raises:
            SutureError: the data are not enough.
        """
        return self

    def fit_sites(self, natives: Sequence[NativeSite]) -> Sequence[Self]:
        """Return a fitted copy for each site; override it to share passes of the network."""
        return [copy(self).fit(native) for native in natives]

    @abstractmethod
    def score(self, seen: SiteFeatures) -> Tensor:
        """Return the scores (N,), larger = more in-distribution."""

    def score_pair(self, native: SiteFeatures, other: SiteFeatures) -> tuple[Tensor, Tensor]:
        """Return the scores of native representations and of others of the same examples."""
        return self.score(native), self.score(other)

    def describe_fit(self, fitted: Sequence[Self]) -> list[str]:
        """Return sentences for the reader of the scores, about the fits at all sites."""
        return []

    def describe_training(self, native: NativeSite) -> Mapping[str, Any] | None:
        """Return, as JSON, all that decides a training beside the data; None: training is not kept."""
        return None

    def get_state(self) -> dict[str, Tensor]:
        """Return the tensors of a fitted detector by name, as `restore` reads them."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def restore(self, native: NativeSite, state: Mapping[str, Tensor]) -> Self:
        """Return a copy with the state of a detector that was fitted to the same site."""
        return self.copy_with(**state)

    def copy_with(self, **attributes: Any) -> Self:
        """Return a copy with other attributes."""
        made = copy(self)
        vars(made).update(attributes)
        return made

    def to(self, device: torch.device) -> Self:
        """Return a copy with its state on a device."""
        return self.copy_with(**{name: value.to(device) for name, value in vars(self).items()
                                 if isinstance(value, Tensor | nn.Module)})
