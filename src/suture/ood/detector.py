"""The base class of detectors, and the records that a detector is fitted to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from suture._base import NO_KEEPER, Keeper, Progress, is_library, run_foreign, summarise_error
from suture.data import Batches, MicroBatch, move_batch
from suture.networks import SitedNetwork, disable_gradients, take_first
from suture.numbers import NumericalError
from suture.ood.energy_classifier import EnergyRecipe
from suture.ood.features import SiteFeatures
from suture.representations import Shape, find_image_size
from suture.stitching import extract_logits

UNSOLVED = NumericalError, np.linalg.LinAlgError, torch.linalg.LinAlgError  # type: ignore[attr-defined]
"""Errors for numbers without a result, which make the scores of one detector at one site missing."""


class Statistics(Protocol):
    """Sums or a sample of pooled features, collected batch by batch."""

    def update(self, features: Tensor, labels: Tensor | None, /) -> None:
        """Add the features (N, F) of a batch, and its class numbers (N,) or None."""


@dataclass
class NativeData:
    """The network and the data on which detectors are trained, the same for all sites.

    Attributes:
        target: the network with its sites, on `device`.
        data: as the user gave them; a detector can cut them into other batches.
        batches: the same data in suture's batches, in order.
        recipe: for trained detectors.
        micro_batch: number of examples per pass of the network.
        fingerprint: of the network: its weights, code and all else that decides its representations.
        auxiliary: out-of-distribution inputs for training; None if no detector needs them.
        progress: called as ``progress(stage, done, total)``, or None.
        keeper: keeps the state of trainings.
    """

    target: SitedNetwork
    data: Any
    batches: Batches
    recipe: EnergyRecipe
    device: torch.device
    micro_batch: int | MicroBatch
    fingerprint: str = ""
    auxiliary: Any = None
    progress: Progress | None = None
    keeper: Keeper = NO_KEEPER

    @cached_property
    def _first(self) -> Any:
        return move_batch(next(iter(self.batches)), self.device).target

    @cached_property
    def classes(self) -> int:
        """Number of logits of the network."""
        with disable_gradients():
            return extract_logits(self.target.run_full(take_first(self._first)).output).shape[1]

    @cached_property
    def image_size(self) -> tuple[int, ...] | None:
        """Height and width of the inputs, or None if they are no images."""
        return find_image_size(self._first)


@dataclass
class NativeSite:
    """One site, with what a detector is fitted to.

    Attributes:
        shape: of one representation.
        seed: of the randomness of a fit.
        statistics: the detector's `make_statistics` after one pass over the data, or None.
        data: for detectors that are trained on data.
        index: position of the site in ``data.target.sites``.
    """

    name: str
    shape: Shape
    seed: int = 0
    statistics: Any = None
    data: NativeData | None = None
    index: int = 0


def run_detector(detector: Detector) -> AbstractContextManager[None]:
    """Note whose code runs in a block if the detector is a user's; errors in suture's own ones stay."""
    of = type(detector)
    return nullcontext() if is_library(of) else run_foreign(f"the detector {of.__name__}")


class Detector(ABC):
    """A detector of representations unlike those that the target network itself has at a site.

    A new detector is a subclass in one file and a line in `suture.ood.table`; users pass their own as
    ``OOD(own={"name": MyDetector()})``. Its state is its attributes that are tensors or modules. With
    modules, it defines `get_state` and `restore`.

    Laws, which `suture.testing.detector_laws` checks:

    - Scores are (N,) and finite; larger is more in-distribution. A shifted copy of native representations has
      other scores and, unless the detector is `two_sided`, a lower mean score.
    - Scores do not change with the cut into batches, the device, or saving and restoring. The same data and
      seed give the same scores.
    - `fit` does not change the detector itself.
    - Without labels, auxiliary data or logits, a detector that needs them raises a `SutureError`; any other
      works.

    Attributes:
        about: definition and source, in one sentence.
        needs_labels: True if a fit needs class numbers.
        needs_logits: True if a score needs the target network's logits.
        needs_energy: True if a score is the energy of the logits, which is zero behind a softmax.
        needs_classes: True if a fit needs the number of classes of the target network
            (`NativeData.classes`).
        needs_auxiliary: True if a fit needs auxiliary inputs. Such a detector is trained, and is kept in
            `OOD.store` if it has `describe_training`.
        per_cell: True if each cell has its own detector, fitted by `score_pair`. Default: each target site
            has one.
        two_sided: True if representations far away may also score higher, as with energies.
    """

    about: ClassVar[str] = ""
    needs_labels: ClassVar[bool] = False
    needs_logits: ClassVar[bool] = False
    needs_energy: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = False
    needs_auxiliary: ClassVar[bool] = False
    per_cell: ClassVar[bool] = False
    two_sided: ClassVar[bool] = False

    def make_statistics(self, seed: int) -> Statistics | None:
        """Return empty statistics for `fit`, collected in one pass over the data, or None.

        Detectors with the same static method share the statistics, so `fit` must not change them.
        """
        return None

    def fit(self, native: NativeSite) -> Self:
        """Return a copy fitted to one site; too few data raise a `SutureError`. Default: no fit is needed."""
        return self

    def fit_sites(self, natives: Sequence[NativeSite]) -> Sequence[Detector]:
        """Return a fitted copy for each site; override it to share passes of the network.

        A site on which numbers have no result has an `Unfitted` detector.
        """
        found = []
        for native in natives:
            try:
                found.append(copy(self).fit(native))
            except UNSOLVED as e:
                found.append(Unfitted(summarise_error(e)))
        return found

    @abstractmethod
    def score(self, seen: SiteFeatures) -> Tensor:
        """Return the scores (N,), larger = more in-distribution."""

    def score_pair(self, native: SiteFeatures, other: SiteFeatures) -> tuple[Tensor, Tensor]:
        """Return the scores of native representations, and of other representations of the same examples."""
        return self.score(native), self.score(other)

    def describe_fit(self, fitted: Sequence[Self]) -> list[str]:
        """Return notes on the fits at all sites, for the reader of the scores."""
        return []

    def describe_training(self, native: NativeSite) -> Mapping[str, Any] | None:
        """Return, as JSON, all that decides a training besides the data; None if it is not to be kept."""
        return None

    def get_state(self) -> dict[str, Tensor]:
        """Return the state by name, as `restore` reads it."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def restore(self, native: NativeSite, state: Mapping[str, Tensor]) -> Self:
        """Return a copy with a state that was fitted to the same site."""
        return self.copy_with(**state)

    def copy_with(self, **attributes: Any) -> Self:
        """Return a copy with changed attributes."""
        made = copy(self)
        vars(made).update(attributes)
        return made

    def to(self, device: torch.device) -> Self:
        """Return a copy with its state on a device."""
        return self.copy_with(**{name: value.to(device) for name, value in vars(self).items()
                                 if isinstance(value, Tensor | nn.Module)})


class Unfitted(Detector):
    """A detector that could not be fitted to a site, and the `reason`; its scores are missing (nan)."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def score(self, seen: SiteFeatures) -> Tensor:
        return seen.spread.new_full((len(seen.spread),), torch.nan)
