"""The fit of all detectors at all sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from suture._base import hash_parts, load_tensors, save_tensors
from suture.data import can_shuffle
from suture.ood.auxiliary import fingerprint_examples
from suture.ood.detector import Detector, NativeData, NativeSite
from suture.ood.features import SiteFeatures
from suture.representations import Shape

STORE_FORMAT, OLD_STORE_FORMAT = "suture.detector/2", "suture.shelf/1"


class DetectorFitter:
    """A collector of the statistics of native representations that detectors need.

    `statistics` has a list for each detector, by name: one item for each site, None if the detector needs
    none.
    """

    def __init__(self, detectors: Mapping[str, Detector], shapes: Sequence[Shape], seed: int = 0) -> None:
        self.shapes = shapes
        self.statistics = {name: [d.make_statistics(seed) for _ in shapes] for name, d in detectors.items()}

    @property
    def needed(self) -> bool:
        """True if any detector needs statistics."""
        return any(s is not None for of in self.statistics.values() for s in of)

    @torch.no_grad()
    def update(self, xs: Sequence[Tensor], labels: Tensor | None, mask: Tensor | None = None) -> None:
        """Add the representations of a batch, one tensor for each site."""
        if not self.needed:
            return
        whole = labels is not None and not labels.is_floating_point() and labels.ndim == 1
        for j, (x, shape) in enumerate(zip(xs, self.shapes, strict=True)):
            seen = SiteFeatures(x, shape, mask)
            for of in self.statistics.values():
                statistics = of[j]
                if statistics is not None:
                    statistics.update(seen.spread, labels if whole else None)


def fit_with_store(detector: Detector, natives: Sequence[NativeSite], data: NativeData,
                   store: Path | None) -> list[Detector]:
    """Return the detector fitted to each site, on the device.

    Trained detectors are kept in the folder `store`, one file per site, and are loaded from there again.
    """
    keys = [] if store is None else _make_keys(detector, natives, data)
    files = [Path(store or "") / f"{key}.safetensors" for key in keys]
    found = {k: detector.restore(natives[k], load_tensors(file, STORE_FORMAT, OLD_STORE_FORMAT).tensors)
             for k, file in enumerate(files) if file.exists()}
    rest = [k for k in range(len(natives)) if k not in found]
    for k, made in zip(rest, detector.fit_sites([natives[k] for k in rest]) if rest else (), strict=True):
        found[k] = made
        if files:
            save_tensors(files[k], STORE_FORMAT, made.get_state(), {"site": natives[k].name})
    return [found[k].to(data.device) for k in range(len(natives))]


def _make_keys(detector: Detector, natives: Sequence[NativeSite], data: NativeData) -> list[str]:
    """Return each site's key in the store, a hash of all that decides its training; empty if none is kept."""
    training = detector.describe_training(natives[0])
    if training is None:
        return []
    # The order of the examples is left out, so that a loader that shuffles finds its own detectors. The
    # batch sizes are included, because they change the training.
    parts = {"network": data.fingerprint, **training,
             "batches": "suture's" if can_shuffle(data.data) else [b.size for b in data.batches],
             "data": fingerprint_examples((b.target, b.labels) for b in data.batches),
             "auxiliary": fingerprint_examples([data.auxiliary])}
    return [hash_parts(parts | {"site": n.name, "shape": str(n.shape)}) for n in natives]
