"""The scores of native and stitched representations, and the measures computed from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture._base import expect, summarise_error
from suture.numbers import Arrays, Estimate, Float32Array, Floats, estimate_separation, make_missing_estimate
from suture.ood.detector import UNSOLVED, Detector, Unfitted, run_detector
from suture.ood.features import SiteFeatures
from suture.representations import Cell, Kind, Masks, Shape

Key = int | Cell
"""A target site, for native representations, or a cell."""

# Float32 rounding of |T - mean|² is 1e-14 |T|². A representation is constant unless it is well above that.
CONSTANT_SHARE = 1e-12
SAMPLED_EXAMPLES = 500
"""Number of first test examples whose features are kept for detectors per cell."""


@dataclass
class ScoreCollector:
    """A collector of the scores of one pass over data.

    `detectors` has, by name, one detector for each target site. For detectors per cell, the collector keeps
    pooled features (N, F) of the first `SAMPLED_EXAMPLES` examples instead of scores.
    """

    detectors: Mapping[str, Sequence[Detector]]
    shapes: Sequence[Shape]
    _scores: dict[str, dict[Key, list[Tensor]]] = field(default_factory=dict)
    _features: dict[Key, list[Tensor]] = field(default_factory=dict)
    _unsolved: dict[tuple[str, Cell], str] = field(default_factory=dict)

    def list_parts(self) -> list[list[Tensor]]:
        """Return the lists that `add` appends to."""
        return [*self._features.values(), *(parts for of in self._scores.values() for parts in of.values())]

    @property
    def needs_logits(self) -> bool:
        """True if a detector needs the logits of the target network."""
        return any(d.needs_logits for of in self.detectors.values() for d in of)

    def get_state(self) -> dict[str, Any]:
        """Return what was collected so far, for a checkpoint."""
        return {"scores": self._scores, "features": self._features}

    def join_parts(self) -> None:
        """Join the parts of each result, so that a checkpoint has few tensors."""
        for of in (self._features, *self._scores.values()):
            join_parts(of)

    @torch.no_grad()
    def add(self, key: Key, x: Tensor, mask: Masks, logits: Tensor | None = None) -> None:
        """Score a batch of representations.

        Args:
            key: a target site for native representations, a cell for stitched ones.
            x: the representations.
            mask: (N, T) of the inputs; None without padding.
            logits: of the target network after these representations, or None.
        """
        j = key if isinstance(key, int) else key[1]
        seen, pooled = SiteFeatures(x, self.shapes[j], mask, logits), False
        for name, detectors in self.detectors.items():
            if detectors[j].per_cell:
                pooled = True
                continue
            with run_detector(detectors[j]):
                found = detectors[j].score(seen)
            expect(isinstance(found, Tensor), f"a tensor of scores from the detector {name!r}", found)
            expect(found.shape == (len(x),), f"one score for each example from the detector {name!r}", found)
            self._scores.setdefault(name, {}).setdefault(key, []).append(found.float())
        if pooled:
            kept = self._features.setdefault(key, [])
            kept.append(seen.spread[:max(0, SAMPLED_EXAMPLES - sum(map(len, kept)))].cpu())

    def join_scores(self, name: str) -> dict[Key, Float32Array]:
        """Return the scores (N,) of a detector by site and cell; none for a detector per cell."""
        return {key: torch.cat(parts).cpu().numpy() for key, parts in self._scores.get(name, {}).items()}

    def join_features(self, key: Key) -> Tensor:
        """Return the kept features (n, F) of a site or cell."""
        return torch.cat(self._features[key])

    def stack_pairs(self, name: str, shape: tuple[int, int]) -> Float32Array:
        """Return native and stitched scores (2, S, T, n) of a detector per cell; nan for cells without."""
        found = np.full((2, *shape, len(self.join_features(0))), np.nan, np.float32)
        for cell in self._features if found.shape[3] > 1 else ():
            if isinstance(cell, tuple) and (other := self.join_features(cell)).isfinite().all():
                native, detector = self.join_features(cell[1]), self.detectors[name][cell[1]]
                try:
                    found[:, *cell] = score_features(detector, native, other)
                except UNSOLVED as e:
                    self._unsolved[name, cell] = summarise_error(e)
        return found

    def explain_missing(self, name: str, cell: Cell) -> str:
        """Return the reason why numbers without a result left no scores of a cell; "" if there are scores."""
        detector = self.detectors[name][cell[1]]
        return detector.reason if isinstance(detector, Unfitted) else self._unsolved.get((name, cell), "")


def join_parts(of: Mapping[Any, list[Tensor]]) -> None:
    """Join the tensors of each list into one."""
    for parts in of.values():
        parts[:] = [torch.cat(parts)]


def score_features(detector: Detector, native: Tensor, other: Tensor) -> tuple[Floats, Floats]:
    """Return the scores (n,) that a detector per cell gives native and other features (n, F)."""
    shape = Shape(Kind.VECTOR, native.shape[1])
    with run_detector(detector):
        one, two = detector.score_pair(SiteFeatures(native, shape), SiteFeatures(other, shape))
    return one.numpy(), two.numpy()


def stack_scores(found: ScoreCollector, method: str, shape: tuple[int, int]) -> dict[str, Float32Array]:
    """Return the scores as arrays ``native.NAME`` (T, N) and ``METHOD.score_NAME`` (S, T, N).

    Missing cells are nan. A detector per cell has native scores ``METHOD.native_NAME`` (S, T, n).
    """
    arrays: dict[str, Float32Array] = {}
    for name, detectors in found.detectors.items():
        own, score = f"native.{name}", f"{method}.score_{name}"
        if detectors[0].per_cell:
            arrays[f"{method}.native_{name}"], arrays[score] = found.stack_pairs(name, shape)
            continue
        scores = found.join_scores(name)
        n = len(scores[0])
        arrays |= {own: np.full((shape[1], n), np.nan, np.float32),
                   score: np.full((*shape, n), np.nan, np.float32)}
        for key, values in scores.items():
            arrays[own if isinstance(key, int) else score][key] = values
    return arrays


def tabulate_scores(found: ScoreCollector, arrays: Arrays, method: str, shape: tuple[int, int],
                    names: Sequence[str], seed: int,
                    failed: Mapping[Cell, str]) -> list[tuple[int, int, str, Estimate, int]]:
    """Return (source, target, measure, estimate, n) of every detector and cell.

    Args:
        found: scores of native and stitched representations.
        arrays: of `stack_scores`, and ``target.spread`` and ``target.scale`` of the evaluation if they exist.
        method, shape: as for `stack_scores`.
        names: of detectors.
        seed: of the confidence intervals.
        failed: cells without a stitched network, with the reason.
    """
    rows = []
    constant = _find_constant_sites(arrays)
    for name, (i, j) in product(names, product(*map(range, shape))):
        stitched = arrays[f"{method}.score_{name}"][i, j]
        own = f"{method}.native_{name}"
        native = arrays[own][i, j] if own in arrays else arrays[f"native.{name}"][j]
        reason = failed.get((i, j)) or found.explain_missing(name, (i, j)) or (
            "the target's representation is constant on the test data" if constant[j]
            else "one example is too few" if len(native) < 2 else "")
        if reason:
            values = dict.fromkeys(("ood", "auroc", "ap", "fpr95"), make_missing_estimate(reason))
        else:
            s = estimate_separation(native, stitched, seed)
            values = {"ood": s.two_sided, "auroc": s.auroc, "ap": s.average_precision, "fpr95": s.fpr95}
        rows += [(i, j, f"{method}.{what}_{name}", e, len(native)) for what, e in values.items()]
    return rows


def _find_constant_sites(arrays: Arrays) -> dict[int, bool]:
    """Return the target sites with a constant representation, whose scores would be rounding."""
    if "target.spread" not in arrays:
        return defaultdict(bool)
    spread, scale = (arrays[f"target.{k}"].sum(1, dtype=np.float64) for k in ("spread", "scale"))
    return {j: is_constant(a, b) for j, (a, b) in enumerate(zip(spread, scale, strict=True))}


def is_constant(spread: float, scale: float) -> bool:
    """Check that a sum of |T - mean|² is only rounding, relative to the sum of |T|²."""
    return bool(spread <= CONSTANT_SHARE * scale)
