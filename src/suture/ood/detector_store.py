"""The store of trained detectors: one file for each site, found again by a hash of all that decides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from suture._base import TensorFile, expect, get_time, hash_object, hash_parts, load_tensors, save_tensors
from suture.data import can_shuffle
from suture.ood.auxiliary import fingerprint_examples
from suture.ood.detector import Detector, NativeData, NativeSite, Unfitted, run_detector

STORE_FORMAT, OLD_STORE_FORMAT = "suture.detector/2", "suture.shelf/1"


def fit_with_store(detector: Detector, natives: Sequence[NativeSite], data: NativeData,
                   store: Path | None, loaded: list[str] | None = None) -> list[Detector]:
    """Return the detector fitted to each site, on the device.

    Trained detectors are kept in the folder `store`, one file per site, and are loaded from there again. The
    times when these were trained are added to `loaded`. Detectors per cell stay on the CPU, where their
    features are kept.
    """
    keys = [] if store is None else _make_keys(detector, natives, data)
    files = [Path(store or "") / f"{key}.safetensors" for key in keys]
    kept = {k: _load_state(f) for k, f in enumerate(files) if f.exists()}
    found = {k: detector.restore(natives[k], of.tensors) for k, of in kept.items()}
    if loaded is not None:
        loaded += [of.about["computed"] for of in kept.values() if "computed" in of.about]
    rest = [k for k in range(len(natives)) if k not in found]
    with run_detector(detector):
        fitted = detector.fit_sites([natives[k] for k in rest]) if rest else ()
    for k, made in zip(rest, fitted, strict=True):
        found[k] = made
        if files and not isinstance(made, Unfitted):
            save_tensors(files[k], STORE_FORMAT, made.get_state(),
                         {"site": natives[k].name, "key": keys[k], "computed": get_time()})
    device = torch.device("cpu") if detector.per_cell else data.device
    return [found[k].to(device) for k in range(len(natives))]


def _load_state(path: Path) -> TensorFile:
    """Load a stored detector, whose file must bear the key that was written into it."""
    file = load_tensors(path, STORE_FORMAT, OLD_STORE_FORMAT)
    key = file.about.get("key", path.stem)  # earlier files have none
    expect(key == path.stem, f"the detector {key} in {str(path)!r}", "a file of another name",
           "remove it, and the detector is trained again")
    return file


def _make_keys(detector: Detector, natives: Sequence[NativeSite], data: NativeData) -> list[str]:
    """Return each site's key in the store, a hash of all that decides its training; empty if none is kept."""
    training = detector.describe_training(natives[0])
    if training is None:
        return []
    # The order of a loader's examples is left out, so that one that shuffles finds its own detectors. The
    # batch sizes are included, because they change the training.
    seen = data.batches.seen if can_shuffle(data.data) else None
    of = type(detector)
    own = "" if of.__module__.startswith("suture.") else hash_object(detector).short
    parts = {"network": data.fingerprint, "detector": f"{of.__module__}.{of.__qualname__}", "own": own,
             "training": training, "seed": natives[0].seed, "recipe": asdict(data.recipe),
             "order": None if seen is None else [seen.inputs, seen.labels],
             "batches": "suture's" if can_shuffle(data.data) else [b.size for b in data.batches],
             "data": fingerprint_examples((b.target, b.labels) for b in data.batches),
             "auxiliary": fingerprint_examples([data.auxiliary])}
    return [hash_parts(parts | {"site": n.name, "shape": str(n.shape)}) for n in natives]
